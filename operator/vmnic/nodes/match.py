"""Which physical functions of a node a pool selects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from ..api.pool import NicSelector, SriovNetworkPool
from .state import PfStatus

__all__ = ["matching_pfs", "selects_node"]


def selects_node(pool: SriovNetworkPool, labels: Mapping[str, str]) -> bool:
    """Tell whether a node with these labels belongs to the pool."""
    return pool.spec.node_selector.items() <= dict(labels).items()


def matching_pfs(pool: SriovNetworkPool, labels: Mapping[str, str], pfs: Iterable[PfStatus]) -> tuple[PfStatus, ...]:
    """Give the physical functions of a node that belong to the pool."""
    if not selects_node(pool, labels):
        return ()
    return tuple(pf for pf in pfs if _matches(pool.spec.nic_selector, pf))


def _matches(selector: NicSelector, pf: PfStatus) -> bool:
    """Every given field must match; the items of a list are alternatives."""
    plain = (
        (selector.models, pf.model),
        (selector.vendors, pf.vendor),
        (selector.devices, pf.device),
        (selector.drivers, pf.driver),
        (selector.pci_addresses, pf.pci_address),
        (selector.numa_nodes, pf.numa_node),
    )
    if any(wanted and value not in wanted for wanted, value in plain):
        return False
    names = (pf.name, *pf.alt_names)
    globs = selector.pf_names
    if globs and not any(fnmatchcase(name, glob) for name in names for glob in globs):
        return False
    speed = selector.min_link_speed_mbps
    return speed is None or (pf.link_speed_mbps or 0) >= speed
