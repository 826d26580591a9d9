"""Pools and what their nodes report become facts about devices: which there are, where, how many, and for which guests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..api.pool import SriovNetworkPool
from ..nodes.nics import model_of, read_models
from ..nodes.parts import parts_of
from ..nodes.state import VFIO, NodeNicState, PfStatus
from ..policy.capacity import NodeDevices
from ..policy.facts import PoolFacts

__all__ = ["NodeInput", "gather_pools", "node_devices"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInput:
    """One node as far as it is known."""

    name: str
    labels: Mapping[str, str] | None = field(default_factory=dict)
    """None: not known."""
    schedulable: bool = True
    allocatable: Mapping[str, int] = field(default_factory=dict)
    """Devices of other operators, by resource."""
    state: NodeNicState | None = None


def gather_pools(pools: Iterable[SriovNetworkPool], nodes: Iterable[NodeInput], *, known: bool) -> dict[str, PoolFacts]:
    """Read what VMs have to know of the pools.

    Args:
        pools: All pools.
        nodes: All nodes.
        known: Whether the nodes have been asked; offline, without their states, a pool counts as ready.
    """
    functions: dict[str, list[PfStatus]] = {}
    devices: dict[str, int] = {}
    for node in nodes:
        if node.state is None:
            continue
        for owner in _pools_of(node.state):
            for part in parts_of(node.state, owner):
                functions.setdefault(owner, []).append(part.pf)
                devices[owner] = devices.get(owner, 0) + part.ready
    found = {}
    for pool in pools:
        name = pool.metadata.name
        own = functions.get(name, [])
        found[name] = PoolFacts(
            name=name,
            resource_name=pool.resource_name,
            physical=pool.spec.function == "Physical",
            mtu=pool.spec.mtu,
            reserve=pool.spec.reserve_for_migration,
            linux_only=_linux_only(pool, own),
            blocker=_blocker(pool, len(own), devices.get(name, 0), known=known),
            uplinks=tuple(dict.fromkeys(pf.name for pf in own if pf.name)),
        )
    return found


def _blocker(pool: SriovNetworkPool, functions: int, devices: int, *, known: bool) -> str:
    if pool.metadata.deletion_timestamp:
        return "it is being deleted"
    if pool.spec.function == "Virtual" and pool.spec.vf_driver != VFIO:
        return f"its VFs are on their kernel driver, and VMs need vfDriver: {VFIO}"
    if not known or devices:
        return ""
    return "none of its functions is ready yet" if functions else "no node has a NIC that is the pool's"


def _linux_only(pool: SriovNetworkPool, functions: Iterable[PfStatus]) -> tuple[str, ...]:
    """Models whose VFs Windows has no driver for: of the functions that are there, else of those that the pool names."""
    names = {pf.model for pf in functions if pf.model}
    if not names:
        selector = pool.spec.nic_selector
        named = (model_of(vendor, device) for vendor in selector.vendors or ["8086"] for device in selector.devices)
        names = {*selector.models, *(model.model for model in named if model is not None)}
    return tuple(sorted(nic.model for nic in read_models() if nic.model in names and "windows" not in nic.vf_guests))


def _pools_of(state: NodeNicState) -> tuple[str, ...]:
    """Name the pools that have a part of the node's functions."""
    return tuple(dict.fromkeys(group.pool for spec in state.spec.pfs for group in spec.groups))


def node_devices(
    nodes: Iterable[NodeInput], pools: Mapping[str, PoolFacts], named: Iterable[str] = ()
) -> dict[str, NodeDevices]:
    """Count the devices of each node by resource.

    Args:
        nodes: All nodes.
        pools: The pools whose functions are known.
        named: Resources of other operators that policies name: a node that does not offer one has none.
    """
    found = {}
    for node in nodes:
        total = dict.fromkeys(named, 0) | dict(node.allocatable)
        held: dict[str, int] = {}
        for pool in pools.values():
            # A pool's functions are told by the node's own agent; without its word there is none.
            total[pool.resource_name] = 0
        if node.state is not None:
            for name in _pools_of(node.state):
                if name in pools:
                    parts = list(parts_of(node.state, name))
                    total[pools[name].resource_name] = sum(part.ready for part in parts)
                    held[pools[name].resource_name] = sum(len(part.held) for part in parts)
        found[node.name] = NodeDevices(labels=node.labels, usable=node.schedulable, total=total, held=held)
    return found
