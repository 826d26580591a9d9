"""Target of a PF, computed from its spec or from the values that are to be restored.

The restored values are those before vmnic first changed the PF, or those before one change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from ...api.node_state import VFIO, PfSpec, VfSettings
from ..observed import ObservedPf
from ..state import indexes_of

__all__ = [
    "KERNEL",
    "Binding",
    "Original",
    "Target",
    "is_switched_on",
    "original_of",
    "rollback_target",
    "target_of",
    "target_of_original",
    "uses_of",
]

KERNEL = "kernel"
"""Stands for any driver that the kernel chooses."""


class Original(msgspec.Struct, frozen=True, kw_only=True):
    """Values of a PF before vmnic first changed it, or before a change."""

    num_vfs: int
    autoprobe: bool
    mtu: int | None
    queues: int | None = None
    up: bool | None = None
    whole: bool = False
    """Whether the PF itself was on vfio-pci."""
    drivers: tuple[str, ...] = ()
    """Drivers of its VFs by index; an empty name if none was bound."""
    module_options: str = ""
    """Module options of its driver, as in vmnic's own file."""
    udev_rules: tuple[str, ...] = ()
    """Names of vmnic's rules for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """VFs that get the same driver and attributes."""

    indexes: range
    driver: str
    settings: VfSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Desired values of a PF. None leaves a value as it is."""

    whole: bool = False
    num_vfs: int | None = None
    autoprobe: bool | None = None
    bindings: tuple[Binding, ...] = ()
    mtu: int | None = None
    queues: int | None = None
    up: bool | None = None
    options: str | None = None
    """Content of the file with its driver's module options; empty if there should be no file."""
    udev_rules: tuple[str, ...] | None = None
    """Names of the rules that udev should have for it."""

    @property
    def vfio(self) -> bool:
        """Return whether vfio-pci is to drive the PF or any of its VFs."""
        return self.whole or any(binding.driver == VFIO for binding in self.bindings)

    @property
    def sets_attributes(self) -> bool:
        """Return whether any attribute of a VF is asked for."""
        return any(binding.settings is not None and binding.settings != VfSettings() for binding in self.bindings)


def original_of(observed: ObservedPf) -> Original:
    """Record the present values of a PF."""
    return Original(
        num_vfs=observed.num_vfs,
        autoprobe=observed.autoprobe,
        mtu=observed.mtu,
        queues=observed.queues,
        up=observed.up,
        whole=observed.driver == VFIO,
        drivers=tuple(vf.driver for vf in observed.vfs),
        module_options=observed.module_options,
        udev_rules=observed.udev_rules,
    )


def target_of(desired: PfSpec, options: str = "", udev_rules: tuple[str, ...] | None = None) -> Target:
    """Return the target that the pools ask for.

    `options` are the module options that all functions of the driver need together, `udev_rules` the names of its own rules.
    """
    if desired.function == "Physical":
        return Target(whole=True, num_vfs=0, udev_rules=udev_rules)
    adopts = desired.management == "Adopt"
    bindings = tuple(
        Binding(indexes=indexes_of(desired, group), driver=group.driver, settings=group.settings) for group in desired.groups
    )
    # Adopting leaves it as it is, unless a kernel driver has to bind the VFs (`_binding_steps` in actions.py).
    autoprobe = None if adopts or not desired.num_vfs else any(group.driver == KERNEL for group in desired.groups)
    return Target(
        num_vfs=None if adopts else desired.num_vfs,
        autoprobe=autoprobe,
        bindings=bindings if desired.num_vfs else (),
        mtu=desired.mtu,
        queues=desired.queues,
        # VFs of a PF that is down have no link. Without VFs, the link is the host's own matter.
        up=True if desired.num_vfs else None,
        options=None if adopts else options,
        udev_rules=None if adopts else udev_rules,
    )


def target_of_original(original: Original) -> Target:
    """Return the target that restores the original values.

    A VF that had no driver keeps a driver that it has got since.
    """
    # A kernel driver is not restored by its name: the kernel chooses it by the VF's IDs.
    drivers = [VFIO if driver == VFIO else KERNEL if driver else "" for driver in original.drivers]
    bindings = tuple(
        Binding(indexes=range(first, last), driver=drivers[first]) for first, last in _runs(drivers) if drivers[first]
    )
    return Target(
        whole=original.whole,
        num_vfs=original.num_vfs,
        autoprobe=original.autoprobe,
        bindings=bindings,
        mtu=original.mtu,
        queues=original.queues,
        up=original.up,
        options=original.module_options,
        udev_rules=original.udev_rules,
    )


def rollback_target(before: Original, granted: PfSpec | None) -> Target:
    """Return the target that restores the values before a change.

    If the number of VFs was already as granted, the VFs get the drivers and attributes that the spec asks for.
    """
    target = target_of_original(before)
    if granted is None or granted.num_vfs != before.num_vfs:
        return target
    # `Original` has no attributes of VFs, because a CNI may have set them for a pod that has ended.
    return replace(target, bindings=target_of(granted).bindings)


def uses_of(observed: ObservedPf, original: Original | None) -> tuple[str, ...]:
    """Return what the host uses a PF for.

    Addresses and routes from router advertisements do not count if the link was down before vmnic changed the PF.
    """
    return observed.host_use if is_switched_on(original) else (*observed.host_use, *observed.learnt_use)


def is_switched_on(original: Original | None) -> bool:
    """Return whether a PF's link was down before vmnic changed the PF."""
    return original is not None and original.up is False


def _runs(items: list[str]) -> list[tuple[int, int]]:
    """Fold equal neighbors into half-open ranges."""
    starts = [index for index, item in enumerate(items) if index == 0 or items[index - 1] != item]
    return list(zip(starts, [*starts[1:], len(items)], strict=True)) if starts else []
