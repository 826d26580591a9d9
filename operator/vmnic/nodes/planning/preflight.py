"""Problems that make a change of a PF impossible, with messages that say what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...api.node_state import VFIO, HostFacts, PfProblem, PfSpec
from ...api.reasons import PfReason
from ..nics import model_of
from ..observed import ETHERNET, ObservedPf
from ..vf_limits import data_of
from .actions import plan_actions
from .drivers import DriverFacts
from .groups import group_problem
from .target import Target

__all__ = ["first_problem", "words_of_unknown_vfs"]


def first_problem(
    target: Target,
    desired: PfSpec,
    observed: ObservedPf,
    host: HostFacts,
    driver: DriverFacts,
    others: Iterable[PfSpec] = (),
) -> PfProblem | None:
    """Return the first problem, or None if there is none or nothing is to be done."""
    name = f"{observed.name or 'the function'} ({observed.pci_address})"
    found = _spec_problem(target, desired, observed, driver, name)
    if found is not None:
        return found
    group = group_problem(target, desired, observed, others, name) if target.vfio and not desired.release else None
    # A PF that is as asked stays in its pool, even if the host or another program has begun to use it. A group that no VM can
    # get is a problem all the same.
    if not plan_actions(target, observed):
        return group
    return (
        _of_ownership(desired, observed, name)
        or _of_driver(target, desired, observed, driver, name)
        or _kernel_problem(target, observed, host, name)
        or group
        or _host_problem(target, observed, name)
    )


def _spec_problem(target: Target, desired: PfSpec, observed: ObservedPf, driver: DriverFacts, name: str) -> PfProblem | None:
    """Return a problem of the spec, which no state of the node could satisfy."""
    if not desired.release and (found := _link_problem(target, desired, observed, name)) is not None:
        return found
    count = target.num_vfs
    if observed.link_elsewhere and not desired.release:
        return _link_elsewhere(observed, ", or exclude the function from the pool's nicSelector")
    # Adopting takes existing VFs and writes no number.
    wanted = desired.num_vfs if count is None and not desired.release else count
    if wanted and not observed.total_vfs and not observed.num_vfs:
        return _no_vfs(observed, name)
    if count and (found := _count_problem(count, desired, observed, driver, name)) is not None:
        return found
    if desired.management == "Adopt" and not desired.release and desired.num_vfs > observed.num_vfs:
        return PfProblem(
            reason=PfReason.TOO_FEW_VFS,
            message=f"{name} has {observed.num_vfs} VFs, and management: Adopt creates none: create {desired.num_vfs} of them, "
            "lower numVfs, or set management: Managed",
        )
    there = desired.num_vfs if count is None else count
    outside = [binding for binding in target.bindings if binding.indexes.stop > there]
    if outside and not desired.release:
        return PfProblem(
            reason=PfReason.TOO_MANY_VFS,
            message=f"{name} gets {there} VFs, but vfRange ends at {outside[0].indexes.stop - 1}: lower it, or raise numVfs",
        )
    if desired.persistence == "ModuleOptions" and not desired.release:
        return _parameter_problem(observed, name)
    return None


_SRIOV_OFF = {
    "15b3": "set SRIOV_EN=1 and NUM_OF_VFS with mlxconfig (and SR-IOV in the machine's BIOS), then reboot",
    "8086": "enable SR-IOV in the machine's BIOS, for the slot or port too, or with Intel's bootutil, then reboot",
    "14e4": "enable SR-IOV in the machine's BIOS and in the NIC's settings there, or with Broadcom's niccli, then reboot",
}
"""Remedies by vendor. Each vendor's firmware has its own switch."""
_SRIOV_OFF_ELSEWHERE = "enable SR-IOV in the NIC's firmware and in the machine's BIOS, then reboot"
_NO_SRIOV = "choose another NIC in nicSelector, or pass it on as a whole by a pool with function: Physical"


def _count_problem(count: int, desired: PfSpec, observed: ObservedPf, driver: DriverFacts, name: str) -> PfProblem | None:
    """Return the problem of a function that cannot have as many VFs."""
    model, total = data_of(observed), observed.total_vfs
    # The maximum is the driver's own: igb lowers the hardware's 8 to 7. Without that driver, the number is not final.
    most, source = (total, "sriov_totalvfs") if observed.driver not in ("", VFIO) else (count, "")
    remedy = "lower numVfs, or set it to max"
    # A release restores the number from before vmnic changed the function, which may be above that of the data.
    if model is not None and model.max_vfs is not None and not desired.release:
        allowed, words = model.max_vfs, f"maxVfs of {model.title} in the NIC data"
        if model.max_vfs_per == "Device":
            # VFs that are there already show that they have room.
            allowed = max(allowed - driver.other_ports_vfs, observed.num_vfs)
            words += f" is {model.max_vfs} for all ports together"
        if allowed < most:
            most, source, remedy = allowed, words, f"{remedy}, or correct the NIC data"
    if count <= most:
        return None
    text = f"{name} supports {most} VFs ({source}), but numVfs is {count}: {remedy}"
    return PfProblem(reason=PfReason.TOO_MANY_VFS, message=text)


def _no_vfs(observed: ObservedPf, name: str) -> PfProblem:
    """Return the problem of a function that offers no VFs, because its firmware hides them or it has none."""
    listed = model_of(observed.vendor, observed.device)
    remedy = _SRIOV_OFF.get(observed.vendor, _SRIOV_OFF_ELSEWHERE)
    if listed is not None and not listed.has_vfs:
        text = f"{name}, model {listed.title}, has no SR-IOV: {_NO_SRIOV}"
        return PfProblem(reason=PfReason.TOO_MANY_VFS, message=text)
    if listed is None:
        text = f"{name} offers no VFs: if the NIC has SR-IOV, {remedy}; else {_NO_SRIOV}"
        return PfProblem(reason=PfReason.FIRMWARE_SRIOV_OFF, message=text)
    return PfProblem(reason=PfReason.FIRMWARE_SRIOV_OFF, message=f"{name}, model {listed.title}, offers no VFs: {remedy}")


def _parameter_problem(observed: ObservedPf, name: str) -> PfProblem | None:
    """Return the problem of a driver that creates no VFs by a parameter of its module."""
    model = data_of(observed)
    if (model is not None and model.parameter) or observed.driver in ("", VFIO):
        return None
    text = (
        f"{observed.driver}, the driver of {name}, has no parameter for VFs in the NIC data: set persistence: Agent, or add "
        "the parameter to the NIC data"
    )
    return PfProblem(reason=PfReason.MODULE_OPTIONS_UNSUPPORTED, message=text)


def _link_problem(target: Target, desired: PfSpec, observed: ObservedPf, name: str) -> PfProblem | None:
    """Return the problem if the links of the function do not allow what the pools ask for."""
    # Without a link its type is unknown, which excludes nothing.
    if desired.function == "Virtual" and observed.link_type not in ("", ETHERNET):
        return PfProblem(
            reason=PfReason.LINK_TYPE_DIFFERS,
            message=f"the link of {name} is {_link_words(observed.link_type)}, and VFs of pools are Ethernet adapters: exclude "
            "it from the pool's nicSelector, or set the port to Ethernet",
        )
    asked = {"spec.mtu": target.mtu, "spec.queues": target.queues, "spec.vf": target.sets_attributes or None}
    wanted = [field for field, value in asked.items() if value is not None]
    if wanted and len(observed.ports) > 1:
        return PfProblem(
            reason=PfReason.SEVERAL_PORTS,
            message=f"{name} has several ports{_port_words(observed.ports)}, so {' and '.join(wanted)} would apply to an "
            "unknown one: leave it out of the pool",
        )
    if target.sets_attributes and observed.is_switchdev:
        return PfProblem(
            reason=PfReason.SWITCHDEV_MODE,
            message=f"{name} is in {observed.eswitch_mode} mode, in which vmnic sets no attributes of VFs: leave spec.vf out "
            "of the pool, or set the NIC to legacy mode",
        )
    if target.sets_attributes and observed.vfs_unknown:
        return PfProblem(reason=PfReason.UNREADABLE, message=words_of_unknown_vfs(observed))
    return None


def words_of_unknown_vfs(observed: ObservedPf) -> str:
    """Describe why the attributes of a PF's VFs are unknown."""
    where = f"{observed.name or 'the function'} ({observed.pci_address})"
    return f"the attributes of the VFs of {where} cannot be read: {observed.vfs_unknown}"


def _link_words(link_type: str) -> str:
    return "InfiniBand" if link_type == "infiniband" else f"of hardware type {link_type}"


def _port_words(ports: Sequence[str]) -> str:
    named = ", ".join(filter(None, ports))
    return f" ({named})" if named else ""


def _of_ownership(desired: PfSpec, observed: ObservedPf, name: str) -> PfProblem | None:
    """Return the problem if another program manages the PF, or if the host uses it."""
    if observed.foreign_owner:
        return PfProblem(
            reason=PfReason.FOREIGN_OWNER,
            message=f"{name} is managed by {observed.foreign_owner}: exclude it from nicSelector, or remove it there",
        )
    # A profile that cannot be read may claim any PF, so it stops new changes. VFs that are in use stay.
    if observed.owner_unknown:
        return PfProblem(
            reason=PfReason.FOREIGN_OWNER,
            message=f"{name} may be managed by another program: {observed.owner_unknown}: make it readable, or remove it",
        )
    if observed.host_use and not desired.allow_host_used:
        return PfProblem(
            reason=PfReason.HOST_USED,
            message=f"{name} carries the host's own {'; '.join(observed.host_use)}: exclude it from the pool's nicSelector, or "
            "set safety.allowHostUsed: true",
        )
    return None


def _of_driver(target: Target, desired: PfSpec, observed: ObservedPf, driver: DriverFacts, name: str) -> PfProblem | None:
    """Return the problem of an old driver that would have to be reloaded for another number of VFs."""
    # None stands for adopted VFs, whose number is never written.
    if not observed.by_module or target.num_vfs in (None, observed.num_vfs):
        return None
    if desired.persistence != "ModuleOptions":
        return PfProblem(
            reason=PfReason.MODULE_OPTIONS_NEEDED,
            message=f"the driver of {name} creates VFs only when it is loaded: set persistence: ModuleOptions",
        )
    if driver.in_use:
        return PfProblem(
            reason=PfReason.DRIVER_IN_USE,
            message=f"{observed.driver} would have to be reloaded for {name}, but {'; '.join(driver.in_use[:4])}: free "
            "these, or reboot the node",
        )
    return None


def _kernel_problem(target: Target, observed: ObservedPf, host: HostFacts, name: str) -> PfProblem | None:
    """Return a problem of the kernel and its drivers."""
    if not observed.driver:
        return PfProblem(reason=PfReason.NO_DRIVER, message=f"{name} has no driver: bind the NIC's driver to it")
    # None means that the IOMMU could not be read, which excludes nothing.
    if target.vfio and host.iommu is False:
        return PfProblem(
            reason=PfReason.IOMMU_OFF,
            message=f"vfio-pci needs an IOMMU for {name}: enable VT-d or AMD-Vi in the firmware, add intel_iommu=on to the"
            " kernel command line (AMD: amd_iommu=on), and reboot",
        )
    if target.vfio and "vfio_pci" not in host.modules:
        return PfProblem(reason=PfReason.MODULE_MISSING, message=f"{name} needs the module vfio_pci: {_load(host)}")
    return None


def _host_problem(target: Target, observed: ObservedPf, name: str) -> PfProblem | None:
    """Return a problem of the machine, or of the PF's link."""
    renewed = target.num_vfs is not None and target.num_vfs != observed.num_vfs
    # The kernel would refuse the write with ENOMEM (`sriov_enable` in drivers/pci/iov.c), in the middle of the change.
    if target.num_vfs and renewed and observed.unassigned_vf_space:
        return PfProblem(
            reason=PfReason.NO_MMIO_SPACE,
            message=f"the firmware left no room for the VFs of {name}: add pci=realloc to the kernel command line, or enable "
            "'above 4G decoding' in the BIOS, and reboot",
        )
    # Only a release gets here with such a link. VFs can be removed without it, MTU and queues cannot be restored.
    if observed.link_elsewhere and (target.mtu is not None or target.queues is not None):
        return _link_elsewhere(observed, ", so that vmnic can restore it")
    # Another number of VFs changes the maximum, so the present one says nothing about such a plan.
    if target.queues is not None and not renewed and observed.max_queues is not None and target.queues > observed.max_queues:
        return PfProblem(
            reason=PfReason.TOO_MANY_QUEUES,
            message=f"{name} has {observed.max_queues} queues for itself, but queues is {target.queues}: lower it",
        )
    return None


def _link_elsewhere(observed: ObservedPf, remedy: str) -> PfProblem:
    text = f"the link of {observed.pci_address} is in another network namespace: move it back to the host's{remedy}"
    return PfProblem(reason=PfReason.LINK_ELSEWHERE, message=text)


def _load(host: HostFacts) -> str:
    """Return the remedy for a module that is not loaded."""
    if "vfio_pci" in host.modules_unknown:
        return "neither /sys/module nor /sys/bus/pci/drivers shows whether it is there: make both readable for the agent"
    if host.refused:
        return f"the kernel refused it ({'; '.join(host.refused)}): sign it, or check Secure Boot and the kernel packages"
    return "load it at boot (modules-load.d) or by the agent's init container"
