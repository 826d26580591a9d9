"""Default routes with every hop: an uplink over several links is one route whose links and gateways stand in its hops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["LEARNT_ROUTE", "Hop", "default_hops"]

LEARNT_ROUTE = 9
"""RTPROT_RA of linux/rtnetlink.h: made from a router's announcement."""


class Hop(NamedTuple):
    """One way out."""

    rank: tuple[int, int]
    """The route's address family and metric: the kernel takes the least of a family."""
    link: int
    """Its index."""
    gateway: tuple[int, str] | None
    """Its address family, which need not be the route's (RFC 8950), and address; None: the link leads there by itself."""
    learnt: bool


def default_hops(route: Any) -> Iterator[Hop]:
    """Give the hops of all default routes.

    Args:
        route: pyroute2's IPRoute.
    """
    for message in route.get_routes():
        if message["dst_len"] != 0:
            continue
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
