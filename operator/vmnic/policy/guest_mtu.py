"""MTU that a guest uses."""

from __future__ import annotations

from .facts import Datapath, GuestOs, Network, NicFacts, NicState, Platform, VmFacts

__all__ = ["guest_mtu", "static_mtu"]

_ETHERNET_MTU = 1500


def guest_mtu(vm: VmFacts, nic: NicFacts, state: NicState, network: Network | None) -> int | None:
    """Return the MTU that the guest uses, in bytes.

    A virtio driver reads the MTU of its tap device. Emulated models do not tell it (KubeVirt #18845), but KubeVirt's DHCP does
    by option 26, which Windows ignores. igbvf starts with 1500, even if the PF has more. None if it is unknown.
    """
    match state.datapath:
        case Datapath.SRIOV | Datapath.PASSTHROUGH:
            return _ETHERNET_MTU
        case Datapath.OTHER:
            return None
        case Datapath.MACVTAP if vm.platform is Platform.LIBVIRT:
            return _ETHERNET_MTU
    if not _has_kubevirt_dhcp(vm, nic, state, network) or vm.guest_os is GuestOs.WINDOWS:
        return static_mtu(state, network)
    configured = network.mtu if network is not None else None
    is_virtio = (state.model or "").startswith("virtio")
    return configured if is_virtio or vm.guest_os is GuestOs.LINUX else None


def static_mtu(state: NicState, network: Network | None) -> int | None:
    """Return the MTU of a guest that asks no DHCP server, in bytes, on a datapath with a tap device."""
    if (state.model or "").startswith("virtio"):
        return network.mtu if network is not None else None
    return _ETHERNET_MTU


def _has_kubevirt_dhcp(vm: VmFacts, nic: NicFacts, state: NicState, network: Network | None) -> bool:
    """Return whether KubeVirt's own DHCP server configures the guest.

    It does so with masquerade, and with a bridge whose network has `ipam`.
    """
    if vm.platform is Platform.LIBVIRT or not state.datapath.is_bridged or network is None:
        return False
    return nic.binding == "masquerade" or network.pod or bool(network.ipam)
