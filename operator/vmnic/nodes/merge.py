"""What all pools together ask of one node.

Where pools clash, the oldest keeps effect and the function stays as that pool asks: adding a pool never takes anything from
another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..api.pool import SriovNetworkPool
from .match import matching_pfs
from .state import PfSpec, PfStatus

__all__ = ["Merge", "PoolConflict", "find_resource_conflicts", "merge_pools"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConflict:
    """A pool that gave way to an older one."""

    pool: str
    winner: str
    pci_address: str = ""
    """Empty: the whole pool gives way."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """What a node should be, and which pools did not get their way."""

    pfs: tuple[PfSpec, ...]
    conflicts: tuple[PoolConflict, ...]


def merge_pools(pools: Iterable[SriovNetworkPool], labels: Mapping[str, str], pfs: Sequence[PfStatus]) -> Merge:
    """Merge the pools for one node with these labels and physical functions; nothing is granted yet."""
    ordered = sorted(pools, key=_age)
    conflicts = list(find_resource_conflicts(ordered))
    losers = {conflict.pool for conflict in conflicts}
    chosen: dict[str, PfSpec] = {}
    for pool in ordered:
        if pool.metadata.name in losers or pool.metadata.deletion_timestamp:
            continue
        for pf in matching_pfs(pool, labels, pfs):
            winner = chosen.get(pf.pci_address)
            if winner is None:
                chosen[pf.pci_address] = _desired(pool, pf)
            else:
                conflicts.append(_clash(pool, winner))
    return Merge(pfs=tuple(chosen[address] for address in sorted(chosen)), conflicts=tuple(conflicts))


def find_resource_conflicts(pools: Iterable[SriovNetworkPool]) -> tuple[PoolConflict, ...]:
    """Find the pools whose resource name an older pool has."""
    found = []
    owners: dict[str, str] = {}
    for pool in sorted(pools, key=_age):
        name = pool.metadata.name
        winner = owners.setdefault(pool.resource_name, name)
        if winner != name:
            message = f"spec.resourceName {pool.resource_name} is pool {winner}'s: make this pool anew under another name"
            found.append(PoolConflict(pool=name, winner=winner, message=message))
    return tuple(found)


def _age(pool: SriovNetworkPool) -> tuple[str, str]:
    """Oldest first; without creation times, first by name."""
    return (pool.metadata.creation_timestamp, pool.metadata.name)


def _desired(pool: SriovNetworkPool, pf: PfStatus) -> PfSpec:
    spec = pool.spec
    return PfSpec(
        pci_address=pf.pci_address,
        pool=pool.metadata.name,
        num_vfs=_count(spec.num_vfs, pf.total_vfs) if spec.num_vfs is not None else 0,
        vf_driver=spec.vf_driver,
        function=spec.function,
        mtu=spec.mtu if spec.function == "Virtual" else None,
    )


def _count(wanted: int | str, total: int) -> int:
    """Turn a number, a share or `max` into VFs."""
    if isinstance(wanted, int):
        return wanted
    if wanted == "max":
        return total
    return total * int(wanted.removesuffix("%")) // 100


def _clash(pool: SriovNetworkPool, winner: PfSpec) -> PoolConflict:
    name, address = pool.metadata.name, winner.pci_address
    message = f"{address} belongs to the older pool {winner.pool}: narrow spec.nicSelector or spec.nodeSelector of one of them"
    return PoolConflict(pool=name, winner=winner.pool, pci_address=address, message=message)
