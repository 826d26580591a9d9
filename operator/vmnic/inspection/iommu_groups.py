"""IOMMU groups with their devices and reserved regions, below `/sys/kernel/iommu_groups`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..host.ops import ReadFile, ReadLink
from ..nodes.observed import GroupMember, IommuGroup
from .errno_hints import errno_name
from .sysfs import SysfsReader, is_absent

__all__ = ["read_groups"]

_GROUPS = "/sys/kernel/iommu_groups"
_BRIDGE = "0x0604"
"""Base class and subclass of a PCI-to-PCI bridge."""
_REGION = re.compile(r"0x([0-9a-f]{1,16}) 0x([0-9a-f]{1,16}) (\S{1,32})", re.ASCII)
"""A line of `reserved_regions` (iommu_group_show_resv_regions in drivers/iommu/iommu.c)."""


async def read_groups(
    reader: SysfsReader, members: Mapping[str, tuple[str, ...]], known: Mapping[str, str]
) -> tuple[IommuGroup, ...]:
    """Read the given groups.

    Args:
        reader: A reader.
        members: Names of the devices in each group, by its number.
        known: Drivers that were read already, by PCI address. None of these devices is a bridge.

    Raises:
        OSError: The driver or the class of a device cannot be read.
    """
    others = [(number, name) for number, names in members.items() for name in names if name not in known]
    drivers = {key: ReadLink(f"{_GROUPS}/{key[0]}/devices/{key[1]}/driver") for key in others}
    classes = {key: ReadFile(f"{_GROUPS}/{key[0]}/devices/{key[1]}/class") for key in others}
    found = await reader.all([*drivers.values(), *classes.values()]) if others else {}
    regions = await reader.attempt([ReadFile(f"{_GROUPS}/{number}/reserved_regions") for number in members])

    def member(number: str, name: str) -> GroupMember:
        if name in known:
            return GroupMember(address=name, driver=known[name])
        driver = str(found[drivers[number, name]] or "").rsplit("/", 1)[-1]
        kind = str(found[classes[number, name]] or "")
        return GroupMember(address=name, driver=driver, is_bridge=kind.startswith(_BRIDGE))

    return tuple(
        IommuGroup(
            number=number,
            members=tuple(member(number, name) for name in names),
            direct_regions=_direct_regions(answer) if isinstance(answer, str) else (),
            regions_unknown=errno_name(answer) if isinstance(answer, OSError) and not is_absent(answer) else "",
        )
        for (number, names), answer in zip(members.items(), regions, strict=True)
    )


def _direct_regions(text: str) -> tuple[str, ...]:
    """Return the regions that need a fixed mapping.

    The kernel gives up `direct-relaxable` ones for VFIO. `reserved` and `msi` only leave holes in the address space.
    """
    lines = (_REGION.fullmatch(line.strip()) for line in text.splitlines())
    return tuple(f"{line[1].lstrip('0') or '0'}-{line[2].lstrip('0') or '0'}" for line in lines if line and line[3] == "direct")
