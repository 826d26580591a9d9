"""Free devices per node.

Devices in use are subtracted first, then devices that specs ask for. New claims share the rest.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from .facts import Assignment, GuestOs, Toleration, VmFacts
from .labels import matches_labels

__all__ = ["Capacity", "Claim", "NodeDevices", "Taint", "can_drive", "claim_of", "count_capacity", "may_use", "tolerates"]


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint of a node."""

    key: str
    value: str = ""
    effect: str = ""

    @property
    def keeps_off(self) -> bool:
        """Return whether a pod that does not tolerate it is not scheduled."""
        return self.effect in ("NoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDevices:
    """The devices of one node."""

    labels: Mapping[str, str] | None = field(default_factory=dict)
    """None if unknown; then no selector excludes the node."""
    usable: bool = True
    """Whether new VMs may be scheduled there, that is, whether it is not cordoned."""
    taints: tuple[Taint, ...] = ()
    """Its taints, as far as they are known."""
    total: Mapping[str, int] = field(default_factory=dict)
    """Number of devices by resource."""
    held: Mapping[str, int] = field(default_factory=dict)
    """Number of devices in use by resource, including those that other programs use."""
    unknown: frozenset[str] = frozenset()
    """Resources for which `total` is 0 only because the node's state cannot be read."""
    linux_only: frozenset[str] = frozenset()
    """Resources whose devices on this node only Linux has a driver for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Devices that one VM holds or asks for."""

    vm: VmFacts
    """Only its placement, start and age are used, not its NICs."""
    held: Mapping[str, int] = field(default_factory=dict)
    """Devices of its running instance, by resource."""
    wanted: Mapping[str, int] = field(default_factory=dict)
    """Devices in its spec, by resource."""
    of: Mapping[str, int] = field(default_factory=dict)
    """Total number of devices at the time of vmnic's assignment, by resource. Absent if vmnic did not assign them."""

    @property
    def key(self) -> tuple[str, str]:
        """Return the namespace and name of the VM."""
        return (self.vm.namespace, self.vm.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Devices left for new claims. A resource that is not listed has no known bound."""

    nodes: Mapping[str, NodeDevices] = field(default_factory=dict)
    free: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Free devices by resource and node."""
    total: Mapping[str, int] = field(default_factory=dict)
    """Devices by resource."""
    assigned: Mapping[str, int] = field(default_factory=dict)
    """Devices in specs by resource, including specs of stopped VMs."""
    idle: Mapping[str, int] = field(default_factory=dict)
    """Devices in specs of stopped VMs, by resource. Stopped VMs hold none; they count again at the next start."""
    overshot: frozenset[tuple[str, str]] = frozenset()
    """VMs that must give up their assignment. Webhooks assigned the same devices twice at the same time, and the VM has not
    started.
    """


def claim_of(vm: VmFacts) -> Claim | None:
    """Return the devices that a VM holds and asks for, or None if there are none."""
    held: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    of: dict[str, int] = {}
    for nic in vm.nics:
        if nic.live is not None and nic.live.datapath.needs_device:
            held[nic.live.resource] += 1
        if nic.present.datapath.needs_device:
            wanted[nic.present.resource] += 1
            made = vm.assigned.get(nic.name)
            # A device that someone else wrote into the spec has no `of`. vmnic never takes it back. Nor does it where
            # `resources` name the quantity, because the NIC would give back none.
            if (
                made is not None
                and made.of is not None
                and _same(made, nic.present.resource)
                and made.resource not in vm.requests.fixed
            ):
                of[made.resource] = made.of
    wanted = vm.requests.count(wanted)
    # The kubelet allocates devices on the VM's node. An instance without a node holds none yet.
    held = vm.live_requests.count(held) if vm.started else Counter()
    return Claim(vm=vm, held=held, wanted=wanted, of=of) if held or wanted else None


def _same(made: Assignment, resource: str) -> bool:
    return made.resource == resource


def may_use(vm: VmFacts, node: NodeDevices) -> bool:
    """Return whether a VM's node selector and required affinity allow a node."""
    if node.labels is None:
        return True
    if not vm.node_selector.items() <= node.labels.items():
        return False
    labels = node.labels
    return not vm.node_terms or any(matches_labels(term, labels) for term in vm.node_terms)


def tolerates(vm: VmFacts, node: NodeDevices) -> bool:
    """Return whether a VM tolerates all taints of a node that keep pods off."""
    return all(any(_covers(one, taint) for one in vm.tolerations) for taint in node.taints if taint.keeps_off)


def _covers(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect not in ("", taint.effect):
        return False
    if toleration.operator == "Exists":
        return toleration.key in ("", taint.key)
    # Numeric comparisons are alpha in Kubernetes, and the node decides about them.
    return toleration.operator in ("", "Equal") and (toleration.key, toleration.value) == (taint.key, taint.value)


def can_drive(vm: VmFacts, node: NodeDevices, resources: Collection[str]) -> bool:
    """Return whether the guest has a driver for these devices of a node.

    A guest that is not known to be Linux has one only if the devices are not limited to Linux.
    """
    return vm.guest_os is GuestOs.LINUX or node.linux_only.isdisjoint(resources)


def count_capacity(nodes: Mapping[str, NodeDevices], claims: Iterable[Claim]) -> Capacity:
    """Count the free devices of each node.

    Devices of running VMs are subtracted from their nodes. VMs that have not started are placed on nodes, oldest first. The
    scheduler may place them elsewhere, so the result is an estimate.
    """
    # The key makes the order complete: all replicas must name the same VM as overshot.
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
            # A device that a running VM is about to give up is free for a VM that is about to start.
            room[resource][name] = max(count - running[resource, name] + leaving[resource, name], 0)
    total = {resource: sum(node.total.get(resource, 0) for node in nodes.values()) for resource in room}
    unknown = frozenset().union(*(node.unknown for node in nodes.values()))
    assigned: Counter[str] = Counter()
    idle: Counter[str] = Counter()
    overshot = set()
    for claim in claims:
        assigned.update(claim.wanted)
        # A VM that is being stopped holds its devices until its instance is gone.
        if claim.vm.halted and not claim.vm.running:
            idle.update(claim.wanted)
            continue
        # A resource without a known bound limits no node.
        coming = Counter({one: count for one, count in claim.wanted.items() if one in room}) - Counter(claim.held)
        placed = not coming or _place(claim.vm, coming, nodes, room)
        # A node that cannot be read may have the missing device, so no VM gives one back meanwhile.
        if not placed and unknown.isdisjoint(coming) and _is_surplus(claim, coming, total):
            overshot.add(claim.key)
    # A device whose holder is unknown may belong to a VM that is just starting, so it is not subtracted twice.
    free = {
        resource: {name: min(left, _unheld(nodes[name], resource, running[resource, name])) for name, left in by_node.items()}
        for resource, by_node in room.items()
    }
    return Capacity(nodes=nodes, free=free, total=total, assigned=assigned, idle=idle, overshot=frozenset(overshot))


def _unheld(node: NodeDevices, resource: str, running: int) -> int:
    """Return the number of devices of a node that have no holder."""
    # A VM's device is in both counts once its agent has seen it, so the larger one counts, not the sum.
    return max(node.total[resource] - max(node.held.get(resource, 0), running), 0)


def _place(vm: VmFacts, devices: Counter[str], nodes: Mapping[str, NodeDevices], free: dict[str, dict[str, int]]) -> bool:
    """Take devices from the fitting node with the fewest free ones and return whether such a node exists.

    If no node has enough, the devices are taken from any nodes.
    """
    fitting = [
        name
        for name, node in nodes.items()
        if may_use(vm, node) and all(free.get(resource, {}).get(name, 0) >= count for resource, count in devices.items())
    ]
    if not fitting:
        # The VM still waits for these devices, so a new claim must not get them.
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
    """Return whether vmnic assigned more devices than there were.

    False if the total has dropped since the assignment: then capacity was lost, and the VM keeps its assignment.
    """
    # A VM that has started has its devices from the kubelet, so no other VM can hold them.
    return not claim.vm.started and all(
        resource in claim.of and resource in total and total[resource] >= claim.of[resource] for resource in devices
    )
