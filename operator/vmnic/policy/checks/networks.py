"""Checks that a NIC stays on its layer-2 network.

A change of datapath must never move a NIC to another network.
"""

from __future__ import annotations

from ..facts import ClusterFacts, Datapath, Network, Platform
from ..reasons import Reason
from .check_input import CheckInput, Finding

__all__ = ["admit_cannot_change_network", "ipam_not_carried", "mtu_differs", "no_equivalent_network", "pod_network"]
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
    if nic.present.datapath is Datapath.PASSTHROUGH and question.vm.platform is Platform.LIBVIRT:
        return Finding(Reason.NO_EQUIVALENT_NETWORK, f"the network that NIC {nic.name} used before passthrough is unknown")
    if question.datapath.needs_device and nic.state == "down":
        text = f"NIC {nic.name} has `state: down`, which {question.datapath} cannot have: its link would come up"
        return Finding(Reason.NO_EQUIVALENT_NETWORK, text)
    # A whole NIC has no network object. The policy that names its pool confirms the segment.
    if question.target is not None or question.datapath is Datapath.PASSTHROUGH:
        return None
    label = f" with the label vmnic.dev/segment: {nic.network.segment}" if nic.network.segment else ""
    text = f"{where} of NIC {nic.name} has no {question.datapath} network{label}: create one"
    return Finding(Reason.NO_EQUIVALENT_NETWORK, text)


def ipam_not_carried(question: CheckInput) -> Finding | None:
    """Exclude a network that manages IP addresses differently.

    Addresses that only one of the two networks assigns would be lost.
    """
    old, new = question.nic.network, question.target
    if (
        new is None
        or not question.moves
        or old.ipam == new.ipam
        or Reason.IPAM_NOT_CARRIED.value in (*old.accepts, *new.accepts)
    ):
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
    if new is None or not question.moves or Reason.MTU_DIFFERS.value in (*old.accepts, *new.accepts):
        return None
    before, after = _mtus(old, new, question.cluster)
    if before == after:
        return None
    return Finding(Reason.MTU_DIFFERS, f"{_name(old)} has an MTU of {before}, but {_name(new)} of {after}: make them equal")


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
