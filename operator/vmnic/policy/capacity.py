"""How many devices are left where: devices held now come first, then standing assignments; what remains is for new claims."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from .facts import Assignment, Datapath, GuestOs, VmFacts
from .labels import matches_labels

__all__ = ["SCARCE", "Capacity", "Claim", "NodeDevices", "can_drive", "claim_of", "count_capacity", "may_use"]

SCARCE = (Datapath.SRIOV, Datapath.PASSTHROUGH)
"""Datapaths that take a device of which there are so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDevices:
    """The devices of one node."""

    labels: Mapping[str, str] | None = field(default_factory=dict)
    """None: not known, which excludes nothing."""
    usable: bool = True
    """Whether new VMs may go there: it is not cordoned."""
    total: Mapping[str, int] = field(default_factory=dict)
    """Devices by resource."""
    held: Mapping[str, int] = field(default_factory=dict)
    """Of these, how many are held, no matter by which program."""
    unknown: frozenset[str] = frozenset()
    """Resources that the node may have although `total` says 0: its state cannot be read."""
    linux_only: frozenset[str] = frozenset()
    """Resources for whose devices here only Linux has a driver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one VM holds or is about to hold."""

    vm: VmFacts
    """Its NICs are not read; only where it may run, and since when it is there."""
    held: Mapping[str, int] = field(default_factory=dict)
    """Devices of its running instance, by resource."""
    wanted: Mapping[str, int] = field(default_factory=dict)
    """Devices that its spec asks for, by resource."""
    of: Mapping[str, int] = field(default_factory=dict)
    """How many devices there were when vmnic assigned them, by resource; absent: not by vmnic."""

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name of the VM."""
        return (self.vm.namespace, self.vm.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What is left for new claims. A resource that is not listed has no known bound."""

    nodes: Mapping[str, NodeDevices] = field(default_factory=dict)
    free: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By resource and node."""
    total: Mapping[str, int] = field(default_factory=dict)
    """By resource."""
    assigned: Mapping[str, int] = field(default_factory=dict)
    """Devices that specs ask for, also of stopped VMs, by resource."""
    idle: Mapping[str, int] = field(default_factory=dict)
    """Of these, those of stopped VMs: they hold nothing, and count again at the next start."""
    overshot: frozenset[tuple[str, str]] = frozenset()
    """VMs that were assigned the same devices as others, by webhooks at the same time, and have not started: they give back."""


def claim_of(vm: VmFacts) -> Claim | None:
    """Say what a VM holds and asks for; None if nothing."""
    held: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    of: dict[str, int] = {}
    for nic in vm.nics:
        if nic.live is not None and nic.live.datapath in SCARCE and vm.started:
            held[nic.live.resource] += 1
        if nic.present.datapath in SCARCE:
            wanted[nic.present.resource] += 1
            made = vm.assigned.get(nic.name)
            if made is not None and made.of is not None and _same(made, nic.present.resource):
                of[made.resource] = made.of
    return Claim(vm=vm, held=held, wanted=wanted, of=of) if held or wanted else None


def _same(made: Assignment, resource: str) -> bool:
    return made.resource == resource


def may_use(vm: VmFacts, node: NodeDevices) -> bool:
    """Tell whether a VM may run on a node: its node selector and its required affinity."""
    if node.labels is None:
        return True
    if not vm.node_selector.items() <= node.labels.items():
        return False
    labels = node.labels
    return not vm.node_terms or any(matches_labels(term, labels) for term in vm.node_terms)


def can_drive(vm: VmFacts, node: NodeDevices, resources: Collection[str]) -> bool:
    """Tell whether the guest has a driver for these devices of a node; an unknown guest has it where all guests have."""
    return vm.guest_os is GuestOs.LINUX or node.linux_only.isdisjoint(resources)


def count_capacity(nodes: Mapping[str, NodeDevices], claims: Iterable[Claim]) -> Capacity:
    """Count what is left.

    Claims of VMs that run are taken from their nodes; those that are about to start are placed on nodes in their order, the
    oldest first; the scheduler may place them otherwise, so this is an advice and no promise.
    """
    claims = sorted(claims, key=lambda claim: (claim.vm.created, claim.key))
    running: Counter[tuple[str, str]] = Counter()
    leaving: Counter[tuple[str, str]] = Counter()
    for claim in claims:
        for resource, count in claim.held.items():
            running[resource, claim.vm.node] += count
            leaving[resource, claim.vm.node] += max(count - claim.wanted.get(resource, 0), 0)
    room: dict[str, dict[str, int]] = defaultdict(dict)
    for name, node in nodes.items():
        for resource, count in node.total.items():
            # What a VM is about to give back is room for one that is about to start.
            room[resource][name] = max(count - running[resource, name] + leaving[resource, name], 0)
    total = {resource: sum(node.total.get(resource, 0) for node in nodes.values()) for resource in room}
    unknown = frozenset().union(*(node.unknown for node in nodes.values()))
    assigned: Counter[str] = Counter()
    idle: Counter[str] = Counter()
    overshot = set()
    for claim in claims:
        assigned.update(claim.wanted)
        if claim.vm.halted and not claim.vm.running:
            idle.update(claim.wanted)
            continue
        coming = Counter(claim.wanted) - Counter(claim.held)
        placed = not coming or _place(claim.vm, coming, nodes, room)
        if not placed and unknown.isdisjoint(coming) and _is_surplus(claim, coming, total):
            overshot.add(claim.key)
    # A device that is held, by nobody knows whom, may be one of those that VMs are just starting with.
    free = {
        resource: {name: min(left, _unheld(nodes[name], resource, running[resource, name])) for name, left in by_node.items()}
        for resource, by_node in room.items()
    }
    return Capacity(nodes=nodes, free=free, total=total, assigned=assigned, idle=idle, overshot=frozenset(overshot))


def _unheld(node: NodeDevices, resource: str, running: int) -> int:
    """Devices of a node that nobody holds now."""
    return max(node.total[resource] - max(node.held.get(resource, 0), running), 0)


def _place(vm: VmFacts, devices: Counter[str], nodes: Mapping[str, NodeDevices], free: dict[str, dict[str, int]]) -> bool:
    """Take devices from the node with the fewest that has enough; where none has, from wherever they are, and False."""
    fitting = [
        name
        for name, node in nodes.items()
        if may_use(vm, node) and all(free.get(resource, {}).get(name, 0) >= count for resource, count in devices.items())
    ]
    if not fitting:
        for resource, count in devices.items():
            _take_anywhere(free.get(resource, {}), count)
        return False
    best = min(fitting, key=lambda name: (sum(free[resource][name] for resource in devices), name))
    for resource, count in devices.items():
        free[resource][best] -= count
    return True


def _take_anywhere(nodes: dict[str, int], count: int) -> None:
    for name in sorted(nodes):
        taken = min(nodes[name], count)
        nodes[name] -= taken
        count -= taken


def _is_surplus(claim: Claim, devices: Counter[str], total: Mapping[str, int]) -> bool:
    """Whether vmnic assigned more than there was; where there were more devices then, capacity was lost: nobody's fault."""
    return not claim.vm.started and all(
        resource in claim.of and resource in total and total[resource] >= claim.of[resource] for resource in devices
    )
