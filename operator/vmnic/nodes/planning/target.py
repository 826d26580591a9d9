"""What a physical function should be like, whoever asks: a pool, the values before vmnic came, or those before a run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from ..observed import ObservedPf
from ..state import VFIO, PfSpec, VfSettings, indexes_of

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
"""Any driver that the kernel chooses."""


class Original(msgspec.Struct, frozen=True, kw_only=True):
    """A function's values at one moment: before vmnic first changed it, or before a run."""

    num_vfs: int
    autoprobe: bool
    mtu: int | None
    queues: int | None = None
    up: bool | None = None
    whole: bool = False
    """Whether it was itself on vfio-pci."""
    drivers: tuple[str, ...] = ()
    """Of its VFs, by index; empty names: none bound."""
    module_options: str = ""
    """Of its driver, as vmnic's own file says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """VFs that get the same driver and attributes."""

    indexes: range
    driver: str
    settings: VfSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a function should be like; None leaves a value as it is."""

    whole: bool = False
    num_vfs: int | None = None
    autoprobe: bool | None = None
    bindings: tuple[Binding, ...] = ()
    mtu: int | None = None
    queues: int | None = None
    up: bool | None = None
    options: str | None = None
    """What the file of its driver's module options says; empty: there is none."""

    @property
    def vfio(self) -> bool:
        """Whether anything is to be driven by vfio-pci."""
        return self.whole or any(binding.driver == VFIO for binding in self.bindings)


def original_of(observed: ObservedPf) -> Original:
    """Remember how a function is."""
    return Original(
        num_vfs=observed.num_vfs,
        autoprobe=observed.autoprobe,
        mtu=observed.mtu,
        queues=observed.queues,
        up=observed.up,
        whole=observed.driver == VFIO,
        drivers=tuple(vf.driver for vf in observed.vfs),
        module_options=observed.module_options,
    )


def target_of(desired: PfSpec, options: str = "") -> Target:
    """Say what the pools' wish means for a function; `options` is what all functions of its driver need together."""
    if desired.function == "Physical":
        return Target(whole=True, num_vfs=0)
    adopts = desired.management == "Adopt"
    bindings = tuple(
        Binding(indexes=indexes_of(desired, group), driver=group.driver, settings=group.settings) for group in desired.groups
    )
    autoprobe = None if adopts or not desired.num_vfs else any(group.driver == KERNEL for group in desired.groups)
    return Target(
        num_vfs=None if adopts else desired.num_vfs,
        autoprobe=autoprobe,
        bindings=bindings if desired.num_vfs else (),
        mtu=desired.mtu,
        queues=desired.queues,
        up=True if desired.num_vfs else None,
        options=None if adopts else options,
    )


def target_of_original(original: Original) -> Target:
    """Say what it means to be as before. VFs without a driver are not taken away from one that they have got since."""
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
    )


def rollback_target(before: Original, granted: PfSpec | None) -> Target:
    """Say what it means to be as before a run; where the VFs were as granted, with the attributes that were asked for."""
    target = target_of_original(before)
    if granted is None or granted.num_vfs != before.num_vfs:
        return target
    return replace(target, bindings=target_of(granted).bindings)


def uses_of(observed: ObservedPf, original: Original | None) -> tuple[str, ...]:
    """Say what the host uses a function for.

    What the kernel made of a router's announcements counts only where vmnic has not switched the link on itself.
    """
    return observed.host_use if is_switched_on(original) else (*observed.host_use, *observed.learnt_use)


def is_switched_on(original: Original | None) -> bool:
    """Whether a function's link was off before vmnic came."""
    return original is not None and original.up is False


def _runs(items: list[str]) -> list[tuple[int, int]]:
    """Fold equal neighbours into half-open ranges."""
    starts = [index for index, item in enumerate(items) if index == 0 or items[index - 1] != item]
    return list(zip(starts, [*starts[1:], len(items)], strict=True)) if starts else []
