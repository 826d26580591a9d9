"""Events of the host's NICs.

They are the kernel's uevents of PCI functions and its netlink messages about links.

Both are multicast to every listener, so listening needs no privilege and never blocks. Sources: linux/rtnetlink.h,
linux/if_link.h, lib/kobject_uevent.c, drivers/pci/pci-driver.c (pci_uevent).
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["LOST", "HostEvent", "KernelEvents", "decode_event", "encode_event", "link_events", "pci_events"]

_NETLINK_KOBJECT_UEVENT = 15
_UEVENT_KERNEL = 1
"""Multicast group of the kernel's own uevents. Group 2 is udev's."""
_RTMGRP_LINK = 1
_HEADER, _LINK = struct.Struct("=IHHII"), struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")
_IFNAME, _PARENT_NAME = 3, 56
"""IFLA_IFNAME and IFLA_PARENT_DEV_NAME."""
_LINK_WORDS = {16: "newlink", 17: "dellink"}
"""RTM_NEWLINK reports every change of a link, RTM_DELLINK its removal."""
_BYTES = 65536
_BUFFER_BYTES = 2**20
"""Seven VFs with their links cause about a hundred messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEvent:
    """One event of a host."""

    what: str
    """`add`, `remove`, `bind`, `unbind` or `change` of a PCI function, `newlink` or `dellink` of a link, or `lost` if events
    are missing."""
    address: str = ""
    """PCI address of the function, or of the link's function."""
    link: str = ""
    """Present name of the link."""


LOST = HostEvent(what="lost")
"""Events are missing, so anything may have changed."""


class KernelEvents:
    """Listens to the kernel, in this process's network namespace, from its construction on.

    Raises:
        OSError: The kernel does not provide such a socket.
    """

    def __init__(self) -> None:
        with contextlib.ExitStack() as opened:
            self._listeners = {
                opened.enter_context(_listener(_NETLINK_KOBJECT_UEVENT, _UEVENT_KERNEL)): pci_events,
                opened.enter_context(_listener(socket.NETLINK_ROUTE, _RTMGRP_LINK)): link_events,
            }
            self._opened = opened.pop_all()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """Return the sockets that become readable when there are events."""
        return tuple(self._listeners)

    def close(self) -> None:
        """Stop listening."""
        self._opened.close()

    def heard(self) -> Iterator[HostEvent]:
        """Yield the events since the last call, without waiting."""
        for listener, parse in self._listeners.items():
            yield from _received(listener, parse)


def _listener(protocol: int, group: int) -> socket.socket:
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    # The kernel silently limits the size to net.core.rmem_max. SO_RCVBUFFORCE would go beyond, but needs CAP_NET_ADMIN.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    listener.bind((0, group))
    return listener


def _received(listener: socket.socket, parse: Callable[[bytes], Iterator[HostEvent]]) -> Iterator[HostEvent]:
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                data = listener.recv(_BYTES)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # The kernel had no room for further messages. Those before the loss are still in the buffer.
                yield LOST
            else:
                yield from parse(data)


def pci_events(data: bytes) -> Iterator[HostEvent]:
    """Decode a uevent.

    Events of PCI functions report that one was added, removed or changed, or that its driver was bound or unbound. Other events
    are ignored.
    """
    # The first field is `ACTION@DEVPATH` without `=`. Both values follow as fields of their own.
    fields = dict(field.split("=", 1) for field in data.decode(errors="replace").split("\0") if "=" in field)
    if fields.get("SUBSYSTEM") == "pci":
        yield HostEvent(what=fields.get("ACTION", ""), address=fields.get("PCI_SLOT_NAME", ""))


def link_events(data: bytes) -> Iterator[HostEvent]:
    """Decode an rtnetlink datagram, and ignore messages that are malformed or not about links."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        # Without this check, a length of 0 would loop for ever.
        if length < _HEADER.size:
            return
        if kind in _LINK_WORDS:
            told = dict(_attributes(data[offset + _HEADER.size + _LINK.size : offset + length]))
            yield HostEvent(what=_LINK_WORDS[kind], link=told.get(_IFNAME, ""), address=told.get(_PARENT_NAME, ""))
        offset += _aligned(length)


def _attributes(data: bytes) -> Iterator[tuple[int, str]]:
    """Yield the names among a message's attributes."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        if kind in (_IFNAME, _PARENT_NAME):
            yield kind, data[offset + _ATTRIBUTE.size : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += _aligned(length)


def _aligned(length: int) -> int:
    """Round up to four bytes, to which netlink aligns its parts."""
    return (length + 3) & ~3


def encode_event(event: HostEvent) -> dict[str, str]:
    """Return the JSON form of an event."""
    return {"what": event.what, "address": event.address, "link": event.link}


def decode_event(wire: Mapping[str, Any]) -> HostEvent:
    """Decode an event."""
    return HostEvent(what=str(wire["what"]), address=str(wire.get("address", "")), link=str(wire.get("link", "")))
