"""Facts about devices, from pools and the states of nodes.

They contain which devices exist, on which nodes, how many, and for which guests. An agent's report counts for its own node, as
far as the NIC data and the kubelet agree. A node whose state cannot be read is unknown. It provides no new device, and no VM
loses one there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..api.node_state import VFIO, NodeNicState
from ..api.pool import SriovNetworkPool
from ..nodes.nics import model_of, models_of
from ..nodes.pools.guests import drives_windows, models_without_windows
from ..nodes.pools.resources import collect_resources
from ..nodes.pools.shares import PoolShare, pool_shares
from ..policy.capacity import NodeDevices, Taint
from ..policy.facts import PoolFacts

__all__ = ["NodeInput", "gather_pools", "node_devices"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInput:
    """One node, as far as it is known."""

    name: str
    labels: Mapping[str, str] | None = field(default_factory=dict)
    """None if unknown."""
    schedulable: bool = True
    taints: tuple[Taint, ...] = ()
    allocatable: Mapping[str, int] | None = None
    """Devices that its kubelet advertises, by resource. None if unknown, which sets no bound."""
    state: NodeNicState | None = None


@dataclass(slots=True)
class _Found:
    """Reports of the nodes about one pool."""

    parts: dict[str, list[PoolShare]] = field(default_factory=dict)
    """Shares by node; empty if the node has a share but reports no function."""
    unread: list[str] = field(default_factory=list)
    """Nodes with a share whose state cannot be read."""

    @property
    def complete(self) -> bool:
        return not self.unread and all(self.parts.values())


def gather_pools(pools: Iterable[SriovNetworkPool], nodes: Iterable[NodeInput], *, known: bool) -> dict[str, PoolFacts]:
    """Collect the facts about pools that matter to VMs.

    Args:
        pools: All pools.
        nodes: All nodes.
        known: Whether the states of the nodes are known. Offline, without them, a pool counts as ready.
    """
    nodes = list(nodes)
    by_pool = _find_parts(nodes)
    states = [node.state for node in nodes if node.state is not None]
    found = {}
    for pool in pools:
        name = pool.metadata.name
        own = by_pool.get(name, _Found())
        pfs = [part.pf for parts in own.parts.values() for part in parts]
        limited = {node: models_without_windows(part.pf for part in parts) for node, parts in own.parts.items()}
        found[name] = PoolFacts(
            name=name,
            resource_name=pool.resource_name,
            physical=pool.spec.function == "Physical",
            mtu=pool.spec.mtu,
            spoof_check=pool.spec.vf.spoof_check if pool.spec.vf is not None else None,
            reserve=pool.spec.reserve_for_migration,
            linux_only=_linux_only(pool, own, limited),
            linux_only_nodes={node: models for node, models in limited.items() if models},
            blocker=_blocker(pool, own, known=known),
            per_pf=collect_resources(pool, states).names if pool.spec.resource_per_pf else (),
            uplinks=tuple(dict.fromkeys(pf.name for pf in pfs if pf.name)),
        )
    return found


def _find_parts(nodes: Iterable[NodeInput]) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for node in nodes:
        for owner in _pools_of(node.state) if node.state is not None else ():
            own = found.setdefault(owner, _Found())
            if node.state is not None and node.state.unreadable:
                own.unread.append(node.name)
            elif node.state is not None:
                own.parts[node.name] = list(pool_shares(node.state, owner))
    return found


def _blocker(pool: SriovNetworkPool, own: _Found, *, known: bool) -> str:
    if pool.metadata.deletion_timestamp:
        return "it is being deleted"
    if pool.spec.function == "Virtual" and pool.spec.vf_driver != VFIO:
        return f"its VFs are on their kernel driver, but VMs need vfDriver: {VFIO}"
    parts = [part for some in own.parts.values() for part in some]
    # One ready function is enough: how many there are, and where, is decided by the capacity.
    if not known or any(part.ready for part in parts):
        return ""
    if own.unread:
        return f"the NodeNicState of {', '.join(own.unread[:3])} cannot be read"
    return "none of its functions is ready yet" if parts else "no node has a NIC of this pool"


def _linux_only(pool: SriovNetworkPool, own: _Found, limited: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the models whose VFs have no Windows driver, if all nodes of the pool have such models.

    If the nodes are not completely known, the models count if all that the pool's selector names are such models.
    """
    # If the VFs of some nodes have a driver, `allocate` chooses among the nodes, and the pool as a whole stays possible.
    if own.parts and own.complete:
        return tuple(sorted({name for models in limited.values() for name in models})) if all(limited.values()) else ()
    selector = pool.spec.nic_selector
    named = [model_of(vendor, device) for vendor in selector.vendors or ["8086"] for device in selector.devices]
    models = [*(nic for name in selector.models for nic in models_of(name)), *(nic for nic in named if nic is not None)]
    return () if any(map(drives_windows, models)) else tuple(sorted({nic.title for nic in models}))


def _pools_of(state: NodeNicState) -> tuple[str, ...]:
    """Return the pools that have a share of the node's functions."""
    return tuple(dict.fromkeys(group.pool for spec in state.spec.pfs for group in spec.groups))


def node_devices(
    nodes: Iterable[NodeInput], pools: Mapping[str, PoolFacts], named: Iterable[str] = ()
) -> dict[str, NodeDevices]:
    """Count the devices of each node by resource.

    Args:
        nodes: All nodes.
        pools: The pools whose functions are known.
        named: Resources of other operators that policies name. A node that does not advertise one has none.
    """
    others = tuple(named)
    return {node.name: _devices_of(node, pools, others) for node in nodes}


def _devices_of(node: NodeInput, pools: Mapping[str, PoolFacts], others: Iterable[str]) -> NodeDevices:
    """Count one node's devices. A pool has none there without a report of the agent."""
    state = node.state
    # The order counts: the kubelet's numbers replace the zeros of other operators' resources, and a pool's zero replaces the
    # kubelet's number until the agent reports the pool's functions.
    total = (
        dict.fromkeys(others, 0)
        | dict(node.allocatable or {})
        | {resource: 0 for pool in pools.values() for resource in pool.resource_names}
    )
    held: dict[str, int] = {}
    shares = {} if state is None or state.unreadable else {one: list(pool_shares(state, one)) for one in _pools_of(state)}
    for name, parts in shares.items():
        if name in pools:
            for resource in {part.resource for part in parts}.intersection(pools[name].resource_names):
                own = [part for part in parts if part.resource == resource]
                total[resource] = _count_ready(own, node.allocatable)
                held[resource] = sum(len(part.held) for part in own)
    return NodeDevices(
        labels=node.labels,
        usable=node.schedulable,
        taints=node.taints,
        total=total,
        held=held,
        unknown=_unknown(state, pools),
        # Only a VF may lack a driver. A guest drives a whole NIC as it would any other.
        linux_only=frozenset(
            resource
            for pool in pools.values()
            if node.name in pool.linux_only_nodes and not pool.physical
            for resource in pool.resource_names
        ),
    )


def _count_ready(parts: Iterable[PoolShare], allocatable: Mapping[str, int] | None) -> int:
    """Count the devices of a pool on a node that both agent and kubelet report.

    A pool may have one resource per function.
    """
    ready: Counter[str] = Counter()
    for part in parts:
        ready[part.resource] += part.ready
    if allocatable is None:
        return ready.total()
    # An agent may report more than its kubelet advertises, falsely or for some seconds. The scheduler counts only the latter.
    return sum(min(count, allocatable.get(resource, 0)) for resource, count in ready.items())


def _unknown(state: NodeNicState | None, pools: Mapping[str, PoolFacts]) -> frozenset[str]:
    """Return the resources that a node may have although its state cannot be read.

    Without a readable spec these are the resources of all pools.
    """
    if state is None or not state.unreadable:
        return frozenset()
    owners = _pools_of(state) if state.spec.synced else tuple(pools)
    return frozenset(resource for owner in owners if owner in pools for resource in pools[owner].resource_names)
