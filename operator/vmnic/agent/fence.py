"""Keeps pods from getting VFs that are about to go."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

__all__ = ["Fence"]


class Fence(Protocol):
    """Keeps devices from pods for a while."""

    async def close(self, addresses: Collection[str]) -> None:
        """Give none of these devices to a pod from now on, and start no container that just got one."""
        ...

    async def open(self, addresses: Collection[str]) -> None:
        """Let them be had again, as far as the next look still finds them."""
        ...
