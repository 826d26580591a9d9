"""Kernel modules that the datapaths of VMs need, as the running kernel shows them."""

from __future__ import annotations

from dataclasses import dataclass

from ..host.ops import Value
from .modules import MODULES, is_shown, sign_of
from .sysfs import SysfsReader, is_absent

__all__ = ["KernelModules", "read_modules"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelModules:
    """Modules that the datapaths of VMs need, by what shows them."""

    loaded: tuple[str, ...] = ()
    """Those in /sys/module, where some that are built in are too."""
    built_in: tuple[str, ...] = ()
    """Those that are not in /sys/module and whose function is there. One without parameters has no entry if it is built in."""
    unknown: tuple[str, ...] = ()
    """Those that are not in /sys/module and whose function cannot be read."""


async def read_modules(reader: SysfsReader) -> KernelModules:
    """Read which modules are there.

    Raises:
        OSError: /sys/module cannot be read.
    """
    listed = await reader.listings([f"/sys/module/{name}" for name in MODULES])
    # The directory of a module that is present is never empty.
    loaded = tuple(name for name in MODULES if listed[f"/sys/module/{name}"])
    left = [name for name in MODULES if name not in loaded]
    answers = zip(left, await reader.attempt([sign_of(name) for name in left]) if left else (), strict=True)
    found = {name: _is_there(name, answer) for name, answer in answers}
    return KernelModules(
        loaded=loaded,
        built_in=tuple(name for name in left if found[name]),
        unknown=tuple(name for name in left if found[name] is None),
    )


def _is_there(name: str, answer: Value | OSError) -> bool | None:
    """Return whether the function of a module is there, or None if that could not be read."""
    if isinstance(answer, OSError):
        return False if is_absent(answer) else None
    return is_shown(name, answer)
