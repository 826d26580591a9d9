"""The layers that a packet passes between a guest and the physical port, for one NIC. Pure.

The emulated datapath has the most layers. Every other datapath leaves some of them out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from .facts import ClusterFacts, Datapath, GuestOs, NicFacts, Platform, VmFacts
from .sentences import join_sentences

__all__ = ["Layer", "LayerKind", "LayerState", "Place", "Port", "path_of"]

_MOST_NAMES = 3
"""Most ports that one layer names."""
_LINUX_DRIVERS = {"ne2k_pci": "ne2k-pci", "pcnet": "pcnet32", "rtl8139": "8139cp"}
"""Drivers of Linux whose names differ from QEMU's name of the model."""


class Place(StrEnum):
    """Where a layer runs."""

    GUEST = "Guest"
    QEMU = "Qemu"
    HOST_KERNEL = "HostKernel"
    NIC = "Nic"


class LayerKind(StrEnum):
    """What a layer is."""

    DRIVER = "Driver"
    """The guest's driver."""
    EMULATION = "Emulation"
    """QEMU's emulation of a hardware device."""
    BACKEND = "Backend"
    """QEMU's thread that copies packets."""
    VHOST = "Vhost"
    """The kernel's thread that copies packets in QEMU's place."""
    TAP = "Tap"
    BINDING = "Binding"
    """What connects the tap device to the network inside a pod of KubeVirt."""
    NETWORK = "Network"
    """The network of the host, for example a bridge."""
    HOST_DRIVER = "HostDriver"
    """The host's driver of the NIC."""
    FUNCTION = "Function"
    """The PCI function that the guest drives itself."""
    PORT = "Port"
    """The physical port."""

    @property
    def place(self) -> Place:
        """Return where a layer of this kind runs."""
        return _PLACES[self]


_PLACES = {
    LayerKind.DRIVER: Place.GUEST,
    LayerKind.EMULATION: Place.QEMU,
    LayerKind.BACKEND: Place.QEMU,
    LayerKind.VHOST: Place.HOST_KERNEL,
    LayerKind.TAP: Place.HOST_KERNEL,
    LayerKind.BINDING: Place.HOST_KERNEL,
    LayerKind.NETWORK: Place.HOST_KERNEL,
    LayerKind.HOST_DRIVER: Place.HOST_KERNEL,
    LayerKind.FUNCTION: Place.NIC,
    LayerKind.PORT: Place.NIC,
}


class LayerState(StrEnum):
    """Whether a packet passes a layer."""

    USED = "Used"
    LEFT_OUT = "LeftOut"
    UNKNOWN = "Unknown"
    """vmnic does not know whether the layer is there, or which one it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer of a path."""

    kind: LayerKind
    state: LayerState = LayerState.USED
    name: str = ""
    """What it is, for example `e1000e`; empty if it is left out or unknown."""
    text: str = ""
    """What it does with a packet, or why it is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A physical function with devices that a NIC of a VM may have."""

    name: str
    """Link name or PCI address, and model."""
    node: str = ""
    guest_driver: str = ""
    """Linux's driver of its devices inside the guest; empty if unknown."""


@dataclass(frozen=True, slots=True)
class _Question:
    vm: VmFacts
    nic: NicFacts
    cluster: ClusterFacts
    ports: tuple[Port, ...]

    @property
    def model_unknown(self) -> str:
        """Return why the model is unknown, or an empty text."""
        is_preferred = not self.nic.explicit_model and not self.nic.present.datapath.needs_device
        return self.vm.preference_unknown if is_preferred else ""


def path_of(
    vm: VmFacts, nic: NicFacts, cluster: ClusterFacts, ports: Mapping[str, tuple[Port, ...]] | None = None
) -> tuple[Layer, ...]:
    """Return the layers of a NIC's present datapath, from the guest's driver to the physical port.

    Args:
        vm: The VM.
        nic: Its NIC. For another state of the NIC, the caller replaces `present`, `explicit_model` and `network`.
        cluster: Facts about modules and pools.
        ports: Ports that a device of a resource may be on, by resource.
    """
    question = _Question(vm, nic, cluster, (ports or {}).get(nic.present.resource, ()))
    match nic.present.datapath:
        case Datapath.SRIOV | Datapath.PASSTHROUGH:
            return tuple(_device_path(question))
        case Datapath.MACVTAP:
            return tuple(_macvtap_path(question))
        case Datapath.OTHER:
            return tuple(_other_path(question))
        case _:
            return tuple(_bridged_path(question))


def _bridged_path(asked: _Question) -> Iterator[Layer]:
    nic = asked.nic
    yield _driver(asked)
    yield from _hypervisor(asked)
    yield Layer(kind=LayerKind.TAP, name="tap", text="a device of the host kernel whose other end is the guest")
    yield from _binding(asked)
    yield _network(asked)
    yield Layer(kind=LayerKind.HOST_DRIVER, name="NIC driver", text="the host's driver sends and receives for the guest")
    pod = nic.network.pod and asked.vm.platform is Platform.KUBEVIRT
    why = "the cluster's network chooses it" if pod else "the configuration of the host's network chooses it"
    yield Layer(kind=LayerKind.PORT, state=LayerState.UNKNOWN, text=why)


def _macvtap_path(asked: _Question) -> Iterator[Layer]:
    name = asked.nic.network.name
    yield _driver(asked)
    yield from _hypervisor(asked)
    yield Layer(kind=LayerKind.TAP, name="macvtap", text="a tap device on the NIC itself, without a bridge")
    if asked.vm.platform is Platform.KUBEVIRT:
        yield _left_out(LayerKind.BINDING)
    yield _left_out(LayerKind.NETWORK)
    yield Layer(kind=LayerKind.HOST_DRIVER, name="NIC driver", text="the host's driver sends and receives for the guest")
    if asked.vm.platform is Platform.LIBVIRT and name:
        yield Layer(kind=LayerKind.PORT, name=name, text="the device that the domain names")
    else:
        yield Layer(kind=LayerKind.PORT, state=LayerState.UNKNOWN, text="the configuration of macvtap-cni chooses it")


def _device_path(asked: _Question) -> Iterator[Layer]:
    """Yield the layers of a VF or of a whole NIC."""
    yield _driver(asked)
    for kind in (LayerKind.EMULATION, LayerKind.BACKEND, LayerKind.TAP):
        yield _left_out(kind)
    if asked.vm.platform is Platform.KUBEVIRT:
        yield _left_out(LayerKind.BINDING)
    yield _left_out(LayerKind.NETWORK)
    yield _left_out(LayerKind.HOST_DRIVER)
    resource = asked.nic.present.resource
    pool = asked.cluster.resources.get(resource)
    owner = f" of pool {pool.name}" if pool is not None else f" of {resource}" if resource else ""
    whole = asked.nic.present.datapath is Datapath.PASSTHROUGH
    yield Layer(
        kind=LayerKind.FUNCTION,
        name=f"{'PF' if whole else 'VF'}{owner}",
        text="the NIC reads and writes the guest's memory itself, through the IOMMU",
    )
    yield _port(asked)


def _other_path(asked: _Question) -> Iterator[Layer]:
    """Yield the layers of a binding or device that vmnic does not handle, all of them unknown."""
    why = f"vmnic does not handle the binding {asked.nic.binding}" if asked.nic.binding else "vmnic does not handle this NIC"
    kinds = [LayerKind.DRIVER, LayerKind.EMULATION, LayerKind.BACKEND, LayerKind.TAP]
    kinds += [LayerKind.BINDING] if asked.vm.platform is Platform.KUBEVIRT else []
    for kind in (*kinds, LayerKind.NETWORK, LayerKind.HOST_DRIVER, LayerKind.PORT):
        yield Layer(kind=kind, state=LayerState.UNKNOWN, text=why)


def _left_out(kind: LayerKind) -> Layer:
    return Layer(kind=kind, state=LayerState.LEFT_OUT)


def _driver(asked: _Question) -> Layer:
    """Return the guest's driver, under the name that the guest's system gives it."""
    datapath, model, system = asked.nic.present.datapath, asked.nic.present.model or "", asked.vm.guest_os
    text = asked.model_unknown
    if text:
        return Layer(kind=LayerKind.DRIVER, state=LayerState.UNKNOWN, text=text)
    if datapath.needs_device:
        known = {port.guest_driver for port in asked.ports}
        driver = known.pop() if len(known) == 1 else ""
        what = "PF" if datapath is Datapath.PASSTHROUGH else "VF"
        name = driver if driver and system is GuestOs.LINUX else f"driver of the {what}"
        text = f"the guest drives the {what} itself, so it needs the driver of that model"
    elif model.startswith("virtio"):
        names = {GuestOs.LINUX: "virtio_net", GuestOs.WINDOWS: "NetKVM", GuestOs.UNKNOWN: "virtio driver"}
        name, text = names[system], "it puts packets into memory that it shares with the host"
    else:
        name = _LINUX_DRIVERS.get(model, model) if system is GuestOs.LINUX else f"{model} driver"
        text = "it writes registers of the device, as for hardware"
    return Layer(kind=LayerKind.DRIVER, name=name, text=text)


def _hypervisor(asked: _Question) -> Iterator[Layer]:
    """Yield the layers that take packets from the guest, in QEMU or in the host kernel."""
    if asked.model_unknown:
        for kind in (LayerKind.EMULATION, LayerKind.BACKEND, LayerKind.VHOST):
            yield Layer(kind=kind, state=LayerState.UNKNOWN, text=asked.model_unknown)
        return
    state, is_virtio = asked.nic.present, (asked.nic.present.model or "").startswith("virtio")
    if not is_virtio:
        text = "QEMU stands for the hardware: each access of the guest to a register stops its vCPU"
        yield Layer(kind=LayerKind.EMULATION, name=state.model or "", text=text)
    else:
        yield _left_out(LayerKind.EMULATION)
    in_qemu = Layer(kind=LayerKind.BACKEND, name="QEMU", text="a thread of QEMU copies each packet")
    if not is_virtio or state.datapath is Datapath.VIRTIO:
        yield in_qemu
        return
    queues = f"{state.queues} threads of the host kernel, one for each queue, copy" if state.queues > 1 else ""
    text = f"{queues or 'a thread of the host kernel copies'} packets"
    if asked.vm.platform is Platform.KUBEVIRT and asked.cluster.vhost_net is False:
        why = "no known node has the module vhost_net, without which QEMU copies packets"
        yield Layer(kind=LayerKind.BACKEND, state=LayerState.UNKNOWN, text=why)
        yield Layer(kind=LayerKind.VHOST, state=LayerState.UNKNOWN, text=why)
        return
    yield _left_out(LayerKind.BACKEND)
    condition = "" if asked.vm.platform is Platform.KUBEVIRT else "libvirt uses QEMU in its place if the host lacks vhost_net"
    yield Layer(kind=LayerKind.VHOST, name="vhost-net", text=join_sentences(text, condition))


def _binding(asked: _Question) -> Iterator[Layer]:
    if asked.vm.platform is not Platform.KUBEVIRT:
        return
    # Only KubeVirt's configuration says how it binds the NIC that it adds by itself.
    if asked.nic.index is None and asked.cluster.kubevirt.unreadable:
        yield Layer(kind=LayerKind.BINDING, state=LayerState.UNKNOWN, text=asked.cluster.kubevirt.unreadable)
        return
    match asked.nic.binding:
        case "masquerade":
            yield Layer(kind=LayerKind.BINDING, name="bridge, NAT", text="rules of the pod translate the guest's address")
        case "bridge":
            yield Layer(kind=LayerKind.BINDING, name="bridge", text="a bridge inside the pod")
        case _:
            yield Layer(kind=LayerKind.BINDING, state=LayerState.UNKNOWN, text="the binding of this state is not known")


def _network(asked: _Question) -> Layer:
    """Return the network of the host."""
    network = asked.nic.network
    if asked.vm.platform is Platform.LIBVIRT:
        if not network.name:
            return Layer(kind=LayerKind.NETWORK, state=LayerState.UNKNOWN, text="the domain names no bridge and no network")
        return Layer(kind=LayerKind.NETWORK, name=network.name, text="the bridge or network that the domain names")
    name = "/".join(filter(None, (network.namespace, network.name)))
    if network.pod:
        return Layer(kind=LayerKind.NETWORK, name=name or "pod network", text="the cluster's network, up to the node's NIC")
    if not network.known or network.unreadable or not name:
        why = f"the network {name} is not known" if name else "the network of this state is not known"
        return Layer(kind=LayerKind.NETWORK, state=LayerState.UNKNOWN, text=why)
    plugin = f"the CNI plugin {network.cni_type}" if network.cni_type else "its CNI plugin"
    return Layer(kind=LayerKind.NETWORK, name=name, text=f"made by {plugin} on the node")


def _port(asked: _Question) -> Layer:
    """Return the port of a device. Before the VM starts, it is one of several."""
    if not asked.ports:
        return Layer(kind=LayerKind.PORT, state=LayerState.UNKNOWN, text="no port with such devices is known")
    nodes = {port.node for port in asked.ports}
    where = f" on {next(iter(nodes))}" if len(nodes) == 1 and "" not in nodes else ""
    names = tuple(dict.fromkeys(port.name for port in asked.ports))
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    text = "" if where else f"the node on which the VM starts decides ({len(nodes)} nodes have such devices)"
    return Layer(kind=LayerKind.PORT, name=" or ".join(names[:_MOST_NAMES]) + more + where, text=text)
