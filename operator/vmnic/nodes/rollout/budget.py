"""Which nodes may start: harmless changes within `maxConcurrent`, disruptive ones within `maxUnavailable`. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from ...api.pool import SriovNetworkPool
from .eligibility import EligibleChanges, eligible_changes
from .ledger import Entry, EntryState, Ledger, NodeView, PoolLedger
from .progress import is_stopped

__all__ = [
    "RolloutSlot",
    "entries_of",
    "fitting",
    "grant_drained",
    "order_disruptive",
    "select_disruptive",
    "select_non_disruptive",
]

_MOST = 1000
"""Nodes under way for one pool, whatever its share says."""
_LEDGER_BYTES = 700_000
"""So far the ledger is filled. A ConfigMap holds 1 MiB; the rest is for entries that grow while they are under way: another
state, a time, a drained node's plans for more functions."""
_ENTRY_BYTES = 250
"""What an entry takes beside its names and digests, at most."""
_BOOT_ID_CHARS = 64
_DIGEST_BYTES = 8
"""What a digest takes beside its letters and its function's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSlot:
    """One node that may begin."""

    view: NodeView
    pending: EligibleChanges


def select_non_disruptive(
    ledger: Ledger, pool: SriovNetworkPool, nodes: Sequence[NodeView], *, without: Collection[str] = ()
) -> tuple[RolloutSlot, ...]:
    """Say which nodes may carry out harmless plans now.

    Args:
        ledger: The ledger, the pool's part settled.
        pool: The pool.
        nodes: Its nodes, of which a percentage is a share.
        without: Nodes that pause.
    """
    part = ledger.of(pool.metadata.name)
    free = _resolve(pool.spec.rollout.max_concurrent, len(nodes)) - part.running(disruptive=False)
    free = min(free, _room(part, pool))
    chosen: list[RolloutSlot] = []
    for view in _by_turn(nodes, pool):
        if len(chosen) >= free:
            break
        if view.name in part.entries or view.name in without:
            continue
        pending = eligible_changes(view, pool)
        if pending.harmless and not is_stopped(pool, part, approved=pending.approved):
            chosen.append(RolloutSlot(view=view, pending=pending))
    return tuple(chosen)


def select_disruptive(
    ledger: Ledger,
    pool: SriovNetworkPool,
    nodes: Sequence[NodeView],
    *,
    without: Collection[str] = (),
    free_only: bool = False,
    candidates: Sequence[RolloutSlot] | None = None,
) -> tuple[RolloutSlot, ...]:
    """Say which nodes may go out of service now; a node that is out of service already counts.

    Args:
        ledger: The ledger, the pool's part settled.
        pool: The pool.
        nodes: Its nodes, as they are at this moment.
        without: Nodes that pause, or whose VMs have nowhere to go.
        free_only: Whether nodes that VMs would have to leave wait for others.
        candidates: What `order_disruptive` gave for these nodes, where several choices are made; None: not known yet.
    """
    name, names = pool.metadata.name, {view.name for view in nodes}
    part = ledger.of(name)
    allowed = _resolve(pool.spec.rollout.max_unavailable, len(nodes))
    changing = ledger.busy(disruptive=True) & names
    down = changing | {view.name for view in nodes if not view.available}
    room = _room(part, pool)
    if len(changing) >= allowed or room <= 0:
        return ()
    barred = {*part.entries, *ledger.busy(but=name), *without}
    chosen: list[RolloutSlot] = []
    for start in order_disruptive(part, pool, nodes) if candidates is None else candidates:
        if len(changing) >= allowed or len(chosen) >= room:
            break
        view = start.view
        counts = view.name not in barred and (view.name in down or len(down) < allowed)
        if counts and not (free_only and start.pending.leaving):
            chosen.append(start)
            changing.add(view.name)
            down.add(view.name)
    return tuple(chosen)


def order_disruptive(part: PoolLedger, pool: SriovNetworkPool, nodes: Iterable[NodeView]) -> list[RolloutSlot]:
    """Give the disruptive plans that may start, those first that the fewest devices have to be given back for."""
    found = [
        RolloutSlot(view=view, pending=pending)
        for view in _by_turn(nodes, pool)
        if (pending := eligible_changes(view, pool)).disruptive and not is_stopped(pool, part, approved=pending.approved)
    ]
    return sorted(found, key=lambda one: (one.view.leaves(pool.metadata.name), len(one.pending.leaving)))


def fitting(ledger: Ledger, starts: Sequence[RolloutSlot]) -> tuple[RolloutSlot, ...]:
    """Return as many of the starts as the ledger has room for, in their order."""
    room = _LEDGER_BYTES - ledger.size() if starts else 0
    chosen = []
    for start in starts:
        room -= _bytes_of(start)
        if room < 0:
            break
        chosen.append(start)
    return tuple(chosen)


def entries_of(starts: Iterable[RolloutSlot], pool: SriovNetworkPool, *, disruptive: bool, now: int) -> dict[str, Entry]:
    """Write down the nodes that begin: with a drain where the node has to be cordoned, with a grant elsewhere."""
    entries = {}
    for start in starts:
        drains = disruptive and start.pending.cordons
        entries[start.view.name] = Entry(
            generation=pool.metadata.generation,
            boot_id=start.view.state.status.boot_id[:_BOOT_ID_CHARS],
            digests=start.pending.digests if disruptive else start.pending.harmless,
            state=EntryState.DRAINING if drains else EntryState.GRANTED,
            disruptive=disruptive,
            # An administrator's own cordon stays.
            cordoned=drains and not start.view.cordoned,
            since=now,
        )
    return entries


def grant_drained(
    part: PoolLedger, pool: SriovNetworkPool, nodes: Iterable[NodeView], empty: Collection[str], *, now: int
) -> PoolLedger:
    """Grant the plans of nodes that are cordoned and `empty`: no pod is there that could get or hold a device."""
    entries = dict(part.entries)
    for view in nodes:
        entry = entries.get(view.name)
        if entry is None or entry.state is not EntryState.DRAINING or view.name not in empty:
            continue
        pending = eligible_changes(view, pool)
        if pending.digests and not pending.leaving:
            entries[view.name] = msgspec.structs.replace(entry, state=EntryState.GRANTED, digests=pending.digests, since=now)
    return msgspec.structs.replace(part, entries=entries)


def _room(part: PoolLedger, pool: SriovNetworkPool) -> int:
    """How many more may be under way at all; the first node of a generation goes alone."""
    most = 1 if part.proven_generation < pool.metadata.generation else _MOST
    return most - part.running()


def _by_turn(nodes: Iterable[NodeView], pool: SriovNetworkPool) -> list[NodeView]:
    """Order nodes by name; those that only give functions up come last, since others wait for the change."""
    return sorted(nodes, key=lambda view: (view.leaves(pool.metadata.name), view.name))


def _bytes_of(start: RolloutSlot) -> int:
    """Return how many bytes an entry takes in the ledger, at most."""
    digests = sum(len(address) + len(digest) + _DIGEST_BYTES for address, digest in start.pending.digests.items())
    return _ENTRY_BYTES + len(start.view.name) + digests


def _resolve(limit: int | str, nodes: int) -> int:
    """Turn a number or a share into nodes: rounded up, at least one."""
    if isinstance(limit, int):
        return limit
    return max(1, math.ceil(nodes * int(limit.removesuffix("%")) / 100))
