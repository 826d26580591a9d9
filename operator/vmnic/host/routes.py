"""Default routes with every hop.

A default route over several links is one route, and its hops have the links and gateways.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["LEARNT_ROUTE", "Hop", "default_hops"]

LEARNT_ROUTE = 9
"""RTPROT_RA of linux/rtnetlink.h: the kernel created the route from a router advertisement."""


class Hop(NamedTuple):
    """One hop of a default route."""

    rank: tuple[int, int]
    """Address family and metric of the route. The kernel uses the lowest metric of a family."""
    link: int
    """Index of the link."""
    gateway: tuple[int, str] | None
    """Address family and address of the gateway, or None if the hop has no gateway. The family may differ from the route's
    (RFC 8950)."""
    learnt: bool


def default_hops(route: Any) -> Iterator[Hop]:
    """Yield the hops of all default routes.

    Args:
        route: pyroute2's IPRoute.
    """
    for message in route.get_routes():
        if message["dst_len"] != 0:
            continue
        # The kernel leaves out a metric of 0.
        rank = (message["family"], message.get_attr("RTA_PRIORITY") or 0)
        learnt = message["proto"] == LEARNT_ROUTE
        for hop in message.get_attr("RTA_MULTIPATH") or ():
            yield Hop(rank, hop["oif"], _gateway(hop, message["family"]), learnt)
        if message.get_attr("RTA_OIF"):
            yield Hop(rank, message.get_attr("RTA_OIF"), _gateway(message, message["family"]), learnt)


def _gateway(hop: Any, family: int) -> tuple[int, str] | None:
    via = hop.get_attr("RTA_VIA")
    if via:
        return via["family"], via["addr"]
    address = hop.get_attr("RTA_GATEWAY")
    return (family, address) if address else None
