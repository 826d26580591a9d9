"""Whether the default gateway answers: the kernel is told to probe its neighbour entry, so an old answer does not count."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

__all__ = ["check_gateway"]

_PATIENCE_S = 3.0
"""The kernel asks three times, a second apart (neigh/*/ucast_solicit)."""
_POLL_S = 0.02
_FAILED, _INCOMPLETE, _PROBE, _REACHABLE, _NOARP, _PERMANENT = 0x20, 0x01, 0x10, 0x02, 0x40, 0x80
"""NUD_* of linux/neighbour.h."""
_DISCARD_PORT = 9


def check_gateway(route: Any) -> str:
    """Give `reachable`, `unreachable`, or an empty text where there is no default gateway.

    Args:
        route: pyroute2's IPRoute.
    """
    found = _default_gateway(route)
    if found is None:
        return ""
    family, address, index = found
    if _state(route, family, address, index) & (_NOARP | _PERMANENT):
        return "reachable"  # An administrator wrote it down; to probe it would make it one that ages.
    _ask(route, family, address, index)
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        state = _state(route, family, address, index)
        if state & (_REACHABLE | _NOARP | _PERMANENT):
            return "reachable"
        if state & _FAILED:
            return "unreachable"
        time.sleep(_POLL_S)
    return "unreachable"


def _default_gateway(route: Any) -> tuple[int, str, int] | None:
    """The default route with the least metric, IPv4 before IPv6."""
    found = []
    for message in route.get_routes():
        gateway = message.get_attr("RTA_GATEWAY")
        if message["dst_len"] == 0 and gateway and message.get_attr("RTA_OIF"):
            rank = (message["family"], message.get_attr("RTA_PRIORITY") or 0)
            found.append((rank, (message["family"], gateway, message.get_attr("RTA_OIF"))))
    return min(found)[1] if found else None


def _ask(route: Any, family: int, address: str, index: int) -> None:
    """Have the kernel ask for the gateway now: probe an entry that it has, or make one by sending a packet."""
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - slow to import

    with contextlib.suppress(NetlinkError):
        if _state(route, family, address, index) & ~(_INCOMPLETE | _FAILED):
            route.neigh("change", dst=address, ifindex=index, family=family, state=_PROBE)
            return
    with socket.socket(family, socket.SOCK_DGRAM) as packet, contextlib.suppress(OSError):
        packet.setblocking(False)
        packet.sendto(b"", (address, _DISCARD_PORT))


def _state(route: Any, family: int, address: str, index: int) -> int:
    for message in route.get_neighbours(family=family, dst=address, ifindex=index):
        return int(message["state"])
    return 0
