"""A host with separate ports for files, links and modules behind one `perform`."""

from __future__ import annotations

from .ops import FileOp, ModuleOp, Op, Port, Value

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
        if isinstance(op, FileOp):
            return self._files.perform(op)
        return self._modules.perform(op) if isinstance(op, ModuleOp) else self._links.perform(op)
