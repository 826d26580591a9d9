"""KubeVirt's objects become the facts of one VM, with its preference and instancetype applied as KubeVirt does.

Explicit values of the VM always win over a preference, and nothing of a preference is ever written to the VM.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from ..api.common import LabelSelector, LabelSelectorRequirement
from ..policy.facts import Datapath, Network, NicFacts, NicState, VmFacts
from . import projection
from .guest_os import read_guest_os
from .networks import original_network
from .projection import Instance, Instancetype, Interface, Machine, Preference
from .quantity import parse_bytes
from .record import Record, assignments, parse_record

__all__ = ["MachineInput", "gather_vm_facts"]

_VIRTIO = "virtio"
_PRESSURES = ("High", "Low")
_MAX_QUEUES = 256
"""KubeVirt's cap, which is the kernel's limit for a tap device."""
_MACVTAP = "macvtap"
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineInput:
    """One VM and what belongs to it; None for what does not exist."""

    machine: Machine
    instance: Instance | None = None
    preference: Preference | None = None
    instancetype: Instancetype | None = None
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    find_network: Callable[[str, str], Network | None] = lambda namespace, name: None  # noqa: ARG005 - finds none
    """Looks a NetworkAttachmentDefinition up by namespace and name."""
    find_segment: Callable[[str, str], Iterable[Network]] = lambda namespace, segment: ()  # noqa: ARG005 - finds none
    """Gives the networks of a namespace that carry the label of a segment."""
    physical_resources: Collection[str] = ()
    """Resources of pools of whole NICs: a host device of one is a NIC."""
    quota: Mapping[str, int] = field(default_factory=dict)
    """What the namespace's quotas leave."""
    is_new: bool = False
    counts_as_running: bool = False
    """Offline only: no VMI is given, and the spec says that it runs."""


def gather_vm_facts(given: MachineInput) -> VmFacts:
    """Read the facts of one VM."""
    machine, preference = given.machine, given.preference
    meta, spec = machine.metadata, machine.spec.template.spec
    instance = given.instance if given.instance is not None and not given.instance.final else None
    guest_os, source = read_guest_os(machine, instance, preference)
    wishes = meta.annotations
    record = parse_record(wishes.assigned) if wishes is not None else None
    queues = _virtio_queues(given)
    devices = spec.domain.devices
    own_vfio = any(interface.sriov is not None for interface in devices.interfaces)
    instancetype = given.instancetype
    type_devices = bool(instancetype is not None and instancetype.spec.host_devices)
    return VmFacts(
        namespace=meta.namespace,
        name=meta.name or meta.generate_name,
        created=meta.creation_timestamp,
        labels=meta.labels,
        namespace_labels=given.namespace_labels,
        guest_os=guest_os,
        guest_os_source=source,
        nics=_Nics(given, instance, queues, record).all(),
        running=instance is not None or given.counts_as_running,
        started=instance is not None and bool(instance.status.node_name),
        halted=machine.halted,
        node=instance.status.node_name if instance is not None else "",
        node_selector=spec.node_selector,
        node_terms=_node_terms(spec.affinity),
        is_new=given.is_new,
        virtio_queues=queues,
        multiqueue=devices.network_interface_multiqueue,
        applier=machine.applier,
        vcpus=_vcpus(given),
        memory_bytes=_memory_bytes(given),
        overcommit=_overcommit(given),
        has_vfio=own_vfio or type_devices or bool(devices.host_devices or devices.gpus),
        has_host_devices=bool(devices.host_devices),
        instancetype_host_devices=type_devices,
        autoattach=devices.autoattach_pod_interface,
        eviction_strategy=spec.eviction_strategy or "",
        quota=given.quota,
        excluded=wishes is not None and wishes.exclude == "true",
        never_restart=wishes is not None and wishes.restart == "Never",
        pressure=wishes.network_pressure if wishes is not None and wishes.network_pressure in _PRESSURES else "",
        assigned=assignments(record),
        record=wishes.assigned if wishes is not None else None,
        annotated=wishes is not None,
        version=meta.resource_version,
        problems=_problems(given, record),
    )


class _Nics:
    """Reads the NICs of one VM."""

    def __init__(self, given: MachineInput, instance: Instance | None, queues: int, record: Record | None) -> None:
        self._given = given
        self._instance = instance
        self._queues = queues
        self._record = record
        self._spec = given.machine.spec.template.spec

    def all(self) -> tuple[NicFacts, ...]:
        """Give the NICs in their order: interfaces first, then host devices that are whole NICs."""
        devices = self._spec.domain.devices
        if not devices.interfaces and not self._spec.networks:
            # KubeVirt then adds one on the pod network by itself.
            implicit = Interface(name="default", bridge={})
            own = () if devices.autoattach_pod_interface is False else (self._nic(implicit, Network(pod=True), None),)
            return (*own, *self._whole_nics())
        networks = {network.name: network for network in self._spec.networks}
        return (
            *(
                self._nic(interface, self._network(networks.get(interface.name)), index)
                for index, interface in enumerate(devices.interfaces)
            ),
            *self._whole_nics(),
        )

    def _nic(self, interface: Interface, network: Network, index: int | None) -> NicFacts:
        name = interface.name
        return NicFacts(
            name=name,
            network=network,
            equivalents=self._equivalents(network),
            present=self._present(interface, network),
            index=index,
            binding=interface.binding.name if interface.binding is not None else next(iter(interface.bindings), ""),
            explicit_model=interface.model or None,
            state=interface.state or "",
            spec_mac=interface.mac_address or None,
            live_mac=_live_mac(self._instance, name),
            live=self._live(name),
        )

    def _whole_nics(self) -> tuple[NicFacts, ...]:
        """Host devices that vmnic has put in place of a NIC, or that are of a pool of whole NICs."""
        found = []
        recorded = self._record.nics if self._record is not None else {}
        for index, device in enumerate(self._spec.domain.devices.host_devices):
            entry = recorded.get(device.name)
            ours = entry is not None and entry.datapath == Datapath.PASSTHROUGH and entry.resource == device.device_name
            if not ours and device.device_name not in self._given.physical_resources:
                continue
            before = original_network(entry.was) if entry is not None and ours else None
            network = self._network(before) if before is not None else Network(known=False)
            state = NicState(datapath=Datapath.PASSTHROUGH, resource=device.device_name)
            found.append(
                NicFacts(
                    name=device.name,
                    network=network,
                    equivalents=self._equivalents(network),
                    present=state,
                    index=index,
                    live=state if self._runs_device(device) else None,
                )
            )
        return tuple(found)

    def _runs_device(self, device: projection.HostDevice) -> bool:
        return self._instance is not None and device in self._instance.spec.domain.devices.host_devices

    def _network(self, entry: projection.Network | None) -> Network:
        """What a NIC is connected to; the network in the place of the pod network counts as that."""
        if entry is None or entry.pod is not None:
            return Network(pod=True)
        if entry.multus is None:
            return Network(known=False, name=entry.name)
        found = self._find(entry.multus.network_name)
        if entry.multus.default:
            return Network(pod=True, namespace=found.namespace, name=found.name, resource_name=found.resource_name)
        return found

    def _find(self, reference: str) -> Network:
        """Look a Multus network up by `name` or `namespace/name`."""
        namespace, _, name = reference.rpartition("/")
        namespace = namespace or self._given.machine.metadata.namespace
        return self._given.find_network(namespace, name) or Network(namespace=namespace, name=name, known=False)

    def _equivalents(self, network: Network) -> tuple[Network, ...]:
        """Networks of the same segment in the VM's namespace and in that of its present network."""
        if network.pod or not network.known:
            return ()
        if not network.segment:
            return (network,)
        namespaces = {self._given.machine.metadata.namespace, network.namespace}
        found = [one for namespace in namespaces for one in self._given.find_segment(namespace, network.segment)]
        return tuple(sorted(found, key=lambda one: (one.name, one.namespace)))

    def _present(self, interface: Interface, network: Network) -> NicState:
        """What the spec makes of a NIC: `sriov` has no model, an empty model is the preference's, else virtio."""
        preference = self._given.preference
        preferred = preference.spec.devices.preferred_interface_model if preference is not None else None
        plugin = (interface.binding.name or "other") if interface.binding is not None else ""
        if interface.state == "absent":
            return NicState(datapath=Datapath.OTHER, model=interface.model or preferred or _VIRTIO)
        return _state(
            interface.model or preferred or _VIRTIO,
            self._queues,
            network.resource_name,
            sriov=interface.sriov is not None,
            plugin=plugin or ("other" if _is_odd(interface) else ""),
        )

    def _live(self, name: str) -> NicState | None:
        """What the running NIC is, as KubeVirt made it."""
        if self._instance is None:
            return None
        spec = self._instance.spec
        interface = next((one for one in spec.domain.devices.interfaces if one.name == name), None)
        if interface is None:
            return None
        entry = next((one for one in spec.networks if one.name == name), None)
        resource = self._network(entry).resource_name if interface.sriov is not None else ""
        cpu = spec.domain.cpu
        several = spec.domain.devices.network_interface_multiqueue
        queues = min(cpu.vcpus if cpu is not None else 1, _MAX_QUEUES) if several else 1
        odd = "other" if interface.passt_binding is not None else ""
        plugin = (interface.binding.name or "other") if interface.binding is not None else odd
        return _state(interface.model or _VIRTIO, queues, resource, sriov=interface.sriov is not None, plugin=plugin)


def _is_odd(interface: Interface) -> bool:
    """Bindings that are no longer, or not plainly, a tap device."""
    return any(field in interface.bindings for field in ("passt_binding", "slirp", "macvtap", "passt"))


def _state(model: str, queues: int, resource: str, *, sriov: bool, plugin: str) -> NicState:
    if sriov:
        return NicState(datapath=Datapath.SRIOV, resource=resource)
    if plugin == _MACVTAP:
        return NicState(datapath=Datapath.MACVTAP, model=model, queues=queues if model == _VIRTIO else 1)
    if plugin:
        return NicState(datapath=Datapath.OTHER, model=model)
    if model == _VIRTIO:
        return NicState(datapath=Datapath.VHOST, model=model, queues=queues)
    return NicState(datapath=Datapath.EMULATED, model=model)


def _virtio_queues(given: MachineInput) -> int:
    domain = given.machine.spec.template.spec.domain
    wanted = domain.devices.network_interface_multiqueue
    if wanted is None and given.preference is not None:
        wanted = given.preference.spec.devices.preferred_network_interface_multi_queue
    return min(_vcpus(given), _MAX_QUEUES) if wanted else 1


def _vcpus(given: MachineInput) -> int:
    """VCPUs of the instancetype, else of the VM; KubeVirt's default is one."""
    by_type = given.instancetype.spec.cpu.guest if given.instancetype is not None else 0
    cpu = given.machine.spec.template.spec.domain.cpu
    return by_type or (cpu.vcpus if cpu is not None else 1)


def _memory_bytes(given: MachineInput) -> int | None:
    """The guest's memory: the instancetype's, else the VM's own, else what its pod requests."""
    domain = given.machine.spec.template.spec.domain
    by_type = given.instancetype.spec.memory if given.instancetype is not None else None
    requests = domain.resources.requests if domain.resources is not None else None
    for text in (
        by_type.guest if by_type is not None else None,
        domain.memory.guest if domain.memory is not None else None,
        requests.memory if requests is not None else None,
    ):
        if text is not None:
            return parse_bytes(text)
    return None


def _overcommit(given: MachineInput) -> str:
    """What promises the guest more memory than its pod has."""
    domain = given.machine.spec.template.spec.domain
    memory = given.instancetype.spec.memory if given.instancetype is not None else None
    if memory is not None and memory.overcommit_percent > 0:
        return "the instancetype's memory.overcommitPercent"
    if domain.resources is None:
        return ""
    if domain.resources.overcommit_guest_overhead:
        return "the VM's resources.overcommitGuestOverhead"
    guest = parse_bytes(domain.memory.guest) if domain.memory is not None and domain.memory.guest is not None else None
    requests = domain.resources.requests
    requested = parse_bytes(requests.memory) if requests is not None and requests.memory is not None else None
    return "the VM's resources.requests.memory" if guest and requested and requested < guest else ""


def _node_terms(affinity: projection._Affinity | None) -> tuple[LabelSelector, ...]:
    """The alternatives of the required node affinity; comparisons of numbers exclude nothing."""
    if affinity is None or affinity.node_affinity is None or affinity.node_affinity.required is None:
        return ()
    return tuple(
        LabelSelector(
            match_expressions=[
                LabelSelectorRequirement.model_construct(key=one.key, operator=cast("Any", one.operator), values=one.values)
                for one in term.match_expressions
                if one.operator in _OPERATORS
            ]
        )
        for term in affinity.node_affinity.required.node_selector_terms
    )


def _live_mac(instance: Instance | None, name: str) -> str | None:
    if instance is None:
        return None
    spec = next((nic.mac_address for nic in instance.spec.domain.devices.interfaces if nic.name == name), None)
    return spec or next((nic.mac for nic in instance.status.interfaces if nic.name == name and nic.mac), None)


def _problems(given: MachineInput, record: Record | None) -> tuple[str, ...]:
    """What the VM refers to and is not there, and what it says that cannot be understood."""
    spec = given.machine.spec
    found = []
    wishes = given.machine.metadata.annotations
    if wishes is not None and wishes.network_pressure not in (None, *_PRESSURES):
        found.append(f"annotation vmnic.dev/network-pressure is {wishes.network_pressure!r}, it may be High or Low")
    if wishes is not None and wishes.restart not in (None, "Never"):
        found.append(f"annotation vmnic.dev/restart is {wishes.restart!r}, it may be Never")
    if wishes is not None and wishes.assigned is not None and record is None:
        found.append("annotation vmnic.dev/assigned cannot be read: remove it, vmnic writes it anew")
    if spec.preference is not None and spec.preference.name and given.preference is None:
        found.append(f"preference {spec.preference.name} is not there, its NIC model and guest system are not known")
    if spec.instancetype is not None and spec.instancetype.name and given.instancetype is None:
        found.append(f"instancetype {spec.instancetype.name} is not there, its vCPUs are not known")
    for network in spec.template.spec.networks:
        if network.multus is not None:
            namespace, _, name = network.multus.network_name.rpartition("/")
            namespace = namespace or given.machine.metadata.namespace
            if given.find_network(namespace, name) is None:
                found.append(f"NetworkAttachmentDefinition {namespace}/{name} is not there")
    return tuple(found)
