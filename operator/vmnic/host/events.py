"""What a host tells by itself of its NICs: the kernel's uevents of PCI functions, and its messages about links.

Both are sent to every listener of a multicast group, so no right is needed and nothing blocks. Sources: linux/rtnetlink.h,
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
"""Multicast group of the kernel's own uevents; group 2 is udev's."""
_RTMGRP_LINK = 1
_HEADER, _LINK = struct.Struct("=IHHII"), struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")
_IFNAME, _PARENT_NAME = 3, 56
"""IFLA_IFNAME and IFLA_PARENT_DEV_NAME."""
_LINK_WORDS = {16: "newlink", 17: "dellink"}
"""RTM_NEWLINK comes for every change of a link, RTM_DELLINK when it goes."""
_BYTES = 65536
_BUFFER_BYTES = 2**20
"""Seven VFs with their links are about a hundred messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEvent:
    """One thing that a host told."""

    what: str
    """`add`, `remove`, `bind`, `unbind` or `change` of a function, `newlink` or `dellink`; `lost`: not all was heard."""
    address: str = ""
    """The function, or the one whose link it is."""
    link: str = ""
    """The link's name, as it is called by now."""


LOST = HostEvent(what="lost")
"""Anything may have happened."""


class KernelEvents:
    """Listens to this host's kernel, in this process's network namespace, from its making on.

    Raises:
        OSError: the kernel gives no such socket.
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
        """What becomes readable when there is something to hear."""
        return tuple(self._listeners)

    def close(self) -> None:
        """Stop listening."""
        self._opened.close()

    def heard(self) -> Iterator[HostEvent]:
        """Give what has been told since the last call; it does not wait."""
        for listener, parse in self._listeners.items():
            yield from _received(listener, parse)


def _listener(protocol: int, group: int) -> socket.socket:
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
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
                yield LOST
            else:
                yield from parse(data)


def pci_events(data: bytes) -> Iterator[HostEvent]:
    """Read a uevent: a PCI function came, went, changed, or got or lost its driver; others are passed over."""
    fields = dict(field.split("=", 1) for field in data.decode(errors="replace").split("\0") if "=" in field)
    if fields.get("SUBSYSTEM") == "pci":
        yield HostEvent(what=fields.get("ACTION", ""), address=fields.get("PCI_SLOT_NAME", ""))


def link_events(data: bytes) -> Iterator[HostEvent]:
    """Read a datagram of rtnetlink; what is not about links, or makes no sense, is passed over."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        if kind in _LINK_WORDS:
            told = dict(_attributes(data[offset + _HEADER.size + _LINK.size : offset + length]))
            yield HostEvent(what=_LINK_WORDS[kind], link=told.get(_IFNAME, ""), address=told.get(_PARENT_NAME, ""))
        offset += _aligned(length)


def _attributes(data: bytes) -> Iterator[tuple[int, str]]:
    """Give the names among a message's attributes."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        if kind in (_IFNAME, _PARENT_NAME):
            yield kind, data[offset + _ATTRIBUTE.size : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += _aligned(length)


def _aligned(length: int) -> int:
    """Netlink's parts start at multiples of four bytes."""
    return (length + 3) & ~3


def encode_event(event: HostEvent) -> dict[str, str]:
    """Give the JSON-able form of an event."""
    return {"what": event.what, "address": event.address, "link": event.link}


def decode_event(wire: Mapping[str, Any]) -> HostEvent:
    """Read an event."""
    return HostEvent(what=str(wire["what"]), address=str(wire.get("address", "")), link=str(wire.get("link", "")))
