"""IOMMU groups that a change would hand to VMs, and what keeps a VM from getting one.

A VM gets a group as a whole. The kernel refuses that while a driver that does DMA itself is bound to any device of the group
(iommu_device_use_default_domain in drivers/iommu/iommu.c).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ...api.node_state import VFIO, PfProblem, PfSpec
from ...api.reasons import PfReason
from ..observed import GroupMember, IommuGroup, ObservedPf
from .target import Target

__all__ = ["describe_obstacle", "find_partners", "group_problem"]

_MANAGED = ("", "pci-stub", "pcieport")
"""Drivers that leave DMA to others (`driver_managed_dma` in linux/pci.h), beside those of VFIO."""
_TOLD = 4
"""Most members that a message names."""


def describe_obstacle(observed: ObservedPf, number: str) -> str:
    """Return the obstacle to opening a group as it is now, or an empty string."""
    for group in (one for one in observed.iommu_groups if one.number == number):
        for member in group.members:
            if not _leaves_dma(member.driver):
                return f"{_words(member)} shares IOMMU group {number}"
        if group.direct_regions:
            return f"the firmware reserves memory for IOMMU group {number}"
    return ""


def find_partners(desired: PfSpec, observed: ObservedPf, others: Iterable[PfSpec]) -> tuple[str, ...]:
    """Return the other whole PFs of a PF's group and pool, which VMs get together with it."""
    if desired.function != "Physical" or desired.release:
        return ()
    members = {member.address for member in _own_members(observed)} - {observed.pci_address}
    return tuple(spec.pci_address for spec in others if spec.pci_address in members and _goes_along(spec, desired))


def group_problem(
    target: Target, desired: PfSpec, observed: ObservedPf, others: Iterable[PfSpec], name: str
) -> PfProblem | None:
    """Return the problem of the groups that a PF or its VFs are in, or None if VMs can get them.

    Args:
        target: Target of the PF.
        desired: Spec of the PF.
        observed: Observed state of the PF.
        others: Specs of all PFs of the node.
        name: The PF in words.
    """
    numbers = _handed_out(target, observed)
    specs = {spec.pci_address: spec for spec in others if not spec.release and spec.pci_address != desired.pci_address}
    for group in (one for one in observed.iommu_groups if one.number in numbers):
        obstacles = tuple(_obstacles(group, target, desired, observed, specs))
        if obstacles:
            return _shared(group, obstacles, name, whole=target.whole)
        if group.direct_regions or group.regions_unknown:
            return _reserved(group, name)
    return None


def _shared(group: IommuGroup, obstacles: Sequence[str], name: str, *, whole: bool) -> PfProblem:
    more = f" and {len(obstacles) - _TOLD} more" if len(obstacles) > _TOLD else ""
    told = f"IOMMU group {group.number} with {', '.join(obstacles[:_TOLD])}{more}"
    if whole:
        text = (
            f"{name} shares {told}, so no VM can get it: unbind these from their drivers, select them with the same Physical "
            "pool, or use a slot with ACS"
        )
    else:
        text = f"the VFs of {name} share {told}, so no VM can get one of them: use a slot with ACS"
    return PfProblem(reason=PfReason.IOMMU_GROUP_SHARED, message=text)


def _reserved(group: IommuGroup, name: str) -> PfProblem:
    if group.direct_regions:
        text = (
            f"the firmware reserves memory ({group.direct_regions[0]}) for IOMMU group {group.number} with {name}, so no VM "
            "can get it: turn that off in the machine's firmware (RMRR), or exclude the function from the pool's nicSelector"
        )
    else:
        text = (
            f"reserved_regions of IOMMU group {group.number} with {name} cannot be read ({group.regions_unknown}): make it "
            "readable for the agent"
        )
    return PfProblem(reason=PfReason.RESERVED_MEMORY_REGION, message=text)


def _handed_out(target: Target, observed: ObservedPf) -> set[str]:
    """Return the numbers of the groups whose devices VMs would get."""
    if target.whole:
        return {observed.group}
    wanted = _vfio_indexes(target)
    stays = target.num_vfs is None or target.num_vfs == observed.num_vfs
    present = {vf.group for vf in observed.vfs if vf.index in wanted} if stays else set()
    # A port without ACS puts new VFs into the group that it is in, with its NIC (pci_device_group in drivers/iommu/iommu.c).
    # Present VFs show whether it does.
    joins = any(member.is_bridge for member in _own_members(observed)) and not any(
        vf.group != observed.group for vf in observed.vfs
    )
    return present | ({observed.group} if joins and wanted else set())


def _vfio_indexes(target: Target) -> set[int]:
    return {index for binding in target.bindings if binding.driver == VFIO for index in binding.indexes}


def _own_members(observed: ObservedPf) -> tuple[GroupMember, ...]:
    """Return the devices in the PF's own group."""
    return next((group.members for group in observed.iommu_groups if group.number == observed.group), ())


def _obstacles(
    group: IommuGroup, target: Target, desired: PfSpec, observed: ObservedPf, specs: Mapping[str, PfSpec]
) -> Iterator[str]:
    """Yield what keeps a VM from getting a group, in words."""
    own = {vf.pci_address: vf.index for vf in observed.vfs}
    vfio = _vfio_indexes(target)
    if len([one for one in group.members if own.get(one.address) in vfio]) > 1:
        # Each VF is a device of its own, but one process gets the whole group.
        yield "each other"
    for member in group.members:
        address, spec = member.address, specs.get(member.address)
        if address == observed.pci_address:
            # A PF keeps its driver as long as it has VFs.
            yield from () if target.whole else ("the function itself",)
        elif address in own:
            # The VFs of a whole PF are removed.
            if not target.whole and own[address] not in vfio and not _leaves_dma(member.driver):
                yield f"VF {own[address]} on {member.driver}"
        elif spec is not None:
            if not (target.whole and _goes_along(spec, desired)):
                yield f"{_words(member)} of pool {spec.pool}"
        elif not _leaves_dma(member.driver):
            yield _words(member)


def _goes_along(spec: PfSpec, desired: PfSpec) -> bool:
    """Return whether two PFs of one group are handed out together."""
    return spec.function == "Physical" and spec.pool == desired.pool and not spec.release


def _words(member: GroupMember) -> str:
    kind = "the bridge " if member.is_bridge else ""
    return f"{kind}{member.address}{f' on {member.driver}' if member.driver else ''}"


def _leaves_dma(driver: str) -> bool:
    """Return whether a device with this driver may be in the group of a device that a VM gets."""
    # The names of VFIO's drivers differ: vfio-pci, mlx5_vfio_pci, vfio-platform.
    return driver in _MANAGED or "vfio" in driver
