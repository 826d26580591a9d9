"""How a pool's change goes through its nodes: slots come back, drains go on, and nodes begin. Effects follow the ledger.

The ledger says first what is about to be done, then it is done; a controller that dies in between leaves a successor that
finds it there and does it again: to cordon, to evict, to grant and to uncordon may all be repeated.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from ...api.pool import PoolProblem, SriovNetworkPool
from ...kube.errors import ApiError
from ...nodes.rollout.budget import RolloutSlot, entries_of, fitting, grant_drained, select_disruptive, select_non_disruptive
from ...nodes.rollout.eligibility import eligible_changes
from ...nodes.rollout.ledger import Entry, EntryState, Ledger, NodeView, PoolLedger
from ...nodes.rollout.progress import advance_ledger, deadline_of
from ...nodes.rollout.turns import free_nodes_come
from ..caches.cluster_cache import Enqueue
from ..caches.keys import node_key
from .drain import Drainer
from .ledger import LedgerStore
from .rollout_matching import match_starts
from .rollout_memory import RolloutMemory
from .rollout_problems import find_rollout_problems

__all__ = ["Progress", "Rollouts"]

_log = logging.getLogger(__name__)

_SOON_S = 0.05
_DRAIN_S = 5.0
"""Between looks at a drain: an eviction that was refused is asked for again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a pass has left."""

    problems: tuple[PoolProblem, ...] = ()
    again_s: float | None = None
    """When to look again though nothing changes; None: need not be."""


class Rollouts:
    """Moves all pools' rollouts on.

    Args:
        ledger: The books.
        drainer: Takes nodes out of service.
        enqueue: Asks for a look at nodes whose grants have changed.
        clock: Seconds since 1970.
    """

    def __init__(
        self, ledger: LedgerStore, drainer: Drainer, enqueue: Enqueue, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._ledger = ledger
        self._drainer = drainer
        self._enqueue = enqueue
        self._clock = clock
        self._memories: dict[str, RolloutMemory] = {}
        """By pool."""
        self._told: dict[str, PoolLedger] = {}
        """What the nodes were last asked to look at, by pool."""
        self._answers: dict[str, str] = {}
        """What evictions from a node were last answered."""
        self._asked: dict[str, float] = {}
        """When VMs of a node were last asked to leave."""

    async def advance(self, pool: SriovNetworkPool, views: Sequence[NodeView]) -> Progress:
        """Settle, drain, grant, and give nodes back.

        Raises:
            ConflictError: the ledger was written by somebody else; the queue decides again on what it says now.
            ApiError: a write failed; the queue tries again.
        """
        name, now = pool.metadata.name, int(self._clock())
        memory = self._memory_of(pool, views, now)
        async with self._ledger.deciding:
            before = self._ledger.current.of(name)
            part = advance_ledger(before, pool, views, now=now)
            memory.note_ends(before, part, now)
            empty, ours = await self._drain(before, part, pool, views, memory)
            part = grant_drained(_joined(part, ours), pool, views, empty, now=now)
            part = self._begin_harmless(part, pool, views, memory, now)
            part = await self._begin_disruptive(part, pool, views, memory, now)
            await self._save(name, before, part)
            after = await self._uncordon(part)
            memory.note_ends(part, after, now)
            await self._save(name, part, after)
        waits = [_again(before, after, pool, now), memory.next_look(now)]
        again_s = min((wait for wait in waits if wait is not None), default=None)
        return Progress(problems=tuple(find_rollout_problems(pool, after, views, memory, self._answers, now)), again_s=again_s)

    def _memory_of(self, pool: SriovNetworkPool, views: Sequence[NodeView], now: int) -> RolloutMemory:
        name, generation = pool.metadata.name, pool.metadata.generation
        memory = self._memories.get(name)
        if memory is None or memory.generation != generation:
            memory = self._memories[name] = RolloutMemory(generation=generation, since=now)
        memory.nodes, memory.waits, memory.left_out = len(views), False, 0
        return memory

    async def forget(self, name: str) -> None:
        """Give back what is still cordoned for a pool that is gone, and close its books.

        Raises:
            ApiError: a write failed; the queue tries again.
        """
        async with self._ledger.deciding:
            self._memories.pop(name, None)
            part = self._ledger.current.pools.get(name)
            if part is None:
                self._told.pop(name, None)
                return
            for node, entry in part.entries.items():
                if entry.cordoned:
                    await self._drainer.uncordon(node)
            await self._ledger.save(self._ledger.current.with_pool(name, None))
            self._told.pop(name, None)
            for node in part.entries:
                self._answers.pop(node, None)
                self._asked.pop(node, None)
                self._enqueue(node_key(node))

    async def _drain(
        self,
        before: PoolLedger,
        part: PoolLedger,
        pool: SriovNetworkPool,
        views: Sequence[NodeView],
        memory: RolloutMemory,
    ) -> tuple[set[str], dict[str, Entry]]:
        """Go on with drains that are in the ledger.

        Returns:
            The nodes that are cordoned and empty; and entries of nodes whose administrator has taken back a cordon that was
            there first: the books have to say that the cordon is vmnic's before vmnic makes one.
        """
        empty, ours = set(), {}
        may_evict = not memory.waits_for_plans(views, int(self._clock()))
        for view in views:
            entry, was = part.entries.get(view.name), before.entries.get(view.name)
            if entry is None or was is None or not entry.state is was.state is EntryState.DRAINING:
                continue
            try:
                if not entry.cordoned and not await self._drainer.is_cordoned(view.name):
                    ours[view.name] = msgspec.structs.replace(entry, cordoned=True)
                elif await self._is_empty(view, pool, entry, may_evict=may_evict):
                    empty.add(view.name)
            except ApiError as error:
                _log.warning("node %s: the drain goes on later: %s", view.name, error.message, extra={"node": view.name})
        return empty, ours

    async def _is_empty(self, view: NodeView, pool: SriovNetworkPool, entry: Entry, *, may_evict: bool) -> bool:
        """Cordon a node and ask the VMs to leave that are in the way; return whether there are none.

        While other nodes may still publish plans for an edit, it is not known which of them a VM could stay on.
        """
        if entry.cordoned:
            await self._drainer.cordon(view.name, pool.metadata.name)
        pending = eligible_changes(view, pool)
        if pending.leaving:
            now = self._clock()
            if may_evict and now - self._asked.get(view.name, 0.0) >= _DRAIN_S:
                self._asked[view.name] = now
                self._answers[view.name] = await self._drainer.evict(view.name, pending.leaving, pending.resources)
            return False
        return not pending.unfenced or not await self._drainer.has_pods(view.name, pending.unfenced)

    def _begin_harmless(
        self, part: PoolLedger, pool: SriovNetworkPool, views: Sequence[NodeView], memory: RolloutMemory, now: int
    ) -> PoolLedger:
        ledger = self._with(pool, part)
        starts = select_non_disruptive(ledger, pool, views, without=memory.pausing(now))
        return _joined(part, self._entries_of(ledger, starts, pool, memory, disruptive=False, now=now))

    async def _begin_disruptive(
        self, part: PoolLedger, pool: SriovNetworkPool, views: Sequence[NodeView], memory: RolloutMemory, now: int
    ) -> PoolLedger:
        """Choose by the caches, and if any node may begin, once more by what the API server says of the nodes now."""
        ledger = self._with(pool, part)
        without = memory.pausing(now) | memory.refused(now)
        if not select_disruptive(ledger, pool, views, without=without):
            return part
        memory.waits = True
        if memory.waits_for_plans(views, now):
            return part
        free_only = now < memory.free_until and free_nodes_come(part, pool, views, without=memory.pausing(now))
        if free_only and not select_disruptive(ledger, pool, views, without=without, free_only=True):
            return part
        live = await self._drainer.read_nodes()
        views = [
            replace(view, ready=node.ready, cordoned=node.spec.unschedulable)
            for view in views
            if (node := live.get(view.name)) is not None
        ]
        starts = match_starts(self._drainer, ledger, pool, views, memory, now, free_only=free_only)
        return _joined(part, self._entries_of(ledger, starts, pool, memory, disruptive=True, now=now))

    def _entries_of(
        self,
        ledger: Ledger,
        starts: Sequence[RolloutSlot],
        pool: SriovNetworkPool,
        memory: RolloutMemory,
        *,
        disruptive: bool,
        now: int,
    ) -> dict[str, Entry]:
        """Write down as many of the starts as the ledger has room for."""
        fits = fitting(ledger, starts)
        memory.left_out += len(starts) - len(fits)
        return entries_of(fits, pool, disruptive=disruptive, now=now)

    async def _save(self, name: str, before: PoolLedger, part: PoolLedger) -> None:
        """Write the ledger before anything else; the nodes then copy their grants from it."""
        if part != before:
            await self._ledger.save(self._ledger.current.with_pool(name, part))
        # Not what was written now: a write whose answer was lost is only known of once the ledger was read again.
        told = self._told.get(name, PoolLedger())
        self._told[name] = part
        for node in {*told.entries, *part.entries}:
            was, entry = told.entries.get(node), part.entries.get(node)
            if was != entry:
                self._enqueue(node_key(node))
                _tell(name, node, was, entry)

    async def _uncordon(self, part: PoolLedger) -> PoolLedger:
        """Give nodes back whose run or drain is over."""
        entries = dict(part.entries)
        for node, entry in part.entries.items():
            if not entry.to_uncordon:
                continue
            await self._drainer.uncordon(node)
            self._answers.pop(node, None)
            self._asked.pop(node, None)
            if entry.state is EntryState.ENDED:
                del entries[node]
            else:
                entries[node] = msgspec.structs.replace(entry, cordoned=False)
        return msgspec.structs.replace(part, entries=entries)

    def _with(self, pool: SriovNetworkPool, part: PoolLedger) -> Ledger:
        return self._ledger.current.with_pool(pool.metadata.name, part)


def _joined(part: PoolLedger, entries: dict[str, Entry]) -> PoolLedger:
    return msgspec.structs.replace(part, entries=part.entries | entries) if entries else part


def _again(before: PoolLedger, part: PoolLedger, pool: SriovNetworkPool, now: int) -> float | None:
    """When a drain is looked at again, at once where it was just written down; when a rest, or the time of a grant, is over."""
    waits = [
        _DRAIN_S if node in before.entries else _SOON_S
        for node, entry in part.entries.items()
        if entry.state is EntryState.DRAINING
    ]
    waits += [max(entry.until - now, 1.0) for entry in part.entries.values() if entry.state is EntryState.RESTING]
    granted = [entry for entry in part.entries.values() if entry.state in (EntryState.GRANTED, EntryState.REVOKED)]
    waits += [max(deadline_of(entry, pool) - now, 1.0) for entry in granted]
    return min(waits, default=None)


def _tell(pool: str, node: str, was: Entry | None, entry: Entry | None) -> None:
    """Log what a person would ask about."""
    if entry is not None and (was is None or was.state is not entry.state):
        words = {EntryState.GRANTED: "may start", EntryState.DRAINING: "is drained", EntryState.FAILED: "failed"}
        word = words.get(entry.state)
        if word:
            _log.info("pool %s: node %s %s", pool, node, word, extra={"pool": pool, "node": node})
