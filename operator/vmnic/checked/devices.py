"""PCI addresses and ranges of VF indexes in foreign text."""

from __future__ import annotations

import re

from .forms import PCI_ADDRESS, anchored

__all__ = ["MOST_VFS", "is_pci_address", "read_vf_range"]

MOST_VFS = 1024
"""Bound on the VFs of one PF. No NIC has more than 256, and no longer range is iterated."""

_PCI_ADDRESS = re.compile(anchored(PCI_ADDRESS), re.ASCII)
_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", re.ASCII)


def is_pci_address(text: object) -> bool:
    """Return whether text is a full PCI address such as `0000:3b:00.2`."""
    return isinstance(text, str) and _PCI_ADDRESS.fullmatch(text) is not None


def read_vf_range(text: str) -> range | None:
    """Parse a range of VF indexes, such as `0-6` or `3`.

    Returns:
        None if the text is malformed or reversed, or if it reaches 1024.
    """
    found = _RANGE.fullmatch(text)
    if found is None:
        return None
    first, last = int(found[1]), int(found[2] or found[1])
    return range(first, last + 1) if first <= last < MOST_VFS else None
