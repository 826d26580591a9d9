"""Spec of one node, merged from all pools.

A fault belongs to the pool that has it. If two pools conflict, the older one takes effect, and the younger one keeps the share
that it has now. So a new pool never takes anything from another one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from ...api.common import seconds_of
from ...api.node_state import PfSpec, PfStatus, VfGroup, VfSettings
from ...api.pool import MOST_ASKED_VFS, SriovNetworkPool
from ...api.reasons import PfReason, PoolProblemReason
from ...checked.amounts import resolve_percentage
from ..state import group_of, indexes_of
from ..vf_limits import data_of, possible_vfs
from .match import UnknownValues, matching_pfs
from .resources import resource_of_link

__all__ = ["Merge", "PoolConflict", "find_resource_conflicts", "merge_pools"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConflict:
    """A pool that lost a conflict with an older one, or whose share of a PF is impossible."""

    pool: str
    pci_address: str = ""
    """PF that the pools disagree about; empty if the whole pool loses."""
    reason: str = PoolProblemReason.CONFLICT
    """Reason of the problem that the pool shows."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """Merged spec of a node's PFs, and the pools that lost a conflict."""

    pfs: tuple[PfSpec, ...]
    conflicts: tuple[PoolConflict, ...]


def merge_pools(
    pools: Iterable[SriovNetworkPool],
    labels: Mapping[str, str] | None,
    pfs: Sequence[PfStatus],
    present: Sequence[PfSpec] = (),
    unreadable: Collection[str] = (),
    unknown: UnknownValues | None = None,
) -> Merge:
    """Merge the pools for one node, without grants.

    Args:
        pools: All pools.
        labels: Labels of the node; None if they are unknown, and then they exclude no pool.
        pfs: PFs of the node.
        present: PFs of the node's present spec. A pool keeps a PF that it has there unless something contradicts that.
        unreadable: Names of pools that exist and could not be decoded. They keep their share of every PF.
        unknown: Fields of selectors that exclude nothing; None for none.
    """
    before = {spec.pci_address: spec for spec in present}
    ordered = sorted(pools, key=_age)
    taken = {
        pool.metadata.name: matching_pfs(pool, labels, pfs, present, unknown or {})
        for pool in ordered
        if not pool.metadata.deletion_timestamp
    }
    here = {
        pool.metadata.name: tuple(_resource(pool, pf, before.get(pf.pci_address)) for pf in taken.get(pool.metadata.name, ()))
        for pool in ordered
        if pool.spec.resource_per_pf
    }
    conflicts = list(find_resource_conflicts(ordered, here))
    losers = {conflict.pool for conflict in conflicts}
    # Unreadable pools come first, regardless of their age: what they ask for now is unknown, so no other pool may take it.
    # The name of a link may make a resource of an older pool equal to that of a younger one, which then keeps what it has.
    kept_pools = {*unreadable, *losers}
    chosen = {spec.pci_address: kept for spec in present if (kept := _kept(spec, kept_pools)) is not None}
    claims: dict[str, list[PfSpec]] = {}
    for pool in ordered:
        if pool.metadata.name in losers or pool.metadata.deletion_timestamp:
            continue
        for pf in taken[pool.metadata.name]:
            claims.setdefault(pf.pci_address, []).append(_desired(pool, pf, pfs, before.get(pf.pci_address)))
    for address, wanted in claims.items():
        chosen[address], lost = _judge(wanted, chosen.get(address), before.get(address))
        conflicts += lost
    pfs_wanted = (_with_owner(chosen[address], before.get(address)) for address in sorted(chosen))
    return Merge(pfs=tuple(pfs_wanted), conflicts=tuple(conflicts))


def _judge(
    claims: Sequence[PfSpec], unreadable: PfSpec | None, before: PfSpec | None
) -> tuple[PfSpec, tuple[PoolConflict, ...]]:
    """Combine what pools ask of one PF.

    A pool with a fault keeps the share that it has now, and the others take effect.

    Args:
        claims: What each pool asks, the oldest first.
        unreadable: Shares of unreadable pools; None if they have none.
        before: The present spec of the PF.
    """
    faults = {claim.pool: fault for claim in claims if (fault := _fault_of(claim))}
    base = unreadable or next((claim for claim in claims if claim.pool not in faults), None)
    if base is None:
        # The agent reports the fault of a pool that has the PF alone.
        rest = tuple(_too_many(claim, faults[claim.pool]) for claim in claims[1:])
        return claims[0], rest
    merged = start = base if unreadable is not None else msgspec.structs.replace(base, groups=())
    conflicts = []
    for claim in claims:
        fault = faults.get(claim.pool, "")
        clash = "" if merged is start and unreadable is None else _clash(merged, claim)
        if not fault and not clash:
            merged = _joined(merged, claim)
            continue
        conflicts.append(_too_many(claim, fault) if fault else _conflict(claim, merged, clash))
        kept = _kept_share(claim.pool, merged, before)
        if kept is not None:
            merged = msgspec.structs.replace(merged, groups=(*merged.groups, kept))
    if unreadable is None and len(conflicts) == len(claims) and before is not None:
        # Only present shares are left, so the function stays as it is.
        merged = msgspec.structs.replace(before, groups=merged.groups, grant=None)
    return msgspec.structs.replace(merged, pool=merged.groups[0].pool if merged.groups else merged.pool), tuple(conflicts)


def _fault_of(claim: PfSpec) -> str:
    """Describe what is wrong with one pool's share alone, or return an empty string."""
    end = indexes_of(claim, claim.groups[0]).stop
    if end <= claim.num_vfs:
        return ""
    return f"gets {claim.num_vfs} VFs, but spec.vfRange of this pool ends at {end - 1}: lower it, or raise spec.numVfs"


def _kept_share(pool: str, merged: PfSpec, before: PfSpec | None) -> VfGroup | None:
    """Return the share that a pool has now, without the VFs that others have or that would not exist."""
    group = group_of(before, pool) if before is not None and not before.release else None
    whole = any(not one.range for one in merged.groups)
    if group is None or before is None or whole or "Physical" in (merged.function, before.function):
        return None
    taken = {index for one in merged.groups for index in indexes_of(merged, one)}
    free = [index for index in indexes_of(before, group) if index < merged.num_vfs and index not in taken]
    if not free:
        return None
    # A share is one range, so of several parts the first one stays.
    end = next(index for index in range(free[0], merged.num_vfs + 1) if index not in free)
    return msgspec.structs.replace(group, range=f"{free[0]}-{end - 1}" if end - free[0] > 1 else str(free[0]))


def _kept(spec: PfSpec, unreadable: Collection[str]) -> PfSpec | None:
    """Return the spec of a PF reduced to the shares of unreadable pools, or None if they have no share."""
    groups = tuple(group for group in spec.groups if group.pool in unreadable)
    if not groups and spec.pool not in unreadable:
        return None
    owner = spec.pool if spec.pool in unreadable else groups[0].pool
    # A grant is only ever copied from the ledger, never from an earlier spec.
    return msgspec.structs.replace(spec, pool=owner, groups=groups, grant=None)


def _with_owner(spec: PfSpec, before: PfSpec | None) -> PfSpec:
    """Let the PF stay with the pool whose rollout decides about it now, if that pool still has a share."""
    if before is None or before.pool == spec.pool or group_of(spec, before.pool) is None:
        return spec
    return msgspec.structs.replace(spec, pool=before.pool)


def find_resource_conflicts(
    pools: Iterable[SriovNetworkPool], here: Mapping[str, Sequence[str]] | None = None
) -> tuple[PoolConflict, ...]:
    """Find the pools with a resource that belongs to an older pool.

    Args:
        pools: All pools.
        here: Resources of pools with `resourcePerPF` on one node, besides those in the status of the pools; None for none.
    """
    found = []
    owners: dict[str, str] = {}
    for pool in sorted(pools, key=_age):
        name = pool.metadata.name
        own = dict.fromkeys((pool.resource_name, *_resources_per_pf(pool), *(here or {}).get(name, ())))
        lost = next((one for one in own if one in owners), None)
        if lost is None:
            owners |= dict.fromkeys(own, name)
            continue
        what = "spec.resourceName" if lost == pool.resource_name else "resource"
        message = f"{what} {lost} belongs to pool {owners[lost]}: create this pool again with another name"
        found.append(PoolConflict(pool=name, message=message))
    return tuple(found)


def _resources_per_pf(pool: SriovNetworkPool) -> tuple[str, ...]:
    """Return the resources of a pool with `resourcePerPF` on all nodes, as far as its status lists them."""
    prefix = f"{pool.resource_name}-"
    return tuple(one for one in pool.status.resource_names if one.startswith(prefix)) if pool.spec.resource_per_pf else ()


def _age(pool: SriovNetworkPool) -> tuple[str, str]:
    """Return a sort key that puts the oldest pool first, and orders pools of equal age by name."""
    # Timestamps are RFC 3339 in UTC with whole seconds, so their order as text is their order in time.
    return (pool.metadata.creation_timestamp, pool.metadata.name)


def _desired(pool: SriovNetworkPool, pf: PfStatus, pfs: Sequence[PfStatus], before: PfSpec | None) -> PfSpec:
    spec = pool.spec
    return PfSpec(
        pci_address=pf.pci_address,
        pool=pool.metadata.name,
        num_vfs=_count(spec.num_vfs, pf, pfs) if spec.num_vfs is not None else 0,
        function=spec.function,
        management=spec.management,
        persistence=spec.persistence,
        mtu=spec.mtu,
        queues=spec.queues,
        groups=(_group(pool, pf, before),),
        allow_host_used=spec.safety.allow_host_used,
        rollback_timeout_s=seconds_of(spec.safety.rollback_timeout),
    )


def _group(pool: SriovNetworkPool, pf: PfStatus, before: PfSpec | None) -> VfGroup:
    spec = pool.spec
    settings = msgspec.convert(spec.vf.dump(), VfSettings) if spec.vf is not None else None
    return VfGroup(
        pool=pool.metadata.name,
        resource=_resource(pool, pf, before) if spec.resource_per_pf else pool.resource_name,
        range=spec.vf_range or "",
        driver=spec.vf_driver,
        settings=settings,
        device_plugin=spec.device_plugin,
        exclude_topology=spec.exclude_topology,
    )


def _resource(pool: SriovNetworkPool, pf: PfStatus, before: PfSpec | None) -> str:
    """Return the name of a PF's own resource, which ends with its interface name.

    Without an interface name the previous resource name is kept.
    """
    prefix = f"{pool.resource_name}-"
    had = group_of(before, pool.metadata.name) if before is not None else None
    # A whole NIC on vfio-pci has no interface name. VMs refer to the resource, so it keeps the name from before.
    if not pf.name and had is not None and had.resource.startswith(prefix):
        return had.resource
    return resource_of_link(pool, pf.name, pf.pci_address)


def _joined(present: PfSpec, other: PfSpec) -> PfSpec:
    """Combine the specs of two pools that share a PF.

    Use by the host is allowed only if both pools allow it, and the shorter rollback timeout applies.
    """
    return msgspec.structs.replace(
        present,
        groups=(*present.groups, *other.groups),
        allow_host_used=present.allow_host_used and other.allow_host_used,
        rollback_timeout_s=min(present.rollback_timeout_s, other.rollback_timeout_s),
    )


def _count(wanted: int | str, pf: PfStatus, pfs: Sequence[PfStatus]) -> int:
    """Convert a number, a percentage or `max` to a number of VFs."""
    # A share of nothing is not 0: the pool asks for VFs, and the agent then reports that the function offers none.
    total = possible_vfs(pf, pfs) if pf.total_vfs else _hidden_vfs(pf)
    count = total if wanted == "max" else resolve_percentage(wanted, total, round_up=not pf.total_vfs)
    return min(count, MOST_ASKED_VFS)


def _hidden_vfs(pf: PfStatus) -> int:
    """Return how many VFs a function could have if it offered any."""
    model = data_of(pf)
    return (model is not None and model.max_vfs) or 1


_SHARED = {"num_vfs": "numVfs", "mtu": "mtu", "queues": "queues", "management": "management", "persistence": "persistence"}


def _clash(present: PfSpec, other: PfSpec) -> str:
    """Explain why two pools cannot share a PF, in terms of what the newer one has to change.

    Returns:
        An empty string if they can share it.
    """
    # Without a range a pool has all VFs of the PF, and none are left for another pool.
    if not all(group.range for group in (*present.groups, *other.groups)):
        return "narrow spec.nicSelector or spec.nodeSelector of one of them, or share the function with spec.vfRange in both"
    for field, name in _SHARED.items():
        asked, there = getattr(other, field), getattr(present, field)
        if asked != there:
            return f"pools that share a function must agree on spec.{name}, which is {there} there and {asked} here"
    taken = {index for group in present.groups for index in indexes_of(present, group)}
    both = sorted(taken.intersection(indexes_of(other, other.groups[0])))
    return f"VF {both[0]} is in the spec.vfRange of both" if both else ""


def _conflict(claim: PfSpec, winner: PfSpec, why: str) -> PoolConflict:
    address = winner.pci_address
    older = winner.groups[0].pool if winner.groups else winner.pool
    return PoolConflict(pool=claim.pool, pci_address=address, message=f"{address} belongs to the older pool {older}: {why}")


def _too_many(claim: PfSpec, fault: str) -> PoolConflict:
    address = claim.pci_address
    return PoolConflict(pool=claim.pool, pci_address=address, reason=PfReason.TOO_MANY_VFS, message=f"{address} {fault}")
