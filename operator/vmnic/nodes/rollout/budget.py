"""Nodes that may start within the budgets of a pool.

`maxConcurrent` limits changes that are not disruptive, `maxUnavailable` those that are. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from ...api.pool import SriovNetworkPool
from ...checked.amounts import resolve_percentage
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
"""Most nodes under way for one pool, regardless of its percentage."""
_LEDGER_BYTES = 700_000
"""Largest size of the ledger, in bytes. A ConfigMap holds 1 MiB. The rest is for entries that grow while they are under
way: another state, a time, a drained node's plans for more PFs.
"""
_ENTRY_BYTES = 250
"""Largest size of an entry without its names and digests, in bytes."""
_BOOT_ID_CHARS = 64
_DIGEST_BYTES = 8
"""Bytes that a digest takes besides its own characters and those of the PCI address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSlot:
    """One node that may begin."""

    view: NodeView
    pending: EligibleChanges


def select_non_disruptive(
    ledger: Ledger, pool: SriovNetworkPool, nodes: Sequence[NodeView], *, without: Collection[str] = ()
) -> tuple[RolloutSlot, ...]:
    """Return the nodes that may now carry out plans that are not disruptive.

    Args:
        ledger: The ledger, in which the pool's part is up to date.
        pool: The pool.
        nodes: All its nodes, which a percentage refers to.
        without: Names of nodes that pause.
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
    """Return the nodes that may now go out of service.

    A node that is already out of service counts against the budget.

    Args:
        ledger: The ledger, in which the pool's part is up to date.
        pool: The pool.
        nodes: All its nodes, as observed now.
        without: Names of nodes that pause, or whose VMs have nowhere to go.
        free_only: Whether nodes that VMs would have to leave wait for others.
        candidates: Result of `order_disruptive` for these nodes, if the caller selects several times; None to compute it.
    """
    name, names = pool.metadata.name, {view.name for view in nodes}
    part = ledger.of(name)
    allowed = _resolve(pool.spec.rollout.max_unavailable, len(nodes))
    # A node that another pool takes out of service is out of service for this pool too.
    changing = ledger.busy(disruptive=True) & names
    down = changing | {view.name for view in nodes if not view.available}
    room = _room(part, pool)
    if len(changing) >= allowed or room <= 0:
        return ()
    # A node that changes for another pool starts no second change.
    barred = {*part.entries, *ledger.busy(but=name), *without}
    chosen: list[RolloutSlot] = []
    for start in order_disruptive(part, pool, nodes) if candidates is None else candidates:
        if len(changing) >= allowed or len(chosen) >= room:
            break
        view = start.view
        # A node that is already out of service takes no more capacity away, so it may start even if `down` is full.
        counts = view.name not in barred and (view.name in down or len(down) < allowed)
        if counts and not (free_only and start.pending.leaving):
            chosen.append(start)
            changing.add(view.name)
            down.add(view.name)
    return tuple(chosen)


def order_disruptive(part: PoolLedger, pool: SriovNetworkPool, nodes: Iterable[NodeView]) -> list[RolloutSlot]:
    """Return the disruptive plans that may start, with the fewest held devices first."""
    found = [
        RolloutSlot(view=view, pending=pending)
        for view in _by_turn(nodes, pool)
        if (pending := eligible_changes(view, pool)).disruptive and not is_stopped(pool, part, approved=pending.approved)
    ]
    return sorted(found, key=lambda one: (one.view.leaves(pool.metadata.name), len(one.pending.leaving)))


def fitting(ledger: Ledger, starts: Sequence[RolloutSlot]) -> tuple[RolloutSlot, ...]:
    """Return the first slots that the ledger has room for."""
    room = _LEDGER_BYTES - ledger.size() if starts else 0
    chosen = []
    for start in starts:
        room -= _bytes_of(start)
        # The order stays: a smaller entry further down does not overtake one that has no room.
        if room < 0:
            break
        chosen.append(start)
    return tuple(chosen)


def entries_of(starts: Iterable[RolloutSlot], pool: SriovNetworkPool, *, disruptive: bool, now: int) -> dict[str, Entry]:
    """Return the entries of nodes that begin.

    An entry begins with a drain if the node has to be cordoned, otherwise with a grant.
    """
    entries = {}
    for start in starts:
        drains = disruptive and start.pending.cordons
        entries[start.view.name] = Entry(
            generation=pool.metadata.generation,
            boot_id=start.view.state.status.boot_id[:_BOOT_ID_CHARS],
            # A node that goes out of service carries out its other plans in the same turn.
            digests=start.pending.digests if disruptive else start.pending.harmless,
            state=EntryState.DRAINING if drains else EntryState.GRANTED,
            disruptive=disruptive,
            # The cordon of an administrator stays.
            cordoned=drains and not start.view.cordoned,
            since=now,
        )
    return entries


def grant_drained(
    part: PoolLedger, pool: SriovNetworkPool, nodes: Iterable[NodeView], empty: Collection[str], *, now: int
) -> PoolLedger:
    """Grant the plans of drained nodes.

    `empty` are the cordoned nodes without any pod that could get or hold a device.
    """
    entries = dict(part.entries)
    for view in nodes:
        entry = entries.get(view.name)
        if entry is None or entry.state is not EntryState.DRAINING or view.name not in empty:
            continue
        pending = eligible_changes(view, pool)
        # An empty node has no pods that could hold a device, but the agent may also report a program outside pods.
        if pending.digests and not pending.leaving:
            entries[view.name] = msgspec.structs.replace(entry, state=EntryState.GRANTED, digests=pending.digests, since=now)
    return msgspec.structs.replace(part, entries=entries)


def _room(part: PoolLedger, pool: SriovNetworkPool) -> int:
    """Return how many more nodes may be under way, where the first node of a generation goes alone."""
    most = 1 if part.proven_generation < pool.metadata.generation else _MOST
    return most - part.running()


def _by_turn(nodes: Iterable[NodeView], pool: SriovNetworkPool) -> list[NodeView]:
    """Sort nodes by name, with nodes that only release PFs last, because other nodes wait for the change."""
    return sorted(nodes, key=lambda view: (view.leaves(pool.metadata.name), view.name))


def _bytes_of(start: RolloutSlot) -> int:
    """Return the largest size of a slot's entry in the ledger, in bytes."""
    digests = sum(len(address) + len(digest) + _DIGEST_BYTES for address, digest in start.pending.digests.items())
    return _ENTRY_BYTES + len(start.view.name) + digests


def _resolve(limit: int | str, nodes: int) -> int:
    """Convert a number or a percentage to a number of nodes, rounded up and at least one."""
    return max(1, resolve_percentage(limit, nodes, round_up=True))
