"""Watch of a directory for one name that appears and disappears, through the kernel's inotify.

The standard library has no binding, and one call and one read are enough. Where inotify is not available, waiters poll by
themselves, because a watch is only a hint.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import pathlib
import struct
from collections.abc import Awaitable, Iterator

__all__ = ["DirectoryWatch"]

_CREATE, _DELETE, _MOVED_TO, _DELETE_SELF = 0x100, 0x200, 0x80, 0x400
_HEADER = struct.Struct("iIII")
"""struct inotify_event of linux/inotify.h: watch, mask, cookie and length of the name that follows."""


class DirectoryWatch:
    """Wakes waiters when a name appears or disappears.

    Args:
        path: The directory, which need not exist.
        name: The name to watch. The kubelet also writes other files there.
    """

    def __init__(self, path: pathlib.Path, name: str) -> None:
        self._path = path
        self._name = name
        self._descriptor: int | None = None
        self._event = asyncio.Event()

    def changed(self) -> Awaitable[object]:
        """Return an awaitable that ends at the next change from now on.

        It never ends where the directory cannot be watched.
        """
        self._open()
        return self._event.wait()

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> None:
        if self._descriptor is not None:
            return
        # CDLL(None) is the C library that the process already has, so its file name does not matter.
        libc = ctypes.CDLL(None)
        descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        # Instances and watches are limited per user, so the kernel may refuse one. Waiters then rely on their own time limit.
        if descriptor < 0:
            return
        if libc.inotify_add_watch(descriptor, bytes(self._path), _CREATE | _DELETE | _MOVED_TO | _DELETE_SELF) < 0:
            os.close(descriptor)
            return
        self._descriptor = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def _read(self) -> None:
        assert self._descriptor is not None
        try:
            events = list(_events(os.read(self._descriptor, 65536)))
        except BlockingIOError:
            return
        # This watch ends with the directory. The next `changed` watches the one that replaces it.
        if any(mask & _DELETE_SELF for mask, _ in events):
            self.close()
        if any(name == self._name or mask & _DELETE_SELF for mask, name in events):
            self._event.set()
            self._event = asyncio.Event()


def _events(buffer: bytes) -> Iterator[tuple[int, str]]:
    at = 0
    while at < len(buffer):
        _, mask, _, length = _HEADER.unpack_from(buffer, at)
        at += _HEADER.size
        yield mask, buffer[at : at + length].rstrip(b"\0").decode(errors="replace")
        at += length
