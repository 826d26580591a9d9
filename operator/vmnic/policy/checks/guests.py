"""Checks of the guest and of migration."""

from __future__ import annotations

from ..facts import Datapath, GuestOs
from ..reasons import Reason
from .check_input import CheckInput, Finding

__all__ = [
    "blocks_migration",
    "eviction_strategy_blocks_drain",
    "guest_lacks_vf_driver",
    "guest_unknown",
    "hotplug_volume_blocks_macvtap",
    "poor_on_windows",
]


def guest_unknown(question: CheckInput) -> Finding | None:
    """Exclude a datapath that does not suit every guest if the guest OS is unknown."""
    if question.vm.guest_os is not GuestOs.UNKNOWN or question.is_current:
        return None
    pool = question.pool
    # A VF suits an unknown guest unless the NIC data say that only Linux has a driver for it.
    if question.datapath is Datapath.SRIOV and not (pool is not None and pool.linux_only):
        return None
    unknown = "the guest OS is unknown: set the annotation vm.kubevirt.io/os"
    text = f"{question.datapath} does not suit every guest, and {unknown}"
    return Finding(Reason.GUEST_OS_UNKNOWN, text)


def guest_lacks_vf_driver(question: CheckInput) -> Finding | None:
    """Exclude VFs for which Windows has no driver.

    The NIC data file lists the models concerned.
    """
    pool, vm = question.pool, question.vm
    if vm.guest_os is not GuestOs.WINDOWS or pool is None:
        return None
    # A VM that runs keeps its VF regardless of the NIC models of other nodes.
    models = pool.linux_only_nodes.get(vm.node, ()) if question.is_current and vm.started else pool.linux_only
    if not models:
        return None
    text = f"Windows has no driver for VFs of {', '.join(models)} (pool {pool.name})"
    return Finding(Reason.GUEST_LACKS_VF_DRIVER, text)


def hotplug_volume_blocks_macvtap(question: CheckInput) -> Finding | None:
    """Exclude macvtap for a VM with a hotpluggable volume, which would not start (KubeVirt #17392)."""
    if not question.vm.has_hotplug_volume:
        return None
    text = "the VM has a hotpluggable volume, and KubeVirt does not start such a VM with macvtap"
    return Finding(Reason.HOTPLUG_VOLUME_BLOCKS_MACVTAP, text)


def poor_on_windows(question: CheckInput) -> Finding | None:
    """Exclude macvtap for Windows, where it is known to perform poorly."""
    if question.vm.guest_os is not GuestOs.WINDOWS:
        return None
    return Finding(Reason.POOR_ON_WINDOWS, "macvtap performs poorly with Windows guests")


def blocks_migration(question: CheckInput) -> Finding | None:
    """Exclude datapaths that prevent live migration if the policy requires it."""
    if question.effective_rule.live_migration != "Required":
        return None
    if question.datapath is Datapath.SRIOV:
        if question.rule.accepts_detach:
            return None
        text = "a migration detaches the VF from the guest: liveMigration is Required, and sriov.acceptDetach is not set"
    else:
        text = f"a VM with {question.datapath} cannot migrate, but liveMigration is Required"
    return Finding(Reason.BLOCKS_MIGRATION, text)


def eviction_strategy_blocks_drain(question: CheckInput) -> Finding | None:
    """Exclude datapaths that prevent migration if KubeVirt would then refuse to evict the VM."""
    # `None` is a strategy of its own in KubeVirt, so with it a VM overrides the cluster's.
    if (question.vm.eviction_strategy or question.cluster.kubevirt.eviction_strategy) != "LiveMigrate":
        return None
    text = f"evictionStrategy is LiveMigrate, but a VM with {question.datapath} cannot migrate: its node could not be drained"
    return Finding(Reason.EVICTION_STRATEGY_BLOCKS_DRAIN, text)
