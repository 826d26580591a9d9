"""KubeVirt's objects become the facts of one VM, with its preference and instancetype applied as KubeVirt does.

Explicit values of the VM always win over a preference, and nothing of a preference is ever written to the VM.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..policy.facts import Datapath, Network, NicFacts, NicState, VmFacts
from .guest_os import read_guest_os
from .projection import Instance, Instancetype, Interface, Machine, NetworkDefinition, Preference
from .quantity import parse_bytes

__all__ = ["MachineInput", "gather_vm_facts"]

_VIRTIO = "virtio"
_PRESSURES = ("High", "Low")
_MAX_QUEUES = 256
"""KubeVirt's cap, which is the kernel's limit for a tap device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineInput:
    """One VM and what belongs to it; None for what does not exist."""

    machine: Machine
    instance: Instance | None = None
    preference: Preference | None = None
    instancetype: Instancetype | None = None
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    find_network: Callable[[str, str], NetworkDefinition | None] = lambda namespace, name: None  # noqa: ARG005 - finds none
    """Looks a NetworkAttachmentDefinition up by namespace and name."""
    is_new: bool = False
    counts_as_running: bool = False
    """Offline only: no VMI is given, and the spec says that it runs."""


def gather_vm_facts(given: MachineInput) -> VmFacts:
    """Read the facts of one VM."""
    machine, preference = given.machine, given.preference
    instance = given.instance if given.instance is not None and not given.instance.final else None
    guest_os, source = read_guest_os(machine, instance, preference)
    queues = _virtio_queues(given)
    return VmFacts(
        namespace=machine.metadata.namespace,
        name=machine.metadata.name or machine.metadata.generate_name,
        labels=machine.metadata.labels,
        namespace_labels=given.namespace_labels,
        guest_os=guest_os,
        guest_os_source=source,
        nics=_nics(given, instance, queues),
        running=instance is not None or given.counts_as_running,
        is_new=given.is_new,
        virtio_queues=queues,
        multiqueue=machine.spec.template.spec.domain.devices.network_interface_multiqueue,
        applier=machine.applier,
        vcpus=_vcpus(given),
        memory_bytes=_memory_bytes(given),
        excluded=(wishes := machine.metadata.annotations) is not None and wishes.exclude == "true",
        pressure=wishes.network_pressure if wishes is not None and wishes.network_pressure in _PRESSURES else "",
        problems=_problems(given),
    )


def _nics(given: MachineInput, instance: Instance | None, queues: int) -> tuple[NicFacts, ...]:
    spec = given.machine.spec.template.spec
    devices = spec.domain.devices
    if not devices.interfaces and not spec.networks:
        if devices.autoattach_pod_interface is False:
            return ()
        return (_implicit_nic(given, instance, queues),)
    networks = {network.name: network for network in spec.networks}
    found = []
    for index, interface in enumerate(devices.interfaces):
        network = networks.get(interface.name)
        multus = network.multus.network_name if network is not None and network.multus is not None else ""
        where = _network(given, multus) if network is not None and network.pod is None else Network(pod=True)
        found.append(_nic(given, interface, where, instance, index=index, queues=queues))
    return tuple(found)


def _nic(
    given: MachineInput, interface: Interface, network: Network, instance: Instance | None, *, index: int, queues: int
) -> NicFacts:
    return NicFacts(
        name=interface.name,
        network=network,
        present=_present(interface, given.preference, queues),
        index=index,
        explicit_model=interface.model or None,
        spec_mac=interface.mac_address or None,
        live_mac=_live_mac(instance, interface.name),
        live_model=_live_model(instance, interface.name),
    )


def _implicit_nic(given: MachineInput, instance: Instance | None, queues: int) -> NicFacts:
    """The NIC that KubeVirt adds on the pod network when both lists are empty."""
    name = "default"
    return NicFacts(
        name=name,
        network=Network(pod=True),
        present=_present(Interface(name=name, bridge={}), given.preference, queues),
        live_mac=_live_mac(instance, name),
        live_model=_live_model(instance, name),
    )


def _present(interface: Interface, preference: Preference | None, queues: int) -> NicState:
    """What the spec makes of a NIC: `sriov` has no model, an empty model is the preference's, else virtio."""
    if interface.sriov is not None:
        return NicState(datapath=Datapath.SRIOV)
    preferred = preference.spec.devices.preferred_interface_model if preference is not None else None
    model = interface.model or preferred or _VIRTIO
    if interface.binding is not None or interface.passt_binding is not None:
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


def _network(given: MachineInput, reference: str) -> Network:
    """Read a Multus network name, `name` or `namespace/name`."""
    namespace, _, name = reference.rpartition("/")
    namespace = namespace or given.machine.metadata.namespace
    definition = given.find_network(namespace, name)
    return Network(namespace=namespace, name=name, resource_name=definition.resource_name if definition else "")


def _live_mac(instance: Instance | None, name: str) -> str | None:
    if instance is None:
        return None
    spec = next((nic.mac_address for nic in instance.spec.domain.devices.interfaces if nic.name == name), None)
    return spec or next((nic.mac for nic in instance.status.interfaces if nic.name == name and nic.mac), None)


def _live_model(instance: Instance | None, name: str) -> str | None:
    if instance is None:
        return None
    return next((nic.model or _VIRTIO for nic in instance.spec.domain.devices.interfaces if nic.name == name), None)


def _problems(given: MachineInput) -> tuple[str, ...]:
    """What the VM refers to and is not there."""
    spec = given.machine.spec
    found = []
    wishes = given.machine.metadata.annotations
    if wishes is not None and wishes.network_pressure not in (None, *_PRESSURES):
        found.append(f"annotation vmnic.dev/network-pressure is {wishes.network_pressure!r}, it may be High or Low")
    if spec.preference is not None and spec.preference.name and given.preference is None:
        found.append(f"preference {spec.preference.name} is not there, its NIC model and guest system are not known")
    if spec.instancetype is not None and spec.instancetype.name and given.instancetype is None:
        found.append(f"instancetype {spec.instancetype.name} is not there, its vCPUs are not known")
    return tuple(found)
