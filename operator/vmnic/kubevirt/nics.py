"""NICs of one VM, as in its spec and as in its VMI, with the preference applied."""

from __future__ import annotations

from ..policy.facts import Datapath, Network, NicFacts, NicState
from . import vm as projection
from .assignment import AssignmentRecord
from .carried import nic_settings
from .inputs import MachineInput
from .networks import original_interface, original_network
from .vm import Interface
from .vmi import VirtualMachineInstance

__all__ = ["MAX_QUEUES", "NicReader"]

_VIRTIO = "virtio"
_MACVTAP = "macvtap"
_CLAIM = "resourceClaim, a device of DRA"
"""What a NIC on a network of a ResourceClaim is bound to. KubeVirt connects such a network to a VF that DRA allocates."""
MAX_QUEUES = 256
"""KubeVirt's cap, which is the kernel's limit for a tap device."""


class NicReader:
    """Reads the NICs of one VM."""

    def __init__(
        self, given: MachineInput, instance: VirtualMachineInstance | None, queues: int, record: AssignmentRecord | None
    ) -> None:
        self._given = given
        self._instance = instance
        self._queues = queues
        self._record = record
        self._spec = given.machine.spec.template.spec

    def all(self) -> tuple[NicFacts, ...]:
        """Return the NICs in their order, interfaces first, then host devices that are whole NICs."""
        devices = self._spec.domain.devices
        # KubeVirt adds its default NIC only if both lists are empty.
        if not devices.interfaces and not self._spec.networks:
            return (*self._implicit(), *self._whole_nics())
        networks = {network.name: network for network in self._spec.networks}
        return (
            *(self._nic(interface, networks.get(interface.name), index) for index, interface in enumerate(devices.interfaces)),
            *self._whole_nics(),
        )

    def _implicit(self) -> tuple[NicFacts, ...]:
        """Return the NIC that KubeVirt adds on the pod network by default.

        A preference does not change its binding.
        """
        if self._given.autoattach is False:
            return ()
        masquerade = self._given.default_binding == "masquerade"
        interface = Interface(name="default", masquerade={}) if masquerade else Interface(name="default", bridge={})
        return (self._nic(interface, None, None),)

    def _nic(self, interface: Interface, entry: projection.Network | None, index: int | None) -> NicFacts:
        name, network = interface.name, self._network(entry)
        return NicFacts(
            name=name,
            network=network,
            equivalents=self._equivalents(network),
            present=NicState(datapath=Datapath.OTHER) if _is_claim(entry) else self._present(interface, network),
            index=index,
            binding=_CLAIM if _is_claim(entry) else _binding(interface),
            explicit_model=interface.model or None,
            state=interface.state or "",
            settings=nic_settings(
                interface,
                boots_first=self._boots_first(interface),
                unknown=self._given.machine.unknown_fields.get(name, ()),
            ),
            has_fixed_slot=bool(interface.pci_address),
            spec_mac=interface.mac_address or None,
            live_mac=_live_mac(self._instance, name),
            live_queues=_live_queues(self._instance, name),
            live=self._live(name),
        )

    def _boots_first(self, interface: Interface) -> bool:
        """Return whether no other device comes before the interface in the boot order."""
        devices = self._spec.domain.devices
        orders = [one.boot_order for one in devices.disks] + [one.boot_order for one in devices.interfaces]
        return bool(interface.boot_order) and interface.boot_order == min(filter(None, orders))

    def _whole_nics(self) -> tuple[NicFacts, ...]:
        """Return host devices that replaced a NIC through vmnic, or that belong to a pool of whole NICs."""
        found = []
        recorded = self._record.nics if self._record is not None else {}
        for index, device in enumerate(self._spec.domain.devices.host_devices):
            entry = recorded.get(device.name)
            # A tenant may edit both the record and the device, so they must agree.
            ours = entry is not None and entry.datapath == Datapath.PASSTHROUGH and entry.resource == device.device_name
            if not ours and device.device_name not in self._given.physical_resources:
                continue
            before = original_network(entry.was) if entry is not None and ours else None
            # A change back restores the interface, and must not lose what it had.
            interface = original_interface(entry.was) if entry is not None and ours else None
            # Without a record nothing shows which network the NIC was on.
            network = self._network(before) if before is not None else Network(known=False)
            state = NicState(datapath=Datapath.PASSTHROUGH, resource=device.device_name)
            found.append(
                NicFacts(
                    name=device.name,
                    network=network,
                    equivalents=self._equivalents(network),
                    present=state,
                    index=index,
                    settings=nic_settings(interface, boots_first=False) if interface is not None else {},
                    spec_mac=interface.mac_address or None if interface is not None else None,
                    live=state if self._runs_device(device) else None,
                )
            )
        return tuple(found)

    def _runs_device(self, device: projection.HostDevice) -> bool:
        return self._instance is not None and device in self._instance.spec.domain.devices.host_devices

    def _network(self, entry: projection.Network | None) -> Network:
        """Return the network of a NIC.

        A Multus network that replaces the pod network counts as the pod network.
        """
        if entry is None or entry.pod is not None:
            return Network(pod=True, mtu=self._given.pod_network_mtu)
        if entry.multus is None:
            return Network(known=False, name=entry.name)
        found = self._find(entry.multus.network_name)
        if entry.multus.default:
            return Network(pod=True, namespace=found.namespace, name=found.name, resource_name=found.resource_name)
        return found

    def _find(self, reference: str) -> Network:
        """Find a Multus network by `name` or `namespace/name`."""
        namespace, _, name = reference.rpartition("/")
        namespace = namespace or self._given.machine.metadata.namespace
        return self._given.find_network(namespace, name) or Network(namespace=namespace, name=name, known=False)

    def _equivalents(self, network: Network) -> tuple[Network, ...]:
        """Return networks of the same segment.

        They are in the VM's namespace or in the namespace of the present network.
        """
        if network.pod or not network.known:
            return ()
        if not network.segment:
            return (network,)
        namespaces = {self._given.machine.metadata.namespace, network.namespace}
        found = [one for namespace in namespaces for one in self._given.find_segment(namespace, network.segment)]
        return tuple(sorted(found, key=lambda one: (one.name, one.namespace)))

    def _present(self, interface: Interface, network: Network) -> NicState:
        """Return the state of a NIC in the spec.

        `sriov` has no model. An empty model is the preference's, else virtio.
        """
        preference = self._given.preference
        preferred = preference.spec.devices.preferred_interface_model if preference is not None else None
        plugin = (interface.binding.name or "other") if interface.binding is not None else ""
        # KubeVirt unplugs such a NIC from the running VM, so it is left alone.
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
        """Return the state of a NIC in the VMI, or None if it is not there."""
        if self._instance is None:
            return None
        spec = self._instance.spec
        interface = next((one for one in spec.domain.devices.interfaces if one.name == name), None)
        if interface is None:
            return None
        entry = next((one for one in spec.networks if one.name == name), None)
        if _is_claim(entry):
            return NicState(datapath=Datapath.OTHER)
        resource = self._network(entry).resource_name if interface.sriov is not None else ""
        cpu = spec.domain.cpu
        several = spec.domain.devices.network_interface_multiqueue
        # KubeVirt has applied preference and instancetype to the instance, so its own values are final.
        queues = min(cpu.vcpus if cpu is not None else 1, MAX_QUEUES) if several else 1
        odd = "other" if interface.passt_binding is not None else ""
        plugin = (interface.binding.name or "other") if interface.binding is not None else odd
        return _state(interface.model or _VIRTIO, queues, resource, sriov=interface.sriov is not None, plugin=plugin)


_ODD = frozenset({"passtBinding", "slirp", "macvtap", "passt"})


def _is_odd(interface: Interface) -> bool:
    """Return whether an interface has an old binding, or one that is not a plain tap device."""
    return not _ODD.isdisjoint(interface.bindings)


def _is_claim(entry: projection.Network | None) -> bool:
    """Return whether a network is a device of a ResourceClaim, which DRA allocates."""
    return entry is not None and entry.resource_claim is not None


def _binding(interface: Interface) -> str:
    """Return the binding of an interface, or an empty string if it has none."""
    if interface.binding is not None:
        return interface.binding.name or "binding"
    return next(iter(interface.bindings), "")


def _state(model: str, queues: int, resource: str, *, sriov: bool, plugin: str) -> NicState:
    if sriov:
        return NicState(datapath=Datapath.SRIOV, resource=resource)
    if plugin == _MACVTAP:
        return NicState(datapath=Datapath.MACVTAP, model=model, queues=queues if model == _VIRTIO else 1)
    if plugin:
        return NicState(datapath=Datapath.OTHER, model=model, queues=queues if model == _VIRTIO else 1)
    if model == _VIRTIO:
        return NicState(datapath=Datapath.VHOST, model=model, queues=queues)
    return NicState(datapath=Datapath.EMULATED, model=model)


def _live_mac(instance: VirtualMachineInstance | None, name: str) -> str | None:
    if instance is None:
        return None
    spec = next((nic.mac_address for nic in instance.spec.domain.devices.interfaces if nic.name == name), None)
    # An address that KubeVirt generates is in the status only.
    return spec or next((nic.mac for nic in instance.status.interfaces if nic.name == name and nic.mac), None)


def _live_queues(instance: VirtualMachineInstance | None, name: str) -> int | None:
    """Return the number of queues that KubeVirt reports for a running NIC."""
    reported = instance.status.interfaces if instance is not None else ()
    return next((nic.queue_count for nic in reported if nic.name == name and 0 < nic.queue_count <= MAX_QUEUES), None)
