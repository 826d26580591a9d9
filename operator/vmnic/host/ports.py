"""Three ports, each choosable alone, behind one `perform`."""

from __future__ import annotations

from .ops import ListDir, LoadModule, Op, Port, PutFile, ReadFile, ReadLink, UnloadModule, Value, WriteFile

__all__ = ["Host", "StillBlocked"]


class StillBlocked(Exception):  # noqa: N818 - not an error: the kernel has not answered yet
    """The kernel has not answered, and only an in-process model of it can say so; a real call would not return."""


class Host:
    """A host made of a port for files, one for links and one for modules."""

    def __init__(self, files: Port, links: Port, modules: Port) -> None:
        self._files = files
        self._links = links
        self._modules = modules

    def perform(self, op: Op) -> Value:
        """Perform an operation on the port that it belongs to.

        Raises:
            OSError: the kernel refused.
        """
        match op:
            case ReadFile() | WriteFile() | PutFile() | ListDir() | ReadLink():
                return self._files.perform(op)
            case LoadModule() | UnloadModule():
                return self._modules.perform(op)
            case _:
                return self._links.perform(op)
