"""Keeps pods from getting VFs that are about to go."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

__all__ = ["Fence", "NoFence"]


class Fence(Protocol):
    """Keeps devices from pods for a while."""

    async def close(self, addresses: Collection[str]) -> None:
        """Give none of these devices to a pod from now on, and start no container that just got one."""
        ...

    async def open(self, addresses: Collection[str]) -> None:
        """Let them be had again, as far as they still exist."""
        ...


class NoFence:
    """For nodes where nobody hands out devices; the controller grants such a plan only on a cordoned node."""

    async def close(self, addresses: Collection[str]) -> None:
        """Do nothing."""

    async def open(self, addresses: Collection[str]) -> None:
        """Do nothing."""
