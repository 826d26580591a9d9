"""Checks that a NIC stays on its layer-2 network.

A change of datapath must never move a NIC to another network.
"""

from __future__ import annotations

from ..facts import ClusterFacts, Datapath, Network, NicState, Platform
from ..guest_mtu import guest_mtu
from ..reasons import Reason
from .check_input import CheckInput, Finding

__all__ = [
    "admit_cannot_change_network",
    "guest_mtu_changes",
    "ipam_not_carried",
    "mtu_differs",
    "no_equivalent_network",
    "pod_network",
]
_DEFAULT_MTU = 1500


def pod_network(question: CheckInput) -> Finding | None:
    """Exclude datapaths that the pod network cannot have.

    The pod network can be emulated, virtio or vhost only.
    """
    if not question.nic.network.pod or question.nic.present.datapath is Datapath.PASSTHROUGH:
        return None
    text = f"NIC {question.nic.name} is on the pod network, but {question.datapath} needs a secondary network"
    return Finding(Reason.POD_NETWORK, text)


def no_equivalent_network(question: CheckInput) -> Finding | None:
    """Exclude a datapath that no network of the NIC's segment offers."""
    nic = question.nic
    if question.is_current or not question.moves:
        return None
    where = "the pod network" if nic.network.pod else f"network {nic.network.namespace}/{nic.network.name}".rstrip("/")
    if nic.present.datapath is Datapath.OTHER:
        text = f"NIC {nic.name} has a binding that vmnic does not change ({nic.binding or 'other'})"
        if nic.state == "absent":
            text = f"NIC {nic.name} is being removed (`state: absent`), so vmnic does not change it"
        return Finding(Reason.NO_EQUIVALENT_NETWORK, text)
    if nic.present.datapath is Datapath.PASSTHROUGH and (question.vm.platform is Platform.LIBVIRT or not nic.network.name):
        return Finding(Reason.NO_EQUIVALENT_NETWORK, f"the network that NIC {nic.name} used before passthrough is unknown")
    # A whole NIC has no network object. The policy that names its pool confirms the segment.
    if question.target is not None or question.datapath is Datapath.PASSTHROUGH:
        return None
    label = f" with the label vmnic.dev/segment: {nic.network.segment}" if nic.network.segment else ""
    text = f"{where} of NIC {nic.name} has no {question.datapath} network{label}: create one"
    return Finding(Reason.NO_EQUIVALENT_NETWORK, text)


def ipam_not_carried(question: CheckInput) -> Finding | None:
    """Exclude a change with which the guest would lose its IP address.

    Only KubeVirt's bridge binding hands the address that `ipam` assigns to the guest.
    """
    old, new = question.nic.network, question.target
    if not question.moves or question.accepts(Reason.IPAM_NOT_CARRIED):
        return None
    if old.ipam and question.nic.present.datapath.is_bridged and not question.datapath.is_bridged:
        text = f"{_name(old)} assigns the guest's address, and {question.datapath} does not hand it over: use a DHCP server"
        return Finding(Reason.IPAM_NOT_CARRIED, text)
    if new is None or old.ipam == new.ipam:
        return None
    text = (
        f"{_name(old)} and {_name(new)} assign IP addresses differently: make their ipam equal, or accept it with an annotation"
    )
    return Finding(Reason.IPAM_NOT_CARRIED, text)


def mtu_differs(question: CheckInput) -> Finding | None:
    """Exclude a network with another MTU.

    An MTU that changes unexpectedly has cost whole clusters their connections (KubeVirt #18845).
    """
    old, new = question.nic.network, question.target
    if new is None or not question.moves or question.accepts(Reason.MTU_DIFFERS):
        return None
    before, after = _mtus(old, new, question.cluster)
    if before == after:
        return None
    return Finding(Reason.MTU_DIFFERS, f"{_name(old)} has an MTU of {before}, but {_name(new)} of {after}: make them equal")


def guest_mtu_changes(question: CheckInput) -> Finding | None:
    """Exclude a datapath with which the guest would use another MTU than today.

    The network may stay the same: 5,000 VMs lost their connections when e1000e, which ignores the network's MTU, became virtio,
    which uses it (KubeVirt #18845).
    """
    nic, vm = question.nic, question.vm
    if nic.network.pod or question.accepts(Reason.GUEST_MTU_CHANGES):
        return None
    model = question.rule.emulated_model if question.datapath is Datapath.EMULATED else "virtio"
    new = NicState(datapath=question.datapath, model=None if question.datapath.needs_device else model)
    before = guest_mtu(vm, nic, nic.present, nic.network)
    after = guest_mtu(vm, nic, new, question.target)
    if before is None or after is None or before == after:
        return None
    reason = Reason.GUEST_MTU_CHANGES
    # A device that ignores the network's MTU keeps 1500, so only a network with 1500 suits it.
    common = _DEFAULT_MTU if _DEFAULT_MTU in (before, after) else before
    text = f"the guest's MTU would change from {before} to {after}: make the network's mtu {common}, or accept {reason}"
    return Finding(reason, text)


def admit_cannot_change_network(question: CheckInput) -> Finding | None:
    """Exclude a change of network under `action: Admit`.

    KubeVirt copies networks back from the VM to its VMI.
    """
    if question.effective_rule.action != "Admit" or not question.moves:
        return None
    text = f"{question.datapath} needs another network entry, but action Admit changes only model and queues"
    return Finding(Reason.ADMIT_CANNOT_CHANGE_NETWORK, text)


def _mtus(old: Network, new: Network, cluster: ClusterFacts) -> tuple[int, int]:
    """Return the MTUs that guests use on both networks.

    An MTU is the configured one, else the pool's, else 1500. If neither network configures one, both are 1500.
    """
    if old.mtu is None and new.mtu is None:
        return _DEFAULT_MTU, _DEFAULT_MTU

    def of(network: Network) -> int:
        pool = cluster.resources.get(network.resource_name)
        return network.mtu or (pool.mtu if pool is not None else None) or _DEFAULT_MTU

    return of(old), of(new)


def _name(network: Network) -> str:
    return f"{network.namespace}/{network.name}"
