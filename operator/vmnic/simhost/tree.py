"""A file tree that is computed while it is walked, so that nothing is stored twice."""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

__all__ = ["Directory", "File", "Link", "Node", "constant", "resolve"]

_MAX_LINKS = 40
"""Most symbolic links on a path before ELOOP, as in the kernel."""

Read = Callable[[], Generator[None, None, str]]
Write = Callable[[str], Generator[None, None, None]]


@dataclass(frozen=True, slots=True)
class File:
    """A file. Reading or writing without a handler fails with EACCES, as in sysfs even for root."""

    read: Read | None = None
    write: Write | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link with its target as the kernel writes it."""

    target: str


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory whose entries are computed when it is read."""

    entries: Callable[[], Mapping[str, Node]]
    find: Callable[[str], Node | None] | None = None
    """Computes a single entry, for directories with many entries."""

    def entry(self, name: str) -> Node | None:
        """Return an entry, or None if there is none with this name."""
        return self.find(name) if self.find is not None else self.entries().get(name)


Node = File | Link | Directory


def constant(text: str) -> File:
    """Return a read-only file."""

    def read() -> Generator[None, None, str]:
        yield from ()
        return text

    return File(read=read)


def resolve(root: Directory, path: str, *, follow_last: bool = True) -> Node:
    """Walk to a node and follow links.

    Raises:
        OSError: ENOENT, ENOTDIR or ELOOP.
    """
    stack: list[tuple[str, Node]] = [("", root)]
    parts = [part for part in path.split("/") if part]
    links = 0
    while parts:
        part = parts.pop(0)
        if part == "..":
            if len(stack) > 1:
                stack.pop()
            continue
        present = stack[-1][1]
        if not isinstance(present, Directory):
            raise OSError(errno.ENOTDIR, path)
        found = present.entry(part)
        if found is None:
            raise OSError(errno.ENOENT, path)
        if isinstance(found, Link) and (parts or follow_last):
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, path)
            if found.target.startswith("/"):
                stack = stack[:1]
            # A later `..` leaves the link's target and not the place of the link, as in the kernel.
            parts = [name for name in found.target.split("/") if name] + parts
            continue
        stack.append((part, found))
    return stack[-1][1]
