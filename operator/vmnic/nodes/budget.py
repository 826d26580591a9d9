"""Who may start: harmless changes within `maxConcurrent`, disruptive ones within `maxUnavailable`. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from ..api.pool import SriovNetworkPool
from .ledger import Entry, EntryState, Ledger, NodeView, PoolLedger
from .pending import Pending, pending_of
from .settle import is_stopped

__all__ = ["Start", "choose_disruptive", "choose_harmless", "entries_of", "grant_drained"]

_MOST = 1000
"""Nodes under way for one pool, whatever its share says: an entry takes up to 600 bytes, and a ConfigMap holds 1 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One node that may begin."""

    view: NodeView
    pending: Pending


def choose_harmless(ledger: Ledger, pool: SriovNetworkPool, nodes: Sequence[NodeView]) -> tuple[Start, ...]:
    """Say which nodes may carry out harmless plans now.

    Args:
        ledger: The ledger, the pool's part settled.
        pool: The pool.
        nodes: Its nodes, of which a percentage is a share.
    """
    part = ledger.of(pool.metadata.name)
    free = _resolve(pool.spec.rollout.max_concurrent, len(nodes)) - part.running(disruptive=False)
    free = min(free, _room(part, pool))
    chosen: list[Start] = []
    for view in _by_turn(nodes):
        if len(chosen) >= free:
            break
        if view.name in part.entries:
            continue
        pending = pending_of(view, pool)
        if pending.harmless and not is_stopped(pool, part, approved=pending.approved):
            chosen.append(Start(view=view, pending=pending))
    return tuple(chosen)


def choose_disruptive(
    ledger: Ledger, pool: SriovNetworkPool, nodes: Sequence[NodeView], *, without: Collection[str] = ()
) -> tuple[Start, ...]:
    """Say which nodes may go out of service now; a node that is out of service already counts.

    Args:
        ledger: The ledger, the pool's part settled.
        pool: The pool.
        nodes: Its nodes, as they are at this moment.
        without: Nodes whose VMs have nowhere to go.
    """
    name, names = pool.metadata.name, {view.name for view in nodes}
    part = ledger.of(name)
    allowed = _resolve(pool.spec.rollout.max_unavailable, len(nodes))
    changing = ledger.busy(disruptive=True) & names
    down = changing | {view.name for view in nodes if not view.available}
    elsewhere = ledger.busy(but=name)
    room = _room(part, pool)
    chosen: list[Start] = []
    for view in _by_turn(nodes):
        if len(changing) >= allowed or len(chosen) >= room:
            break
        counts = view.name in down or len(down) < allowed
        if not counts or view.name in part.entries or view.name in elsewhere or view.name in without:
            continue
        pending = pending_of(view, pool)
        if pending.disruptive and not is_stopped(pool, part, approved=pending.approved):
            chosen.append(Start(view=view, pending=pending))
            changing.add(view.name)
            down.add(view.name)
    return tuple(chosen)


def entries_of(starts: Iterable[Start], pool: SriovNetworkPool, *, disruptive: bool, now: int) -> dict[str, Entry]:
    """Write down who begins: with a drain where the node has to be cordoned, with a grant elsewhere."""
    entries = {}
    for start in starts:
        drains = disruptive and start.pending.cordons
        entries[start.view.name] = Entry(
            generation=pool.metadata.generation,
            boot_id=start.view.state.status.boot_id,
            digests=start.pending.digests if disruptive else start.pending.harmless,
            state=EntryState.DRAINING if drains else EntryState.GRANTED,
            disruptive=disruptive,
            # An administrator's own cordon stays.
            cordoned=drains and not start.view.cordoned,
            since=now if drains else 0,
        )
    return entries


def grant_drained(part: PoolLedger, pool: SriovNetworkPool, nodes: Iterable[NodeView], empty: Collection[str]) -> PoolLedger:
    """Grant the plans of nodes that are cordoned and `empty`: no pod is there that could get or hold a device."""
    entries = dict(part.entries)
    for view in nodes:
        entry = entries.get(view.name)
        if entry is None or entry.state is not EntryState.DRAINING or view.name not in empty:
            continue
        pending = pending_of(view, pool)
        if pending.digests and not pending.leaving:
            entries[view.name] = msgspec.structs.replace(entry, state=EntryState.GRANTED, digests=pending.digests)
    return msgspec.structs.replace(part, entries=entries)


def _room(part: PoolLedger, pool: SriovNetworkPool) -> int:
    """How many more may be under way at all; the first node of a generation goes alone."""
    most = 1 if part.proven_generation < pool.metadata.generation else _MOST
    return most - part.running()


def _by_turn(nodes: Iterable[NodeView]) -> list[NodeView]:
    return sorted(nodes, key=lambda view: view.name)


def _resolve(limit: int | str, nodes: int) -> int:
    """Turn a number or a share into nodes: rounded up, at least one."""
    if isinstance(limit, int):
        return limit
    return max(1, math.ceil(nodes * int(limit.removesuffix("%")) / 100))
