"""Contents of a PCI function's directory in sysfs."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["has_unassigned_vf_space", "virtfn_entries", "virtfn_index"]

_UNSET = 0x20000000
"""IORESOURCE_UNSET of linux/ioport.h, which marks a window without an address."""
_WINDOW = re.compile(r"0x[0-9a-f]{1,16} 0x[0-9a-f]{1,16} 0x([0-9a-f]{1,16})", re.ASCII)
_VF_WINDOWS = slice(7, 13)
"""Lines of `resource` after six BARs and the ROM (PCI_IOV_RESOURCES)."""
_VIRTFN = re.compile(r"virtfn[0-9]{1,5}", re.ASCII)


def has_unassigned_vf_space(resource: str) -> bool:
    """Return whether a function's `resource` file has a VF window without an address.

    Each line has start, end and flags of a window.
    """
    found = (_WINDOW.fullmatch(line.strip()) for line in resource.splitlines()[_VF_WINDOWS])
    return any(int(window[1], 16) & _UNSET for window in found if window is not None)


def virtfn_entries(names: Iterable[str]) -> list[str]:
    """Return the entries that lead to VFs, in the order of the VFs."""
    return sorted((name for name in names if _VIRTFN.fullmatch(name)), key=virtfn_index)


def virtfn_index(entry: str) -> int:
    """Return the index of the VF that an entry leads to."""
    return int(entry.removeprefix("virtfn"))
