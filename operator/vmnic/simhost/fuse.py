"""The simulated host's `/sys` as a file system that any program can use, mounted by FUSE.

It shares the model with the socket, so a change through one is at once visible through the other, and every refusal has the
kernel's errno. It needs libfuse 3 and the package mfusepy, which only tests and trials install.
"""

from __future__ import annotations

import errno
import itertools
import os
import pathlib
import stat
from typing import Any

import mfusepy

from ..host.ops import ListDir, ReadFile, ReadLink, WriteFile
from .host import SimHost
from .tree import Directory, File, Link

__all__ = ["serve_sys"]

_PAGE_BYTES = 4096
"""Size of every file, as reported by sysfs."""
_THREADS = 100
"""Most operations at a time, because each waiting operation occupies a thread."""
_READ, _WRITE, _TREE = 0o444, 0o200, 0o755


def serve_sys(host: SimHost, mountpoint: pathlib.Path) -> None:
    """Mount the host's /sys and serve it until it is unmounted.

    The kernel caches nothing, so every read shows the present state.

    Raises:
        RuntimeError: The mount failed.
    """
    mfusepy.FUSE(
        _Sys(host), str(mountpoint), foreground=True, allow_other=True, default_permissions=True, direct_io=True,
        attr_timeout=0, entry_timeout=0, negative_timeout=0, fsname="vmnic-simhost", subtype="sysfs", max_threads=_THREADS,
    )  # fmt: skip


class _Sys(mfusepy.Operations):  # type: ignore[misc]
    """FUSE operations.

    Each call has its own thread, because an operation may block as it does in the kernel.
    """

    use_ns = True

    def __init__(self, host: SimHost) -> None:
        self._host = host
        self._handles = itertools.count(1)
        self._opened: dict[int, bytes | None] = {}
        """Content of each open file by handle, as of the last read from its beginning."""

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:  # noqa: ARG002 - FUSE's signature
        """Return the attributes of a file."""
        node = self._host.look(f"/sys{path}")
        mode, size, links = stat.S_IFDIR | _TREE, 0, 2
        if isinstance(node, Link):
            mode, size, links = stat.S_IFLNK | 0o777, len(node.target), 1
        elif isinstance(node, File):
            access = _READ * (node.read is not None) | _WRITE * (node.write is not None)
            mode, size, links = stat.S_IFREG | access, _PAGE_BYTES, 1
        return {"st_mode": mode, "st_size": size, "st_nlink": links, "st_uid": 0, "st_gid": 0}

    def readdir(self, path: str, fh: int) -> list[str]:  # noqa: ARG002 - FUSE's signature
        """List a directory."""
        return [".", "..", *map(str, self._host.perform(ListDir(f"/sys{path}")) or ())]  # type: ignore[arg-type]

    def readlink(self, path: str) -> str:
        """Read a symbolic link."""
        return str(self._host.perform(ReadLink(f"/sys{path}")))

    def open(self, path: str, flags: int) -> int:
        """Open a file, and refuse a missing read or write side even for root."""
        node = self._host.look(f"/sys{path}")
        access = flags & os.O_ACCMODE
        if isinstance(node, Directory):
            raise OSError(errno.EISDIR, path)
        if not isinstance(node, File) or (access != os.O_RDONLY and node.write is None):
            raise OSError(errno.EACCES, path)
        if access != os.O_WRONLY and node.read is None:
            raise OSError(errno.EACCES, path)
        handle = next(self._handles)
        self._opened[handle] = None
        return handle

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Read a file, whose content is computed again for a read from its beginning."""
        text = self._opened[fh]
        # A reader gets the rest of what it began to read, even if the state changes between two calls.
        if offset == 0 or text is None:
            text = self._opened[fh] = f"{self._host.perform(ReadFile(f'/sys{path}'))}\n".encode()
        return text[offset : offset + size]

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:  # noqa: ARG002 - FUSE's signature
        """Write a file, where one call is one operation regardless of the offset, as in sysfs."""
        self._host.perform(WriteFile(f"/sys{path}", data.decode(errors="replace")))
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:  # noqa: ARG002 - FUSE's signature
        """Ignore truncation as sysfs does, because shells open files with O_TRUNC."""
        return 0

    def release(self, path: str, fh: int) -> int:  # noqa: ARG002 - FUSE's signature
        """Close a file."""
        self._opened.pop(fh, None)
        return 0

    def create(self, path: str, mode: int, flags: int) -> int:  # noqa: ARG002 - FUSE's signature
        """Refuse to create a file, as sysfs does."""
        raise OSError(errno.EACCES, path)

    def mkdir(self, path: str, mode: int) -> int:  # noqa: ARG002 - FUSE's signature
        """Refuse to create a directory."""
        raise OSError(errno.EPERM, path)

    def unlink(self, path: str) -> int:
        """Refuse to remove a file."""
        raise OSError(errno.EPERM, path)
