"""Tells when something about the node's NICs has changed, as the kernel says it: uevents of PCI and link messages.

Only for the host that the agent runs on; a simulated host is looked at from time to time. Both kinds of message are sent to
every listener of a multicast group, so no right is needed and nothing blocks. Sources: linux/rtnetlink.h, lib/kobject_uevent.c.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Callable, Iterator

__all__ = ["HostEvents", "changed_link", "is_pci_event"]

_NETLINK_KOBJECT_UEVENT = 15
_UEVENT_KERNEL = 1
"""Multicast group of the kernel's own uevents; group 2 is udev's."""
_RTMGRP_LINK = 1
_HEADER, _LINK = struct.Struct("=IHHII"), struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")
_IFNAME = 3
_RTM_LINKS = (16, 17)
"""RTM_NEWLINK and RTM_DELLINK."""
_BYTES = 65536


class HostEvents:
    """Listens as long as it is open.

    Args:
        names: Gives the names of the links that matter; messages of others are passed over.
        changed: Called in the loop for every message that matters.
    """

    def __init__(self, names: Callable[[], set[str]], changed: Callable[[], None]) -> None:
        self._names = names
        self._changed = changed
        self._sockets: list[socket.socket] = []

    def open(self) -> None:
        """Start to listen.

        Raises:
            OSError: the kernel gives no such socket.
        """
        self._listen(_NETLINK_KOBJECT_UEVENT, _UEVENT_KERNEL, is_pci_event)
        self._listen(socket.NETLINK_ROUTE, _RTMGRP_LINK, lambda data: not self._names().isdisjoint(changed_link(data)))

    def close(self) -> None:
        """Stop listening."""
        for one in self._sockets:
            asyncio.get_running_loop().remove_reader(one)
            one.close()
        self._sockets.clear()

    def _listen(self, protocol: int, group: int, matters: Callable[[bytes], bool]) -> None:
        listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        self._sockets.append(listener)
        listener.bind((0, group))
        asyncio.get_running_loop().add_reader(listener, self._receive, listener, matters)

    def _receive(self, listener: socket.socket, matters: Callable[[bytes], bool]) -> None:
        """Read all that waits; messages that were lost (ENOBUFS) may have mattered."""
        found = False
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    data = listener.recv(_BYTES)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    found = True
                    continue
                found = matters(data) or found
        if found:
            self._changed()


def is_pci_event(data: bytes) -> bool:
    """Tell whether a uevent is about a PCI function: it came, went, changed, or got or lost its driver."""
    return b"SUBSYSTEM=pci" in data.split(b"\0")


def changed_link(data: bytes) -> set[str]:
    """Give the names of the links that a datagram of rtnetlink speaks of."""
    return set(_names(data))


def _names(data: bytes) -> Iterator[str]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        if kind in _RTM_LINKS:
            yield from _link_name(data[offset + _HEADER.size + _LINK.size : offset + length])
        offset += _aligned(length)


def _link_name(attributes: bytes) -> Iterator[str]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, offset)
        if length < _ATTRIBUTE.size:
            return
        if kind == _IFNAME:
            yield attributes[offset + _ATTRIBUTE.size : offset + length].rstrip(b"\0").decode(errors="replace")
            return
        offset += _aligned(length)


def _aligned(length: int) -> int:
    """Netlink's parts start at multiples of four bytes."""
    return (length + 3) & ~3
