"""Inputs of a decision that cannot be read.

An unknown input never counts as "no". The NIC stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection

from .checks import Finding
from .facts import ClusterFacts, Datapath, NicFacts, VmFacts
from .reasons import Reason
from .types import Candidate

__all__ = ["unknown_candidate", "unknown_input"]

_BY_KUBEVIRT = frozenset(
    {
        Reason.EVICTION_STRATEGY_BLOCKS_DRAIN,
        Reason.PLUGIN_NOT_REGISTERED,
        Reason.FEATURE_GATE_OFF,
        Reason.HOST_DEVICE_NOT_PERMITTED,
        Reason.HOST_DEVICE_PROVIDER_CONFLICT,
        Reason.NET_RESOURCE_INJECTOR_MISSING,
        Reason.MEMORY_OVERCOMMIT,
    }
)
"""Reasons that depend on the KubeVirt resource."""
_BY_INSTANCETYPE = frozenset({Reason.INSTANCETYPE_OWNS_FIELD, Reason.MEMORY_OVERCOMMIT})
"""Reasons that depend on the VM's instancetype."""
_NEEDS_KUBEVIRT = (Datapath.MACVTAP, Datapath.SRIOV, Datapath.PASSTHROUGH)


def unknown_input(vm: VmFacts, nic: NicFacts, cluster: ClusterFacts) -> Finding | None:
    """Return a finding if an input for every datapath of the NIC cannot be read."""
    if vm.unknown:
        return Finding(Reason.INPUT_UNREADABLE, vm.unknown)
    if nic.stays is not None:
        return Finding(*nic.stays)
    # Only these have a model, which is the preference's unless the VM itself names one.
    has_model = nic.present.datapath.is_bridged or nic.present.datapath is Datapath.MACVTAP
    if vm.preference_unknown and has_model and nic.explicit_model is None:
        return Finding(Reason.PREFERENCE_UNKNOWN, vm.preference_unknown)
    # An unreadable network of the segment may be the first one that offers a datapath.
    network = next((one for one in (nic.network, *nic.equivalents) if one.unreadable), None)
    if network is not None:
        text = f"NetworkAttachmentDefinition {network.namespace}/{network.name} cannot be read: {network.unreadable}"
        return Finding(Reason.INPUT_UNREADABLE, text)
    if nic.index is None and cluster.kubevirt.unreadable:
        # KubeVirt's configuration decides the binding of the NIC that KubeVirt adds by default.
        return _kubevirt_unknown(cluster)
    return None


def unknown_candidate(vm: VmFacts, found: Collection[Candidate], cluster: ClusterFacts) -> Finding | None:
    """Return a finding if an input for a candidate cannot be read.

    Candidates after the one that would be chosen do not matter.
    """
    preference_unknown = Finding(Reason.PREFERENCE_UNKNOWN, vm.preference_unknown) if vm.preference_unknown else None
    # Only `auto` has no candidates at all, and only for a guest that is unknown.
    if not found:
        return preference_unknown
    for one in found:
        reason = one.finding.reason if one.finding is not None else None
        # Without the KubeVirt resource its defaults were checked, so neither a finding nor the lack of one counts. No
        # configuration takes away the datapath that a NIC has.
        is_open = not one.is_current and reason is None
        by_kubevirt = one.datapath in _NEEDS_KUBEVIRT and (is_open or reason in _BY_KUBEVIRT)
        if cluster.kubevirt.unreadable and by_kubevirt:
            return _kubevirt_unknown(cluster)
        if preference_unknown is not None and reason is Reason.GUEST_OS_UNKNOWN:
            return preference_unknown
        by_instancetype = one.datapath.needs_device and (is_open or reason in _BY_INSTANCETYPE)
        if vm.instancetype_unknown and by_instancetype:
            return Finding(Reason.PREFERENCE_UNKNOWN, vm.instancetype_unknown)
        by_quota = one.datapath.needs_device and (is_open or reason is Reason.QUOTA_EXCEEDED)
        if vm.quota_unknown and by_quota:
            return Finding(Reason.INPUT_UNREADABLE, vm.quota_unknown)
        if vm.architecture.unknown and one.datapath is Datapath.EMULATED and is_open:
            return Finding(Reason.INPUT_UNREADABLE, vm.architecture.unknown)
        if reason is None:
            return None
    return None


def _kubevirt_unknown(cluster: ClusterFacts) -> Finding:
    return Finding(Reason.INPUT_UNREADABLE, f"the KubeVirt resource cannot be read: {cluster.kubevirt.unreadable}")
