"""One function a rule: facts in, a finding or None out. A check never raises and relies on no other having run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .facts import ClusterFacts, Datapath, NicFacts, VmFacts
from .reasons import Reason

__all__ = ["CHECKS", "Finding", "Question"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a candidate falls out."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Could this NIC have this datapath?"""

    vm: VmFacts
    nic: NicFacts
    cluster: ClusterFacts
    datapath: Datapath


def no_equivalent_network(question: Question) -> Finding | None:
    """A VF or a plugin's NIC is on a network that an emulated or virtio NIC does not reach."""
    nic = question.nic
    if nic.present.datapath in (question.datapath, Datapath.EMULATED, Datapath.VHOST):
        return None
    where = f"network {nic.network.namespace}/{nic.network.name}" if not nic.network.pod else "the pod network"
    return Finding(
        Reason.NO_EQUIVALENT_NETWORK, f"{where} of NIC {nic.name} is not offered over {question.datapath}; it keeps its network"
    )


def no_vhost_net(question: Question) -> Finding | None:
    """KubeVirt's pods ask for /dev/vhost-net; without it on any node the VM stays Pending."""
    if question.cluster.vhost_net is not False:
        return None
    return Finding(Reason.NO_VHOST_NET, "no node has the kernel module vhost_net: load it, or the VM would stay Pending")


CHECKS: dict[Datapath, tuple[Callable[[Question], Finding | None], ...]] = {
    Datapath.EMULATED: (no_equivalent_network,),
    Datapath.VHOST: (no_equivalent_network, no_vhost_net),
}
"""For each datapath its checks, in the order of the reasons."""
