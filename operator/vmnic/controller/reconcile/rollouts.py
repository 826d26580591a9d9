"""How a pool's change goes through its nodes: slots come back, drains go on, and who may begins. Effects follow the ledger.

The ledger says first what is about to be done, then it is done; a controller that dies in between leaves a successor that
finds it there and does it again: to cordon, to evict, to grant and to uncordon may all be repeated.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from ...api.pool import PoolProblem, SriovNetworkPool
from ...kube.errors import ApiError
from ...nodes.budget import Start, choose_disruptive, choose_harmless, entries_of, grant_drained
from ...nodes.ledger import Entry, EntryState, Ledger, NodeView, PoolLedger
from ...nodes.pending import pending_of
from ...nodes.settle import settle_ledger
from ..drain import Drainer, Matching
from ..keys import node_key
from ..ledger import LedgerStore
from ..world import Enqueue

__all__ = ["Progress", "Rollouts"]

_log = logging.getLogger(__name__)

_SOON_S = 0.05
_DRAIN_S = 5.0
"""Between looks at a drain: an eviction that was refused is asked for again."""
_REFUSED_S = 15
"""For so long nobody looks again whether a node's VMs can be moved."""
_TRIES = 20
"""Nodes whose VMs are matched in one pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a pass has left."""

    problems: tuple[PoolProblem, ...] = ()
    again_s: float | None = None
    """When to look again though nothing changes; None: need not be."""


@dataclass(slots=True)
class _Refusals:
    """Why nodes are not drained, and until when that is believed."""

    generation: int = 0
    """Of the pool."""
    until: dict[str, int] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


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
        self._refusals: dict[str, _Refusals] = {}
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
        async with self._ledger.deciding:
            before = self._ledger.current.of(name)
            part = settle_ledger(before, pool, views, now=now)
            empty, ours = await self._drain(before, part, pool, views)
            part = grant_drained(_joined(part, ours), pool, views, empty)
            part = self._begin_harmless(part, pool, views, now)
            part = await self._begin_disruptive(part, pool, views, now)
            await self._save(name, before, part)
            after = await self._uncordon(part)
            await self._save(name, part, after)
        waits = [_again(before, after, now), *(until - now for until in self._refusals[name].until.values())]
        again_s = min((wait for wait in waits if wait is not None), default=None)
        return Progress(problems=tuple(self._problems(pool, after, views, now)), again_s=again_s)

    async def forget(self, name: str) -> None:
        """Give back what is still cordoned for a pool that is gone, and close its books.

        Raises:
            ApiError: a write failed; the queue tries again.
        """
        async with self._ledger.deciding:
            part = self._ledger.current.pools.get(name)
            if part is None:
                return
            for node, entry in part.entries.items():
                if entry.cordoned:
                    await self._drainer.uncordon(node)
            await self._ledger.save(self._ledger.current.with_pool(name, None))
            self._told.pop(name, None)
            self._refusals.pop(name, None)
            for node in part.entries:
                self._enqueue(node_key(node))

    async def _drain(
        self, before: PoolLedger, part: PoolLedger, pool: SriovNetworkPool, views: Sequence[NodeView]
    ) -> tuple[set[str], dict[str, Entry]]:
        """Go on with drains that are in the books.

        Returns:
            The nodes that are cordoned and empty; and entries of nodes whose administrator has taken back a cordon that was
            there first: the books have to say that the cordon is vmnic's before vmnic makes one.
        """
        empty, ours = set(), {}
        for view in views:
            entry, was = part.entries.get(view.name), before.entries.get(view.name)
            if entry is None or was is None or not entry.state is was.state is EntryState.DRAINING:
                continue
            try:
                if not entry.cordoned and not await self._drainer.is_cordoned(view.name):
                    ours[view.name] = msgspec.structs.replace(entry, cordoned=True)
                elif await self._is_empty(view, pool, entry):
                    empty.add(view.name)
            except ApiError as error:
                _log.warning("node %s: the drain goes on later: %s", view.name, error.message, extra={"node": view.name})
        return empty, ours

    async def _is_empty(self, view: NodeView, pool: SriovNetworkPool, entry: Entry) -> bool:
        """Cordon a node and ask those to leave who are in the way; tells whether nobody is."""
        if entry.cordoned:
            await self._drainer.cordon(view.name, pool.metadata.name)
        pending = pending_of(view, pool)
        if pending.leaving:
            now = self._clock()
            if now - self._asked.get(view.name, 0.0) >= _DRAIN_S:
                self._asked[view.name] = now
                self._answers[view.name] = await self._drainer.evict(pending.leaving)
            return False
        return not pending.unfenced or not await self._drainer.has_pods(view.name, pending.unfenced)

    def _begin_harmless(self, part: PoolLedger, pool: SriovNetworkPool, views: Sequence[NodeView], now: int) -> PoolLedger:
        starts = choose_harmless(self._with(pool, part), pool, views)
        return _joined(part, entries_of(starts, pool, disruptive=False, now=now))

    async def _begin_disruptive(
        self, part: PoolLedger, pool: SriovNetworkPool, views: Sequence[NodeView], now: int
    ) -> PoolLedger:
        """Choose by the caches, and if anybody may begin, once more by what the API server says of the nodes now."""
        ledger = self._with(pool, part)
        known = self._refusals.setdefault(pool.metadata.name, _Refusals(generation=pool.metadata.generation))
        if known.generation != pool.metadata.generation:
            known = self._refusals[pool.metadata.name] = _Refusals(generation=pool.metadata.generation)
        known.until = {node: until for node, until in known.until.items() if until > now}
        if not choose_disruptive(ledger, pool, views, without=known.until):
            return part
        live = await self._drainer.read_nodes()
        views = [
            replace(view, ready=node.ready, cordoned=node.spec.unschedulable)
            for view in views
            if (node := live.get(view.name)) is not None
        ]
        starts = self._match(ledger, pool, views, known, now)
        return _joined(part, entries_of(starts, pool, disruptive=True, now=now))

    def _match(
        self, ledger: Ledger, pool: SriovNetworkPool, views: Sequence[NodeView], known: _Refusals, now: int
    ) -> Sequence[Start]:
        """Leave out nodes whose VMs have nowhere to go."""
        for _ in range(_TRIES):
            starts = choose_disruptive(ledger, pool, views, without=known.until)
            refused = self._refused(starts, ledger, views)
            if not refused:
                return starts
            known.texts |= refused
            known.until |= dict.fromkeys(refused, now + _REFUSED_S)
        return ()

    def _refused(self, starts: Sequence[Start], ledger: Ledger, views: Sequence[NodeView]) -> dict[str, str]:
        if not any(start.pending.leaving for start in starts):
            return {}
        matching = self._drainer.matching()
        self._note_draining(matching, ledger, views)
        refused = {}
        for start in starts:
            why = matching.refusal(start.view.name, start.pending.leaving)
            if why:
                refused[start.view.name] = why
            else:
                matching.accept(start.view.name, start.pending.leaving)
        return refused

    def _note_draining(self, matching: Matching, ledger: Ledger, views: Sequence[NodeView]) -> None:
        draining = ledger.busy(disruptive=True)
        for view in views:
            if view.name in draining:
                matching.accept(view.name, [held for pf in view.state.status.pfs for held in pf.held])

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

    def _problems(self, pool: SriovNetworkPool, part: PoolLedger, views: Sequence[NodeView], now: int) -> list[PoolProblem]:
        """Say why nodes are not drained."""
        known = self._refusals.get(pool.metadata.name, _Refusals())
        there = {view.name for view in views}
        problems = [
            PoolProblem(node=node, reason="NoVfsForDrain", message=known.texts[node][:512])
            for node in sorted(known.until)
            if node in there and node not in part.entries and known.until[node] > now
        ]
        for node, entry in sorted(part.entries.items()):
            answer = self._answers.get(node)
            if entry.state is EntryState.DRAINING and answer:
                problems.append(PoolProblem(node=node, reason="Draining", message=answer[:512]))
        return problems


def _joined(part: PoolLedger, entries: dict[str, Entry]) -> PoolLedger:
    return msgspec.structs.replace(part, entries=part.entries | entries) if entries else part


def _again(before: PoolLedger, part: PoolLedger, now: int) -> float | None:
    """When a drain is looked at again, at once where it has just been written down; and when one that rests is tried again."""
    waits = [
        _DRAIN_S if node in before.entries else _SOON_S
        for node, entry in part.entries.items()
        if entry.state is EntryState.DRAINING
    ]
    waits += [max(entry.until - now, 1.0) for entry in part.entries.values() if entry.state is EntryState.RESTING]
    return min(waits, default=None)


def _tell(pool: str, node: str, was: Entry | None, entry: Entry | None) -> None:
    """Log what a person would ask about."""
    if entry is not None and (was is None or was.state is not entry.state):
        words = {EntryState.GRANTED: "may start", EntryState.DRAINING: "is drained", EntryState.FAILED: "failed"}
        word = words.get(entry.state)
        if word:
            _log.info("pool %s: node %s %s", pool, node, word, extra={"pool": pool, "node": node})
