"""Plans of pools on recorded hosts, made with the readers and the planner of the agent."""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from ..api.node_state import (
    VFIO,
    HostFacts,
    NodeNicState,
    NodeSpec,
    NodeStatus,
    ObjectMeta,
    PfProblem,
    PfSpec,
    PfStatus,
    VfRange,
)
from ..api.reasons import PfReason
from ..host.client import LocalHost
from ..inspection.function_links import owners_by_name
from ..inspection.host_snapshot import HostSnapshot, read_snapshot
from ..nodes.addresses import vf_addresses
from ..nodes.nics import model_of
from ..nodes.observed import (
    MACVTAP,
    ObservedPf,
    hold_groups,
    holders_by_address,
    render_pf_status,
    with_holders,
    with_macvtaps,
)
from ..nodes.planning.drivers import gather_driver
from ..nodes.planning.plan import Planned, hold_partners, plan_pf
from ..nodes.pools.match import matching_pfs
from ..nodes.pools.merge import Merge, merge_pools
from ..nodes.state import indexes_of
from ..records.record import HostRecord, PciDevice, RecordedHolder, Sriov
from ..records.recorded_host import RecordedHost, unknown_holders
from .files import read_files
from .objects import Node, Objects
from .schema import PoolNode, ProblemEntry
from .set_aside import SetAside, try_object

__all__ = ["RecordedPlans", "add_host_files", "plan_recorded", "pool_row", "unknown_values"]

_REPORTED = "recorded"
"""Boot ID of a host whose record has none. An empty one would say that no agent has reported yet."""
_MACVTAP_DEVICE = re.compile(r"(.+)Mvp[0-9]{1,9}", re.ASCII)
"""Device ID of a macvtap, which begins with the name of its resource."""


@dataclass(frozen=True)
class RecordedPlans:
    """Plans on recorded hosts."""

    objects: Objects
    """The given objects, with the states that the plans would leave behind."""
    rows: dict[str, list[tuple[str, PoolNode]]] = field(default_factory=dict)
    """By node, the pools with what they would do there."""
    problems: list[ProblemEntry] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    """Records that could be read but not planned."""


def add_host_files(objects: Objects, names: Iterable[str], *, recursive: bool) -> None:
    """Add the records of files or directories. What is no HostRecord there is an error."""
    for name in names:
        found = read_files([name], recursive=recursive)
        objects.set_aside += found.set_aside
        others = found.skipped + sum(
            len(one)
            for key, one in vars(found).items()
            if isinstance(one, dict) and key not in ("host_records", "evictions", "_generated")
        )
        if others or not (found.host_records or found.set_aside):
            what = f"{others} objects there are no HostRecord: give them with -f" if others else "no HostRecord is there"
            objects.set_aside.append(SetAside(kind="", message=what, where=name))
        for node, record in found.host_records.items():
            if node in objects.host_records:
                message = "the same host is given twice: remove one of them"
                objects.set_aside.append(SetAside(kind="HostRecord", name=node, message=message, where=name))
            objects.host_records.setdefault(node, record)


def find_doubles(objects: Objects) -> list[SetAside]:
    """Set the records aside whose node has a NodeNicState too, and return them."""
    doubles = sorted(objects.host_records.keys() & objects.node_states.keys())
    message = "its node has a NodeNicState too, and only one of them can be right: remove one"
    found = [SetAside(kind="HostRecord", name=name, message=message) for name in doubles]
    objects.host_records = {name: one for name, one in objects.host_records.items() if name not in doubles}
    return found


def plan_recorded(objects: Objects) -> RecordedPlans:
    """Plan the pools on all recorded hosts."""
    after = copy.copy(objects)
    after.node_states, after.nodes = dict(objects.node_states), dict(objects.nodes)
    plans = RecordedPlans(after, set_aside=find_doubles(objects))
    unlabelled: list[str] = []
    unknown_modules: list[str] = []
    for name, record in sorted(objects.host_records.items()):
        found = try_object(plans.set_aside, "HostRecord", ("", name), _plan_host, objects, name, record)
        if found is None:
            continue
        plans.rows[name], problems, after.node_states[name] = found
        plans.problems.extend(problems)
        if name not in objects.nodes and record.metadata.labels is not None:
            after.nodes[name] = msgspec.convert({"metadata": {"name": name, "labels": record.metadata.labels}}, Node)
        elif name not in objects.nodes:
            unlabelled.append(name)
        unknown_modules += [name] if _modules_unknown(record) else []
    selecting = any(pool.spec.node_selector for pool in objects.pools.values())
    if unlabelled and selecting:
        text = f"labels of {', '.join(unlabelled)} are unknown, so every nodeSelector matches: add metadata.labels"
        plans.problems.append({"object": "HostRecord", "reason": "Unknown", "message": text})
    if unknown_modules:
        text = f"modules of {', '.join(unknown_modules)} are unknown, so they count as loaded: add host.modules"
        plans.problems.append({"object": "HostRecord", "reason": "Unknown", "message": text})
    plans.problems.extend(_guesses(objects, after.node_states))
    plans.problems.extend(_planned_capacity(plans.rows))
    return plans


def _modules_unknown(record: HostRecord) -> bool:
    return record.host.modules.loaded is None or record.host.modules.built_in is None


def _planned_capacity(rows: Mapping[str, list[tuple[str, PoolNode]]]) -> list[ProblemEntry]:
    """Return a problem for each pool whose capacity exists only after its plans have run."""
    nodes: dict[str, list[str]] = {}
    for node, found in rows.items():
        for pool, row in found:
            if row["actions"] and node not in nodes.setdefault(pool, []):
                nodes[pool].append(node)
    return [
        {
            "object": f"SriovNetworkPool/{pool}",
            "reason": "CapacityPlanned",
            "message": f"VMs are planned with devices that the pool's plans on {', '.join(found)} would leave behind",
        }
        for pool, found in sorted(nodes.items())
    ]


def _plan_host(
    objects: Objects, name: str, record: HostRecord
) -> tuple[list[tuple[str, PoolNode]], list[ProblemEntry], NodeNicState]:
    """Plan the pools on one recorded host.

    Returns:
        What each pool would do there, problems, and the state that the plans would leave behind.
    """
    snapshot = asyncio.run(read_snapshot(LocalHost(RecordedHost(record)), leave_out=()))
    told = {_device_key(one): one.by for one in record.holders}
    # A record shows one moment, so no macvtap is known to be set up by now.
    found = [with_macvtaps(pf, told, owners_by_name(snapshot.links), ()) for pf in snapshot.pfs]
    macvtaps = {vf: holder for _, of_vfs in found for vf, holder in of_vfs.items()}
    holders = holders_by_address(snapshot.pfs, unknown_holders(record) | macvtaps | snapshot.records.holders | told)
    pfs = {pf.pci_address: pf for pf in hold_groups([with_holders(pf, holders) for pf, _ in found])}
    before = {address: _status(pf, holders) for address, pf in pfs.items()} | _unread(record, snapshot)
    merged = _merge(objects, name, record, tuple(before[address] for address in sorted(before)))
    facts = _facts(record, snapshot)
    made = {spec.pci_address: Planned(problem=before[spec.pci_address].problem) for spec in merged.pfs}
    made |= {
        spec.pci_address: plan_pf(
            spec,
            pf,
            host=facts,
            boot_id=snapshot.boot_id,
            attempt=0,
            holders=holders,
            driver=gather_driver(pf, tuple(pfs.values()), merged.pfs, {}),
            others=merged.pfs,
            holders_unknown=snapshot.records.unknown,
        )
        for spec in merged.pfs
        if (pf := pfs.get(spec.pci_address)) is not None
    }
    plans = hold_partners(made, merged.pfs, pfs)
    rows, after = [], dict(before)
    for desired in merged.pfs:
        address = desired.pci_address
        planned = plans[address]
        after[address] = _after(before[address], desired, planned, record.device_at(address))
        row = pool_row(name, address, planned)
        rows += [(desired.pool, row)] if row is not None else []
    problems: list[ProblemEntry] = [
        {"object": f"SriovNetworkPool/{pool}", "reason": problem["reason"], "message": f"{name}: {problem['message']}"}
        for pool, row in rows
        if (problem := row["problem"]) is not None
    ]
    problems += [
        {"object": f"SriovNetworkPool/{conflict.pool}", "reason": "Conflict", "message": conflict.message}
        for conflict in merged.conflicts
    ]
    status = NodeStatus(boot_id=snapshot.boot_id or _REPORTED, host=facts, pfs=tuple(after[one] for one in sorted(after)))
    if _modules_unknown(record):
        # Without a boot ID the modules count as unknown.
        status = msgspec.structs.replace(status, boot_id="")
    return (
        rows,
        problems,
        NodeNicState(metadata=ObjectMeta(name=name), spec=NodeSpec(synced=True, pfs=merged.pfs), status=status),
    )


def _device_key(holder: RecordedHolder) -> str:
    """Return a device ID as the kubelet's holders have it, which for macvtaps begins with the resource."""
    name = _MACVTAP_DEVICE.fullmatch(holder.device)
    resource = holder.resource or (f"{MACVTAP}{name[1]}" if name is not None else "")
    return f"{resource}/{holder.device}" if resource.startswith(MACVTAP) else holder.device


def pool_row(node: str, address: str, planned: Planned) -> PoolNode | None:
    """Return what a pool would do to one PF, or None if it is as desired."""
    if planned.problem is not None:
        problem = planned.problem
        return {
            "node": node,
            "pf": address,
            "actions": [],
            "disruptive": False,
            "blockedBy": [],
            "problem": {"reason": problem.reason.value, "message": problem.message},
        }
    if planned.plan is None:
        return None
    return {
        "node": node,
        "pf": address,
        "actions": planned.plan.text.split(", "),
        "disruptive": planned.plan.disruptive,
        "blockedBy": list(planned.plan.blocked_by),
        "problem": None,
    }


def _status(pf: ObservedPf, holders: Mapping[str, str]) -> PfStatus:
    return render_pf_status(pf, holders=holders, owned=False, attempt=0, plan=None, problem=None, apply=None)


def _unread(record: HostRecord, snapshot: HostSnapshot) -> dict[str, PfStatus]:
    """Return what is known of functions that could not be read, so that pools can still select them."""
    found = {}
    for address, error in snapshot.unreadable.items():
        device = record.device_at(address)
        if device is None:
            continue
        known = model_of(device.vendor, device.device)
        why = error.strerror if isinstance(error, OSError) else str(error)
        links = [link for link in record.links if link.parent == address]
        found[address] = PfStatus(
            pci_address=address,
            name=links[0].name if links else "",
            vendor=device.vendor,
            device=device.device,
            model=known.model if known is not None else "",
            driver=device.driver or "",
            numa_node=device.numa_node,
            link_speed_mbps=links[0].speed_mbps if links else None,
            total_vfs=(device.sriov or Sriov()).total_vfs or 0,
            problem=PfProblem(reason=PfReason.UNREADABLE, message=f"{address} cannot be planned: {why}: record the host again"),
        )
    return found


def _merge(objects: Objects, name: str, record: HostRecord, pfs: tuple[PfStatus, ...]) -> Merge:
    labels = _labels(objects, name, record)
    return merge_pools(objects.pools.values(), labels, pfs, unknown=unknown_values(record))


def _labels(objects: Objects, name: str, record: HostRecord) -> Mapping[str, str] | None:
    """Return the labels of a recorded node, or None if they are unknown."""
    node = objects.nodes.get(name)
    return node.metadata.labels if node is not None else record.metadata.labels


_GUESSED = {
    "drivers": ("driver", "pciDevices[].driver"),
    "numa_nodes": ("NUMA node", "pciDevices[].numaNode"),
    "min_link_speed_mbps": ("link speed", "links[].speedMbps"),
}
"""Words for values that a record may leave out and the fields that have them, by the field of a selector."""
_TOLD = 4
"""Most functions that a message names."""


def unknown_values(record: HostRecord | None) -> dict[str, frozenset[str]]:
    """Return the fields of selectors that ask for values which a record does not have, by PCI address."""
    found: dict[str, frozenset[str]] = {}
    speeds = {link.parent for link in record.links if link.speed_mbps is not None} if record is not None else set()
    for device in record.pci_devices if record is not None else ():
        known = {
            "drivers": device.driver is not None,
            "numa_nodes": device.numa_node is not None,
            "min_link_speed_mbps": device.address in speeds,
        }
        found[device.address] = frozenset(field for field, is_known in known.items() if not is_known)
    return found


def _guesses(objects: Objects, states: Mapping[str, NodeNicState]) -> Iterator[ProblemEntry]:
    """Yield a problem for each field of selectors that has matched unknown values of recorded functions."""
    guessed: dict[str, list[str]] = {}
    for name, record in sorted(objects.host_records.items()):
        state, unknown, labels = states.get(name), unknown_values(record), _labels(objects, name, record)
        for pf in state.status.pfs if state is not None else ():
            fields = unknown.get(pf.pci_address, frozenset())
            takers = [pool for pool in objects.pools.values() if matching_pfs(pool, labels, [pf], (), {pf.pci_address: fields})]
            for asked in fields:
                others = {pf.pci_address: fields - {asked}}
                if not all(matching_pfs(pool, labels, [pf], (), others) for pool in takers):
                    guessed.setdefault(asked, []).append(f"{name} {pf.pci_address}")
    for asked, found in sorted(guessed.items()):
        word, where = _GUESSED[asked]
        more = f" and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
        text = f"the {word} of {', '.join(found[:_TOLD])}{more} is unknown, so every nicSelector matches it: add {where}"
        yield {"object": "HostRecord", "reason": "Unknown", "message": text}


def _facts(record: HostRecord, snapshot: HostSnapshot) -> HostFacts:
    return msgspec.structs.replace(snapshot.host, refused=record.host.modules.refused or ())


def _after(status: PfStatus, desired: PfSpec, planned: Planned, device: PciDevice | None) -> PfStatus:
    """Return the state of a PF after its plan has run."""
    if planned.plan is None:
        return msgspec.structs.replace(status, problem=planned.problem)
    if desired.function == "Physical":
        return msgspec.structs.replace(status, driver=VFIO, name="", num_vfs=0, vfs=(), first_vf="", vf_stride=0, held=())
    count = status.num_vfs if desired.management == "Adopt" else desired.num_vfs
    vfs = tuple(_ranges(desired, status, count))
    if count == status.num_vfs:
        return msgspec.structs.replace(status, vfs=vfs)
    first, stride = _addresses(status, device)
    return msgspec.structs.replace(
        status,
        num_vfs=count,
        first_vf=first if count else "",
        vf_stride=stride if count > 1 else 0,
        vf_addresses=(),
        vfs=vfs,
        held=(),
    )


def _addresses(status: PfStatus, device: PciDevice | None) -> tuple[str, int]:
    """Return the address of the first VF and the stride, which are empty if they are unknown."""
    if status.vf_addresses:
        # Each VF is in a PCI domain of its own, so none follows from another.
        return "", 0
    sriov = (device.sriov if device is not None else None) or Sriov()
    if device is None or sriov.offset is None or sriov.stride is None:
        return status.first_vf, status.vf_stride
    first = vf_addresses(device.address, sriov.offset, [1])
    return (first[0] if first else status.first_vf), sriov.stride


def _ranges(desired: PfSpec, status: PfStatus, count: int) -> list[VfRange]:
    """Return the drivers of the VFs after the change, in the order of their indexes."""
    known = model_of(status.vendor, status.device)
    kernel = known.vf_driver if known is not None else ""
    found = []
    for group in desired.groups:
        indexes = indexes_of(desired, group)
        indexes = range(indexes.start, min(indexes.stop, count))
        if indexes:
            text = f"{indexes.start}-{indexes.stop - 1}" if len(indexes) > 1 else str(indexes.start)
            found.append((indexes.start, VfRange(range=text, driver=VFIO if group.driver == VFIO else kernel)))
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]
