"""Answer per pool whether its VMs fit after the loss of any one node."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ...policy.capacity import Capacity
from ...policy.survival import Loss, assess_losses, find_residents
from ..caches.capacity_cache import CapacityCache

__all__ = ["SurvivalCheck"]

_MOST_VISITS = 50_000
"""Bound on visits to nodes for all losses together, about 0.2 s. Beyond it, the answer is unknown."""
_SLICE = 50
"""Losses after which the event loop gets a turn."""


class SurvivalCheck:
    """Answers for all resources, which stay until the capacity changes."""

    def __init__(self, devices: CapacityCache) -> None:
        self._devices = devices
        self._of: Capacity | None = None
        self._unsafe: set[str] = set()
        self._unknown: set[str] = set()
        self._by_pool: dict[str, bool] = {}

    @property
    def by_pool(self) -> dict[str, bool]:
        """Return the answers by pool. A pool whose answer is unknown has none."""
        return dict(self._by_pool)

    async def update(self, pool: str, resources: Iterable[str]) -> None:
        """Answer for one pool."""
        capacity = self._devices.capacity
        if self._of is not capacity:
            await self._assess(capacity)
        own = set(resources)
        if own & self._unsafe:
            self._by_pool[pool] = False
        elif own & self._unknown:
            self._by_pool.pop(pool, None)
        else:
            self._by_pool[pool] = True

    def forget(self, pool: str) -> None:
        """Discard the answer for a pool that is gone."""
        self._by_pool.pop(pool, None)

    async def _assess(self, capacity: Capacity) -> None:
        residents = find_residents(self._devices.claims, capacity)
        losses = [Loss(node=name) for name in sorted(residents.by_node)]
        unsafe: set[str] = set()
        unknown: set[str] = set()
        for number, outcome in enumerate(assess_losses(residents, losses, most_visits=_MOST_VISITS), 1):
            if outcome.survives is not True:
                # Without a matching, any VM of the node may have no place.
                homeless = outcome.unplaced or residents.by_node[outcome.loss.node]
                resources = {resource for claim in homeless for resource in claim.held}
                (unknown if outcome.survives is None else unsafe).update(resources)
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        self._of, self._unsafe, self._unknown = capacity, unsafe, unknown
