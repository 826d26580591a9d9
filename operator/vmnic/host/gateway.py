"""Reachability of the default gateway.

The kernel is asked to probe its neighbour entry, so that an old answer does not count.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Collection
from typing import Any

from .routes import default_hops

__all__ = ["LEARNT_ADDRESS", "LINK_SCOPE", "check_gateway"]

LEARNT_ADDRESS = 2
"""IFAPROT_KERNEL_RA: the kernel configured the address from a router advertisement."""
LINK_SCOPE = 253
"""RT_SCOPE_LINK: a link-local address does not count as use by the host."""

_PATIENCE_S = 3.0
"""The kernel sends three solicitations, a second apart (neigh/*/ucast_solicit)."""
_POLL_S = 0.02
_FAILED, _INCOMPLETE, _PROBE, _REACHABLE, _NOARP, _PERMANENT = 0x20, 0x01, 0x10, 0x02, 0x40, 0x80
"""NUD_* of linux/neighbour.h."""
# RFC 863. Only the neighbour resolution before the packet matters, so no service has to listen there.
_DISCARD_PORT = 9


def check_gateway(route: Any, self_enabled_links: Collection[str]) -> str:
    """Return `reachable`, `unreachable`, or an empty string without a default gateway that can be probed.

    A permanent or NOARP entry is not probed. It does not show whether the gateway is reachable, and a probe would turn it into
    an entry that ages.

    Args:
        route: pyroute2's IPRoute.
        self_enabled_links: PCI addresses of PFs that vmnic enabled. Routes that they learn from routers do not count.
    """
    found = _default_gateway(route, self_enabled_links)
    if found is None:
        return ""
    family, address, index = found
    if _state(route, family, address, index) & (_NOARP | _PERMANENT):
        return ""
    _ask(route, family, address, index)
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        state = _state(route, family, address, index)
        if state & _REACHABLE:
            return "reachable"
        if state & _FAILED:
            return "unreachable"
        time.sleep(_POLL_S)
    return "unreachable"


def _default_gateway(route: Any, self_enabled_links: Collection[str]) -> tuple[int, str, int] | None:
    """Return the gateway with the lowest metric, of IPv4 routes before those of IPv6."""
    found = [
        # Gateways of equal rank are ordered by address, so that every probe of a change asks the same one.
        (hop.rank, (*hop.gateway, hop.link))
        for hop in default_hops(route)
        if hop.gateway and not (hop.learnt and _is_learner(route, hop.link, self_enabled_links))
    ]
    return min(found)[1] if found else None


def _is_learner(route: Any, index: int, self_enabled_links: Collection[str]) -> bool:
    """Return whether a link belongs to one of these PFs and has only addresses from router advertisements."""
    (link,) = route.link("get", index=index)
    if link.get_attr("IFLA_PARENT_DEV_NAME") not in self_enabled_links:
        return False
    given = (one for one in route.get_addr(index=index) if one["scope"] != LINK_SCOPE)
    # With any other address, such as one from DHCP, the host relies on the link, so its learnt route counts.
    return all(one.get_attr("IFA_PROTO") == LEARNT_ADDRESS for one in given)


def _ask(route: Any, family: int, address: str, index: int) -> None:
    """Make the kernel probe the gateway now.

    An existing neighbour entry is probed. Otherwise a packet makes the kernel create one.
    """
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - slow to import

    # The entry may be removed between the two calls. The packet below then creates it again.
    with contextlib.suppress(NetlinkError):
        # The kernel probes by unicast, which needs a link address that an incomplete or failed entry does not have.
        if _state(route, family, address, index) & ~(_INCOMPLETE | _FAILED):
            route.neigh("change", dst=address, ifindex=index, family=family, state=_PROBE)
            return
    with socket.socket(family, socket.SOCK_DGRAM) as packet, contextlib.suppress(OSError):
        packet.setblocking(False)
        # An IPv6 link-local address is only valid together with its link.
        scope = (0, index) if family == socket.AF_INET6 else ()
        packet.sendto(b"", (address, _DISCARD_PORT, *scope))


def _state(route: Any, family: int, address: str, index: int) -> int:
    for message in route.get_neighbours(family=family, dst=address, ifindex=index):
        return int(message["state"])
    return 0
