"""A host with separate ports for files, links and modules behind one `perform`."""

from __future__ import annotations

from .ops import ListDir, LoadModule, Op, Port, PutFile, ReadFile, ReadLink, UnloadModule, Value, WriteFile

__all__ = ["Host", "StillBlocked"]


class StillBlocked(Exception):  # noqa: N818 - not an error: the kernel has not answered yet
    """The kernel has not answered.

    Only a model in this process can say so, because a real call would not return.
    """


class Host:
    """A host made of a port for files, one for links and one for modules."""

    def __init__(self, files: Port, links: Port, modules: Port) -> None:
        self._files = files
        self._links = links
        self._modules = modules

    def perform(self, op: Op) -> Value:
        """Perform an operation on the port to which it belongs.

        Raises:
            OSError: The kernel refused.
        """
        match op:
            case ReadFile() | WriteFile() | PutFile() | ListDir() | ReadLink():
                return self._files.perform(op)
            case LoadModule() | UnloadModule():
                return self._modules.perform(op)
            case _:
                return self._links.perform(op)
