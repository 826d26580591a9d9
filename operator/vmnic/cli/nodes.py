"""Functions of nodes with their VFs, from NodeNicStates and HostRecords. Pure.

`docs/reference/nodes.schema.json` is generated from the types.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NotRequired

# pydantic generates the JSON Schema, and before Python 3.12 it accepts only this TypedDict.
from typing_extensions import TypedDict

from ..api.node_state import NodeNicState, PfSpec, PfStatus
from ..host.ops import LinkInfo, ReadLinks
from ..inspection.function_links import find_function_links
from ..nodes.addresses import vf_addresses
from ..nodes.state import indexes_of, range_of
from ..nodes.vf_limits import possible_vfs
from ..records.record import HostRecord, LinkVf
from ..records.recorded_host import RecordedHost, virtual_functions
from .schema import PfProblemEntry

__all__ = ["FunctionEntry", "NodeEntry", "Nodes", "VfEntry", "describe_node", "wire_nodes"]


class DeviceEntry(TypedDict):
    """A function as a device. A field that may be absent is then unknown.

    An empty driver is none, a null `iommuGroup` is none, and a null `holder` says that nothing holds it. Only a VF has a
    VLAN, and 0 is none. `nodedev` is libvirt's name of the device.
    """

    driver: NotRequired[str]
    holder: NotRequired[str | None]
    iommuGroup: NotRequired[int | None]
    mac: NotRequired[str]
    vlan: NotRequired[int]
    nodedev: NotRequired[str]


class VfEntry(DeviceEntry):
    """A VF. The address is null if it is unknown, and the pool is null if the VF is in none."""

    index: int
    address: str | None
    pool: str | None


class PfPlanEntry(TypedDict):
    """What the agent would do to a function, and who blocks it."""

    text: str
    disruptive: bool
    blockedBy: list[str]


class FunctionEntry(DeviceEntry):
    """A function that is no VF. `possibleVfs` is 0 for a NIC without SR-IOV."""

    address: str
    name: str
    model: str
    pools: list[str]
    numVfs: int
    possibleVfs: int
    plan: PfPlanEntry | None
    problem: PfProblemEntry | None
    vfs: list[VfEntry]


class NodeEntry(TypedDict):
    """Functions of a node. Without a HostRecord only NodeNicState is known."""

    name: str
    recorded: bool
    functions: list[FunctionEntry]


class Nodes(TypedDict):
    """Functions of nodes."""

    apiVersion: Literal["cli.vmnic.dev/v1alpha1"]
    kind: Literal["Nodes"]
    nodes: list[NodeEntry]


def wire_nodes(nodes: list[NodeEntry]) -> Nodes:
    """Return the nodes for `-o json`."""
    return {"apiVersion": "cli.vmnic.dev/v1alpha1", "kind": "Nodes", "nodes": nodes}


def describe_node(state: NodeNicState, record: HostRecord | None, *, from_record: bool = False) -> NodeEntry:
    """Describe all functions of a node.

    Args:
        state: State of the node.
        record: Record of its host; None if there is none.
        from_record: Whether the state was made from the record, which may not know the driver of a function.
    """
    facts = _RecordedFacts(record, unknown_drivers=from_record)
    specs = {one.pci_address: one for one in state.spec.pfs}
    functions = [_function(pf, specs.get(pf.pci_address), state, facts) for pf in state.status.pfs]
    return {"name": state.metadata.name, "recorded": record is not None, "functions": functions}


def _function(pf: PfStatus, spec: PfSpec | None, state: NodeNicState, facts: _RecordedFacts) -> FunctionEntry:
    holders = {one.vf: one.by or "unknown" for one in pf.held}
    device = facts.describe(pf.pci_address, pf.driver, holders.get(pf.pci_address))
    if "iommuGroup" not in device and pf.iommu_group is not None:
        device["iommuGroup"] = pf.iommu_group
    pools = [] if spec is None else list(dict.fromkeys(group.pool for group in spec.groups)) or [spec.pool]
    plan, problem = pf.plan, pf.problem
    return {
        "address": pf.pci_address,
        "name": pf.name,
        "model": pf.model,
        **device,
        "pools": pools,
        "numVfs": pf.num_vfs,
        "possibleVfs": possible_vfs(pf, state.status.pfs) if pf.total_vfs or pf.num_vfs else 0,
        "plan": None
        if plan is None
        else {"text": plan.text, "disruptive": plan.disruptive, "blockedBy": list(plan.blocked_by)},
        "problem": None if problem is None else {"reason": problem.reason.value, "message": problem.message},
        "vfs": list(_vfs(pf, spec, holders, facts)),
    }


def _vfs(pf: PfStatus, spec: PfSpec | None, holders: dict[str, str], facts: _RecordedFacts) -> Iterator[VfEntry]:
    drivers = {index: part.driver for part in pf.vfs for index in range_of(part.range)}
    pools = {index: group.pool for group in spec.groups for index in indexes_of(spec, group)} if spec is not None else {}
    for index in range(pf.num_vfs):
        address = next(iter(vf_addresses(pf.first_vf, pf.vf_stride, (index,), pf.vf_addresses)), "")
        device = facts.describe(address, drivers.get(index), holders.get(address))
        yield {"index": index, "address": address or None, "pool": pools.get(index), **device}


class _RecordedFacts:
    """What a record knows of functions by their addresses. Without a record it knows nothing."""

    def __init__(self, record: HostRecord | None, *, unknown_drivers: bool) -> None:
        self._unknown_drivers = unknown_drivers
        self._devices = {one.address: one for one in record.pci_devices} if record is not None else {}
        self._unread = {read for read in record.errors if read.startswith("device:")} if record is not None else set()
        self._links = _links_by_function(record) if record is not None else {}
        self._vfs = _vfs_by_address(record) if record is not None else {}

    def describe(self, address: str, driver: str | None, holder: str | None) -> DeviceEntry:
        """Describe a function.

        Args:
            address: Its PCI address; empty if it is unknown.
            driver: Its driver in the state; None if it is unknown.
            holder: Its holder; None if it has none.
        """
        entry: DeviceEntry = {"holder": holder} if address else {}
        device, vf = self._devices.get(address), self._vfs.get(address)
        if driver or (driver is not None and not self._is_driver_unknown(address)):
            entry["driver"] = driver
        if device is not None and (device.iommu_group is not None or f"device:{address}" not in self._unread):
            entry["iommuGroup"] = device.iommu_group
        link = find_function_links(address, (), self._links.get(address, ())).uplink
        # The PF reports another address than the VF's own link if the host has changed that.
        mac = (link.mac if link is not None else None) or (vf.mac if vf is not None else None)
        if mac is not None:
            entry["mac"] = mac
        if vf is not None and vf.vlan is not None:
            entry["vlan"] = vf.vlan
        if device is not None or address in self._vfs:
            entry["nodedev"] = "pci_" + address.replace(":", "_").replace(".", "_")
        return entry

    def _is_driver_unknown(self, address: str) -> bool:
        device = self._devices.get(address)
        return self._unknown_drivers and (device is None or device.driver is None)


def _links_by_function(record: HostRecord) -> dict[str, list[LinkInfo]]:
    found: dict[str, list[LinkInfo]] = {}
    try:
        links = RecordedHost(record).perform(ReadLinks())
    except OSError:
        # The kernel refused this read when the host was recorded, so no link is known.
        return found
    for link in links if isinstance(links, tuple) else ():
        if isinstance(link, LinkInfo) and link.pci_address is not None:
            found.setdefault(link.pci_address, []).append(link)
    return found


def _vfs_by_address(record: HostRecord) -> dict[str, LinkVf | None]:
    """Return the VFs of a record. One whose PF reports no attributes is None."""
    attributes = {(link.parent, vf.index): vf for link in record.links for vf in link.vfs}
    return {
        address: attributes.get((pf.address, index))
        for pf in record.pci_devices
        for index, address in enumerate(virtual_functions(pf) or pf.virtual_functions or ())
    }
