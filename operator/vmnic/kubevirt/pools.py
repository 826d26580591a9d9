"""Pools and what their nodes report become facts about devices: which there are, where, how many, and for which guests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..api.pool import SriovNetworkPool
from ..nodes.nics import model_of, read_models
from ..nodes.state import NodeNicState, PfStatus
from ..policy.capacity import NodeDevices
from ..policy.facts import PoolFacts

__all__ = ["NodeInput", "gather_pools", "node_devices"]

_VFIO = "vfio-pci"


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
        by_address = {pf.pci_address: pf for pf in node.state.status.pfs}
        for spec in node.state.spec.pfs:
            if spec.pci_address in by_address:
                functions.setdefault(spec.pool, []).append(by_address[spec.pci_address])
        for owner, count in _devices_by_pool(node.state).items():
            devices[owner] = devices.get(owner, 0) + count
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
    if pool.spec.function == "Virtual" and pool.spec.vf_driver != _VFIO:
        return f"its VFs are on their kernel driver, and VMs need vfDriver: {_VFIO}"
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


def _devices_by_pool(state: NodeNicState) -> dict[str, int]:
    """Devices that VMs can use on one node, by pool."""
    by_address = {pf.pci_address: pf for pf in state.status.pfs}
    found: dict[str, int] = {}
    for spec in state.spec.pfs:
        pf = by_address.get(spec.pci_address)
        if pf is None:
            continue
        count = int(pf.driver == _VFIO) if spec.function == "Physical" else min(_vfio_vfs(pf), spec.num_vfs)
        found[spec.pool] = found.get(spec.pool, 0) + count
    return found


def _vfio_vfs(pf: PfStatus) -> int:
    count = 0
    for part in pf.vfs:
        if part.driver == _VFIO:
            first, _, last = part.range.partition("-")
            count += int(last or first) - int(first) + 1
    return count


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
            for name, count in _devices_by_pool(node.state).items():
                if name in pools:
                    total[pools[name].resource_name] = count
            by_pool = {spec.pci_address: spec.pool for spec in node.state.spec.pfs}
            for pf in node.state.status.pfs:
                known = pools.get(by_pool.get(pf.pci_address, ""))
                if known is not None:
                    held[known.resource_name] = held.get(known.resource_name, 0) + len(pf.held)
        found[node.name] = NodeDevices(labels=node.labels, usable=node.schedulable, total=total, held=held)
    return found
