"""Facts of one VM from KubeVirt's objects.

Preference and instancetype are applied as KubeVirt does. Explicit values of the VM always win over a preference, and no value
of a preference is ever written to the VM.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from ..api.common import LabelSelector, LabelSelectorRequirement
from ..checked.printable import cut
from ..checked.quantities import read_quantity
from ..policy.facts import Architecture, Toleration, VmFacts
from ..policy.problems import ProblemReason, VmProblem
from ..policy.reasons import Reason
from . import vm as projection
from .assignment import UnreadableRecord, assignments, read_record
from .guest_os import read_guest_os
from .inputs import MachineInput
from .nics import MAX_QUEUES, NicReader
from .originals import find_unrecordable
from .requests import find_bad_quantity, read_live_requests, read_requests

__all__ = ["MachineInput", "gather_vm_facts"]

_BOOLEANS = ("true", "false")
_PRESSURES = ("High", "Low")
_NO_WISHES = projection.VmAnnotations()
_NO_RESOURCES = projection.Resources()
_MOST_VCPUS = 2**16 - 1
"""Far more than any hypervisor gives a guest."""
_SHOWN_BYTES = 40
_MOST_LABELS = 100
_MOST_TERMS = 100
_MOST_TOLERATIONS = 100
_MOST_VALUES = 2000
_ENDED_BINDINGS = ("macvtap", "slirp")
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def gather_vm_facts(given: MachineInput) -> VmFacts:
    """Read the facts of one VM."""
    machine, preference = given.machine, given.preference
    meta, spec = machine.metadata, machine.spec.template.spec
    instance = given.instance if given.instance is not None and not given.instance.final else None
    guest_os, source = read_guest_os(machine, instance, preference)
    wishes = meta.annotations or _NO_WISHES
    read = read_record(wishes.assigned)
    record = None if isinstance(read, UnreadableRecord) else read
    fault = (
        read.problem if isinstance(read, UnreadableRecord) else find_unrecordable(spec.domain.devices.interfaces, spec.networks)
    )
    queues = _virtio_queues(given)
    beyond = _beyond_bounds(given) or _unreadable_cpu(given)
    preferred, typed = given.unknown_references
    nics = NicReader(given, instance, queues, record).all()
    return VmFacts(
        namespace=meta.namespace,
        name=meta.name or meta.generate_name,
        created=meta.creation_timestamp,
        labels=meta.labels,
        namespace_labels=given.namespace_labels,
        guest_os=guest_os,
        guest_os_source=source,
        architecture=_architecture(given),
        nics=nics,
        running=instance is not None or given.counts_as_running,
        assumed_running=given.counts_as_running,
        started=instance is not None and bool(instance.status.node_name),
        halted=machine.halted,
        node=instance.status.node_name if instance is not None else "",
        node_selector=spec.node_selector,
        node_terms=() if beyond else _node_terms(spec.affinity),
        tolerations=()
        if beyond
        else tuple(Toleration(one.key, one.operator, one.value, one.effect) for one in spec.tolerations),
        is_new=given.is_new,
        virtio_queues=queues,
        multiqueue=spec.domain.devices.network_interface_multiqueue,
        applier=machine.applier,
        vcpus=_vcpus(given),
        memory_bytes=_memory_bytes(given),
        overcommit=_overcommit(given),
        has_hotplug_volume=_has_hotplug_volume(given),
        has_vfio=_has_vfio(given),
        requests=read_requests(given, nics),
        live_requests=read_live_requests(given, instance, nics),
        instancetype_host_devices=_has_type_devices(given),
        autoattach=given.autoattach,
        virtio_transitional=given.virtio_transitional,
        eviction_strategy=spec.eviction_strategy or "",
        quota=given.quota,
        unknown=given.namespace_unknown or beyond,
        preference_unknown=preferred,
        instancetype_unknown=typed,
        quota_unknown=given.quota_unknown,
        excluded=wishes.exclude == "true",
        never_restart=wishes.restart == "Never",
        pressure=wishes.network_pressure if wishes.network_pressure in _PRESSURES else "",
        assigned=assignments(record),
        record=wishes.assigned,
        record_fault=fault,
        annotated=meta.annotations is not None,
        version=meta.resource_version,
        problems=tuple(_problems(given, wishes, fault, find_bad_quantity(spec.domain.resources))),
    )


def _has_hotplug_volume(given: MachineInput) -> bool:
    volumes = given.machine.spec.template.spec.volumes
    sources = (source for one in volumes for source in (one.persistent_volume_claim, one.data_volume, one.memory_dump))
    return any(source is not None and source.hotpluggable for source in sources)


def _architecture(given: MachineInput) -> Architecture:
    """Return the architecture of the guest.

    KubeVirt's webhook writes it to every VM that is created or updated.
    """
    name = given.machine.spec.template.spec.architecture
    return Architecture(cut(name, _SHOWN_BYTES), "spec.template.spec.architecture") if name else given.default_architecture


def _has_vfio(given: MachineInput) -> bool:
    devices = given.machine.spec.template.spec.domain.devices
    # KubeVirt adds the memory for vfio-pci for VFs, host devices and GPUs alike.
    own = any(interface.sriov is not None for interface in devices.interfaces)
    return own or _has_type_devices(given) or bool(devices.host_devices or devices.gpus)


def _has_type_devices(given: MachineInput) -> bool:
    return given.instancetype is not None and bool(given.instancetype.spec.host_devices)


def _virtio_queues(given: MachineInput) -> int:
    domain = given.machine.spec.template.spec.domain
    wanted = domain.devices.network_interface_multiqueue
    if wanted is None and given.preference is not None:
        wanted = given.preference.spec.devices.preferred_network_interface_multi_queue
    return min(_vcpus(given), MAX_QUEUES) if wanted else 1


def _vcpus(given: MachineInput) -> int:
    """Return the number of vCPUs, from the first of instancetype, topology and resources.

    SetDefaultGuestCPUTopology in KubeVirt 1.8.2 (pkg/defaults/defaults.go) gives the guest as many sockets as the CPU limit,
    or else the CPU request, rounded up. A VM without either gets `cpuRequest` of KubeVirt's configuration before that.
    """
    by_type = given.instancetype.spec.cpu.guest if given.instancetype is not None else 0
    cpu = given.machine.spec.template.spec.domain.cpu
    if by_type or (cpu is not None and cpu.has_topology):
        return by_type or (cpu.vcpus if cpu is not None else 1)
    _, amount = _cpu_amount(given)
    return max(1, min(read_quantity(amount) or 1, _MOST_VCPUS))


def _cpu_amount(given: MachineInput) -> tuple[str, str | int | float | None]:
    """Return the quantity that gives a VM without a topology its vCPUs, and its field."""
    wanted, limits = _resources(given)
    # A limit of zero counts too, unlike one of memory.
    if limits.get("cpu") is not None:
        return "limits.cpu", limits["cpu"]
    cpu = given.machine.spec.template.spec.domain.cpu
    default = None if cpu is not None and cpu.dedicated_cpu_placement else given.default_cpu
    return "requests.cpu", wanted["cpu"] if wanted.get("cpu") is not None else default


def _resources(given: MachineInput) -> tuple[projection.Quantities, projection.Quantities]:
    """Return requests and limits of the VM's pod."""
    resources = given.machine.spec.template.spec.domain.resources or _NO_RESOURCES
    return resources.requests or {}, resources.limits or {}


def _unreadable_cpu(given: MachineInput) -> str:
    """Return which quantity gives the VM its vCPUs and cannot be read, or an empty string."""
    cpu = given.machine.spec.template.spec.domain.cpu
    field, amount = _cpu_amount(given)
    has_others = given.instancetype is not None or (cpu is not None and cpu.has_topology)
    if has_others or amount is None or read_quantity(amount) is not None:
        return ""
    return f"spec.template.spec.domain.resources.{field} is not a quantity"


def _memory_bytes(given: MachineInput) -> int | None:
    """Return the guest's memory in bytes, or None if it is unknown.

    The instancetype's value counts first, then the VM's own. Without them setGuestMemory in KubeVirt 1.8.2
    (pkg/defaults/defaults.go) gives the guest the memory request, or else the limit, or else one huge page.
    """
    domain = given.machine.spec.template.spec.domain
    by_type = given.instancetype.spec.memory if given.instancetype is not None else None
    memory, (wanted, limits) = domain.memory, _resources(given)
    for text in (by_type.guest if by_type is not None else None, memory.guest if memory is not None else None):
        # A quantity that cannot be read makes the memory unknown: the next source would be another amount.
        if text is not None:
            return read_quantity(text)
    hugepages = memory.hugepages if memory is not None else None
    for text in (wanted.get("memory"), limits.get("memory"), hugepages.page_size if hugepages is not None else None):
        # KubeVirt skips an amount of zero.
        if text is not None and (amount := read_quantity(text)) != 0:
            return amount
    return None


def _overcommit(given: MachineInput) -> str:
    """Return the setting that gives the guest more memory than its pod has, if any."""
    domain = given.machine.spec.template.spec.domain
    memory = given.instancetype.spec.memory if given.instancetype is not None else None
    if memory is not None and memory.overcommit_percent > 0:
        return "the instancetype's memory.overcommitPercent"
    if domain.resources is not None and domain.resources.overcommit_guest_overhead:
        return "the VM's resources.overcommitGuestOverhead"
    guest = read_quantity(domain.memory.guest) if domain.memory is not None and domain.memory.guest is not None else None
    requested = read_quantity(_resources(given)[0].get("memory"))
    return "the VM's resources.requests.memory" if guest and requested and requested < guest else ""


def _beyond_bounds(given: MachineInput) -> str:
    """Return which part of the VM's placement exceeds a bound or is no quantity.

    The placement is compared with every node, so a large one slows down decisions about other VMs.
    """
    spec = given.machine.spec.template.spec
    if len(spec.node_selector) > _MOST_LABELS:
        return f"spec.template.spec.nodeSelector has more than {_MOST_LABELS} labels"
    if len(spec.tolerations) > _MOST_TOLERATIONS:
        return f"spec.template.spec.tolerations has more than {_MOST_TOLERATIONS} entries"
    bad = find_bad_quantity(spec.domain.resources)
    if bad:
        return bad
    # The whole affinity is bounded too: many short terms cost as much as a long one.
    node = spec.affinity.node_affinity if spec.affinity is not None else None
    terms = node.required.node_selector_terms if node is not None and node.required is not None else ()
    if len(terms) > _MOST_TERMS:
        return f"spec.template.spec.affinity.nodeAffinity has more than {_MOST_TERMS} terms"
    words = sum(1 + len(one.values) for term in terms for one in term.match_expressions)
    return f"spec.template.spec.affinity.nodeAffinity has more than {_MOST_VALUES} values" if words > _MOST_VALUES else ""


def _node_terms(affinity: projection._Affinity | None) -> tuple[LabelSelector, ...]:
    """Return the alternatives of the required node affinity.

    Numeric comparisons are ignored and thus exclude no node.
    """
    if affinity is None or affinity.node_affinity is None or affinity.node_affinity.required is None:
        return ()
    return tuple(
        LabelSelector.model_construct(
            match_expressions=[
                LabelSelectorRequirement.model_construct(key=one.key, operator=cast("Any", one.operator), values=one.values)
                for one in term.match_expressions
                if one.operator in _OPERATORS
            ]
        )
        for term in affinity.node_affinity.required.node_selector_terms
    )


def _problems(given: MachineInput, wishes: projection.VmAnnotations, fault: str, quantity: str) -> Iterator[VmProblem]:
    """Yield missing objects that the VM refers to, and malformed values of the VM."""
    spec = given.machine.spec
    for name, value, words in (
        ("exclude", wishes.exclude, _BOOLEANS),
        ("network-pressure", wishes.network_pressure, _PRESSURES),
        ("restart", wishes.restart, ("Never",)),
    ):
        if value is not None and value not in words:
            text = f"annotation vmnic.dev/{name} is {cut(value, _SHOWN_BYTES)!r}; it must be {' or '.join(words)}"
            yield VmProblem(ProblemReason.ANNOTATION_INVALID, text)
    if fault:
        yield VmProblem(Reason.RECORD_UNREADABLE, fault)
    if quantity:
        yield VmProblem(Reason.INPUT_UNREADABLE, quantity)
    yield from (VmProblem(Reason.PREFERENCE_UNKNOWN, text) for text in given.unknown_references if text)
    for text in _ended_bindings(spec.template.spec.domain.devices.interfaces):
        yield VmProblem(ProblemReason.BINDING_REMOVED, text)
    yield from (VmProblem(ProblemReason.NOT_FOUND, text) for text in _missing_networks(given))


def _missing_networks(given: MachineInput) -> Iterator[str]:
    """Describe networks of the VM that do not exist, each once."""
    references = (one.multus.network_name for one in given.machine.spec.template.spec.networks if one.multus is not None)
    for reference in dict.fromkeys(references):
        namespace, _, name = reference.rpartition("/")
        namespace = namespace or given.machine.metadata.namespace
        if given.find_network(namespace, name) is None:
            yield f"NetworkAttachmentDefinition {namespace}/{name} does not exist"


def _ended_bindings(interfaces: Iterable[projection.Interface]) -> list[str]:
    """Describe NICs with a binding that KubeVirt no longer has."""
    return [
        f"NIC {interface.name} has the binding {name}, which KubeVirt removed in 1.3:"
        f" use a binding plugin (`binding: {{name: {name}}}`)"
        for interface in interfaces
        for name in _ENDED_BINDINGS
        if getattr(interface, name) is not None and interface.state != "absent"
    ]
