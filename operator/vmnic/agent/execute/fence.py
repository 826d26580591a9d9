"""Interface that hides devices from the kubelet while they change."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

__all__ = ["Fence"]


class Fence(Protocol):
    """Hides the devices of PFs, which are named by PCI address, for a while."""

    async def close(self, functions: Collection[str]) -> None:
        """Hide the devices of these PFs, and hold back containers that were just allocated one."""
        ...

    async def open(self, functions: Collection[str]) -> None:
        """Advertise the devices again that the next observation finds."""
        ...
