"""Keeps pods from getting devices that are about to go."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

__all__ = ["Fence"]


class Fence(Protocol):
    """Keeps the devices of physical functions, which are named by PCI address, from pods for a while."""

    async def close(self, functions: Collection[str]) -> None:
        """Give nothing of these functions to a pod from now on, and start no container that just got something."""
        ...

    async def open(self, functions: Collection[str]) -> None:
        """Let what the next look finds be had again."""
        ...
