"""Checks of each datapath, in the order of `Reason`.

The first finding is the one that is reported.
"""

from __future__ import annotations

from ..facts import Datapath, Platform
from . import guests, networks, platform, properties
from .check_input import Check, CheckInput, Finding
from .platform import binding_missing

__all__ = ["CheckInput", "Finding", "binding_missing", "first_finding", "start_warnings"]

_CARRIED: tuple[Check, ...] = (networks.guest_mtu_changes, properties.property_not_carried)
_SAME_NETWORK: tuple[Check, ...] = (
    networks.no_equivalent_network,
    networks.ipam_not_carried,
    networks.mtu_differs,
    *_CARRIED,
)
_SECONDARY: tuple[Check, ...] = (guests.guest_unknown, networks.pod_network, *_SAME_NETWORK)
_VFIO: tuple[Check, ...] = (platform.memory_overcommit, platform.quota_exceeded)
_LAST: tuple[Check, ...] = (networks.admit_cannot_change_network, platform.pool_not_ready)

_CHECKS: dict[tuple[Platform, Datapath], tuple[Check, ...]] = {
    (Platform.KUBEVIRT, Datapath.EMULATED): (
        platform.not_on_architecture,
        *_SAME_NETWORK,
        networks.admit_cannot_change_network,
    ),
    (Platform.KUBEVIRT, Datapath.VHOST): (*_SAME_NETWORK, platform.no_vhost_net, networks.admit_cannot_change_network),
    (Platform.KUBEVIRT, Datapath.MACVTAP): (
        *_SECONDARY,
        guests.hotplug_volume_blocks_macvtap,
        guests.poor_on_windows,
        guests.blocks_migration,
        guests.eviction_strategy_blocks_drain,
        platform.plugin_not_registered,
        platform.net_resource_injector_missing,
        platform.no_vhost_net,
        networks.admit_cannot_change_network,
    ),
    (Platform.KUBEVIRT, Datapath.SRIOV): (
        *_SECONDARY,
        # The eviction strategy is not checked, because a VM with a VF can be migrated.
        guests.guest_lacks_vf_driver,
        guests.blocks_migration,
        platform.net_resource_injector_missing,
        *_VFIO,
        *_LAST,
    ),
    (Platform.KUBEVIRT, Datapath.PASSTHROUGH): (
        networks.pod_network,
        # A whole NIC has no network whose MTU could be compared.
        networks.no_equivalent_network,
        networks.ipam_not_carried,
        *_CARRIED,
        guests.blocks_migration,
        guests.eviction_strategy_blocks_drain,
        platform.feature_gate_off,
        platform.host_device_not_permitted,
        platform.host_device_provider_conflict,
        platform.instancetype_owns_field,
        *_VFIO,
        *_LAST,
    ),
    # libvirt has no network objects, quotas or feature gates, so checks of these are left out.
    (Platform.LIBVIRT, Datapath.EMULATED): (platform.not_on_architecture, networks.no_equivalent_network, *_CARRIED),
    (Platform.LIBVIRT, Datapath.VIRTIO): (networks.no_equivalent_network, *_CARRIED),
    (Platform.LIBVIRT, Datapath.VHOST): (networks.no_equivalent_network, *_CARRIED, platform.no_vhost_net),
    (Platform.LIBVIRT, Datapath.MACVTAP): (
        guests.guest_unknown,
        networks.no_equivalent_network,
        *_CARRIED,
        guests.poor_on_windows,
        guests.blocks_migration,
    ),
    (Platform.LIBVIRT, Datapath.SRIOV): (
        guests.guest_unknown,
        networks.no_equivalent_network,
        *_CARRIED,
        guests.guest_lacks_vf_driver,
        guests.blocks_migration,
        platform.pool_not_ready,
    ),
    (Platform.LIBVIRT, Datapath.PASSTHROUGH): (
        networks.no_equivalent_network,
        *_CARRIED,
        guests.blocks_migration,
        platform.pool_not_ready,
    ),
}
_LASTING = frozenset(
    {
        guests.guest_lacks_vf_driver,
        guests.poor_on_windows,
        guests.blocks_migration,
        guests.eviction_strategy_blocks_drain,
        platform.no_vhost_net,
        platform.not_on_architecture,
    }
)
"""Checks that also apply to the datapath that a NIC has already. All others concern changes only: an edit of KubeVirt's
configuration, a full quota or a pool that is not ready takes no datapath away.
"""
_AT_START = frozenset(
    {
        platform.plugin_not_registered,
        platform.net_resource_injector_missing,
        platform.feature_gate_off,
        platform.host_device_not_permitted,
        platform.host_device_provider_conflict,
    }
)
"""Checks that tell what fails at the next start of a VM that keeps its datapath."""
# Picked once, because every decision asks for them several times.
_LASTING_CHECKS = {key: tuple(one for one in checks if one in _LASTING) for key, checks in _CHECKS.items()}
_START_CHECKS = {key: tuple(one for one in checks if one in _AT_START) for key, checks in _CHECKS.items()}


def first_finding(question: CheckInput) -> Finding | None:
    """Return the first finding that excludes a datapath for a NIC, or None."""
    checks = _LASTING_CHECKS if question.is_current else _CHECKS
    for check in checks[question.vm.platform, question.datapath]:
        found = check(question)
        if found is not None:
            return found
    return None


def start_warnings(question: CheckInput) -> tuple[Finding, ...]:
    """Return what fails at the next start of a VM whose NIC keeps the datapath that it has."""
    kubevirt = question.cluster.kubevirt
    # Without the KubeVirt resource nothing is known to fail.
    if kubevirt.unreadable or not kubevirt.is_given:
        return ()
    found = (check(question) for check in _START_CHECKS.get((question.vm.platform, question.datapath), ()))
    text = f"the NIC keeps {question.datapath}, but the next start of the VM fails or gives it no device"
    return tuple(Finding(one.reason, f"{text}: {one.message}") for one in found if one is not None)
