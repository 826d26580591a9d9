"""Rollout of a pool change over its nodes.

Finished slots return, drains continue, and eligible nodes start. The ledger is written before any effect. If a controller dies
in between, its successor finds the entry and repeats the effect: cordon, evict, grant and uncordon are all idempotent.
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
"""Interval between checks of a drain. A refused eviction is then requested again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Result of one pass."""

    problems: tuple[PoolProblem, ...] = ()
    again_s: float | None = None
    """Seconds until the next pass even if nothing changes. None if none is needed."""


class Rollouts:
    """Advances the rollouts of all pools.

    Args:
        ledger: The ledger of grants.
        drainer: Drains nodes.
        enqueue: Enqueues nodes whose grants have changed.
        clock: Returns the seconds since 1970.
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
        """Entries for which nodes were last enqueued, by pool."""
        self._answers: dict[str, str] = {}
        """Last answer to evictions from a node."""
        self._asked: dict[str, float] = {}
        """Time of the last evictions from a node."""

    async def advance(self, pool: SriovNetworkPool, views: Sequence[NodeView]) -> Progress:
        """Settle ended changes, continue drains, grant changes, and uncordon nodes.

        Raises:
            ConflictError: another client wrote the ledger. The queue decides again on its new content.
            ApiError: a write failed. The queue retries.
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
            # An entry goes only after its node is uncordoned. If this process ends before, its successor uncordons the node.
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
        """Uncordon the remaining nodes of a deleted pool, and remove its entries from the ledger.

        Raises:
            ApiError: a write failed. The queue retries.
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
        """Advance the drains that are in the ledger.

        Returns:
            The nodes that are cordoned and empty, and new entries for nodes whose administrator has removed a cordon that
            preceded the drain. The ledger has to record a cordon as vmnic's before vmnic sets it.
        """
        empty, ours = set(), {}
        may_evict = not memory.waits_for_plans(views, int(self._clock()))
        for view in views:
            entry, was = part.entries.get(view.name), before.entries.get(view.name)
            # An entry of this pass is not written yet, so its node must not be touched.
            if entry is None or was is None or not entry.state is was.state is EntryState.DRAINING:
                continue
            try:
                if not entry.cordoned and not await self._drainer.is_cordoned(view.name):
                    ours[view.name] = msgspec.structs.replace(entry, cordoned=True)
                elif await self._is_empty(view, pool, entry, may_evict=may_evict):
                    empty.add(view.name)
            # One node must not hold up the drains of the others.
            except ApiError as error:
                _log.warning("node %s: the drain continues later: %s", view.name, error.message, extra={"node": view.name})
        return empty, ours

    async def _is_empty(self, view: NodeView, pool: SriovNetworkPool, entry: Entry, *, may_evict: bool) -> bool:
        """Cordon a node, evict the VMs that are in the way, and return whether there are none.

        While other nodes may still publish plans for an edit, it is unknown on which of them a VM could stay, so no VM is
        evicted.
        """
        # In each pass, because a leader may have ended between its write of the ledger and the cordon.
        if entry.cordoned:
            await self._drainer.cordon(view.name, pool.metadata.name)
        pending = eligible_changes(view, pool)
        if pending.leaving:
            now = self._clock()
            if may_evict and now - self._asked.get(view.name, 0.0) >= _DRAIN_S:
                self._asked[view.name] = now
                self._answers[view.name] = await self._drainer.evict(view.name, pending.leaving, pending.resources)
            return False
        # No fence holds back new pods from these resources, so a pod counts even before it has its device.
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
        """Start disruptive changes.

        Nodes are chosen from the caches. If any qualifies, the choice is repeated with the Nodes as the API server has them
        now.
        """
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
        """Return entries for as many of the starts as fit into the ledger."""
        fits = fitting(ledger, starts)
        memory.left_out += len(starts) - len(fits)
        return entries_of(fits, pool, disruptive=disruptive, now=now)

    async def _save(self, name: str, before: PoolLedger, part: PoolLedger) -> None:
        """Write the ledger, then enqueue the nodes whose entries changed.

        They copy their grants from it.
        """
        if part != before:
            await self._ledger.save(self._ledger.current.with_pool(name, part))
        # Compared with what nodes were enqueued for, not with `before`: if the answer to a write was lost, its effect is known
        # only after the ledger has been read again.
        told = self._told.get(name, PoolLedger())
        self._told[name] = part
        for node in {*told.entries, *part.entries}:
            was, entry = told.entries.get(node), part.entries.get(node)
            if was != entry:
                self._enqueue(node_key(node))
                _tell(name, node, was, entry)

    async def _uncordon(self, part: PoolLedger) -> PoolLedger:
        """Uncordon nodes whose change or drain has ended."""
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
    """Return the seconds until the next pass, or None.

    A drain is checked periodically, and almost at once after it was recorded. A rest or a grant is checked when its time is
    over.
    """
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
    """Log changes of a node's state that an administrator may ask about."""
    if entry is not None and (was is None or was.state is not entry.state):
        words = {EntryState.GRANTED: "may start", EntryState.DRAINING: "is drained", EntryState.FAILED: "failed"}
        word = words.get(entry.state)
        if word:
            _log.info("pool %s: node %s %s", pool, node, word, extra={"pool": pool, "node": node})
