"""Progress of the ledger's entries.

Changes end, and drains and grants time out or become unusable. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from ...api.common import seconds_of
from ...api.node_state import ApplyState, NodeNicState, PfStatus
from ...api.pool import SriovNetworkPool
from ...api.reasons import PfReason
from .eligibility import eligible_changes
from .ledger import Entry, EntryState, NodeView, PoolLedger, by_name

__all__ = ["advance_ledger", "deadline_of", "is_stopped"]

_REFUSED_REST_S = 10
"""Pause after a refused change, in seconds, because the cause of the refusal may still be there."""


def advance_ledger(part: PoolLedger, pool: SriovNetworkPool, nodes: Iterable[NodeView], *, now: int) -> PoolLedger:
    """Update a pool's part of the ledger from the observed nodes.

    Slots of ended changes are freed, failures are recorded, and so is the newest generation that a node has applied.

    Args:
        part: The pool's part of the ledger.
        pool: The pool.
        nodes: The nodes of the pool.
        now: Seconds since 1970.
    """
    views = by_name(nodes)
    proven = part.proven_generation
    entries: dict[str, Entry] = {}
    for node, entry in part.entries.items():
        settled, applied = _settle(entry, pool, views.get(node), part, now)
        if applied:
            proven = max(proven, entry.generation)
        if settled is not None:
            entries[node] = _pardon(settled, pool, views.get(node), now)
    return PoolLedger(proven_generation=proven, entries=entries)


def is_stopped(pool: SriovNetworkPool, part: PoolLedger, *, approved: bool = False) -> bool:
    """Return whether no further node may begin.

    Failures do not hold back a plan that a person has approved. `paused` does not hold back a pool that is being removed.
    """
    rollout = pool.spec.rollout
    if rollout.paused and not pool.metadata.deletion_timestamp:
        return True
    return part.failed() >= rollout.max_failures and not approved


def _settle(
    entry: Entry, pool: SriovNetworkPool, view: NodeView | None, part: PoolLedger, now: int
) -> tuple[Entry | None, bool]:
    """Return what remains of an entry, and whether its change was applied."""
    # A node that is gone, or that has no PF of the pool any more, must not count against the budget for ever.
    if entry.state is EntryState.ENDED or view is None:
        return _over(entry), False
    match entry.state:
        case EntryState.FAILED:
            return _settle_failed(entry, pool, view), False
        case EntryState.RESTING:
            awake = now >= entry.until or entry.generation < pool.metadata.generation or eligible_changes(view, pool).approved
            return (None if awake and not entry.cordoned else entry), False
        case EntryState.DRAINING:
            return _settle_drain(entry, pool, view, part, now), False
        case _:
            return _settle_grant(entry, pool, view, now)


def _pardon(entry: Entry, pool: SriovNetworkPool, view: NodeView | None, now: int) -> Entry:
    """Let a failed entry rest if its node was excluded from the pool, so that the rollout continues."""
    excluded = view is not None and view.leaves(pool.metadata.name) and not pool.metadata.deletion_timestamp
    if entry.state is not EntryState.FAILED or not excluded:
        return entry
    return msgspec.structs.replace(entry, state=EntryState.RESTING, until=now + seconds_of(pool.spec.rollout.drain_timeout))


def _over(entry: Entry) -> Entry | None:
    """End an entry, which remains only if the node has to be uncordoned."""
    return msgspec.structs.replace(entry, state=EntryState.ENDED) if entry.cordoned else None


def _settle_failed(entry: Entry, pool: SriovNetworkPool, view: NodeView) -> Entry | None:
    """Keep a failed entry until its node may be tried again or matches its spec.

    The change of a lost node may still be running, so its entry remains.
    """
    pfs = {pf.pci_address: pf for pf in view.state.status.pfs}
    if view.lost and pool.metadata.deletion_timestamp:
        return _over(entry)  # The removal of a pool does not wait for lost nodes.
    if entry.cordoned or any(_is_running(_run(digest, pfs.get(address))) for address, digest in entry.digests.items()):
        return entry
    return None if _again(entry, pool, view) or _is_healed(entry, view, pfs) else entry


def _is_healed(entry: Entry, view: NodeView, pfs: Mapping[str, PfStatus]) -> bool:
    """Return whether nothing is to be done any more, so that there is no plan that a person could approve."""
    found = [pfs.get(address) for address in entry.digests]
    known = view.ready and view.answers
    return known and all(pf is not None and pf.plan is None and pf.problem is None for pf in found)


def _again(entry: Entry, pool: SriovNetworkPool, view: NodeView) -> bool:
    """Return whether a failed node may be tried again.

    A node that was rolled back is tried again only with an approved plan.
    """
    if eligible_changes(view, pool).approved or (entry.silent and view.ready and view.answers):
        return True
    problems = {pf.problem.reason for pf in view.state.status.pfs if pf.problem is not None and pf.pci_address in entry.digests}
    # A new boot ID counts as a change: the message of a failed change names a reboot as one remedy.
    changed = entry.generation < pool.metadata.generation or entry.boot_id != view.state.status.boot_id
    return changed and view.answers and PfReason.ROLLED_BACK not in problems


def _settle_drain(entry: Entry, pool: SriovNetworkPool, view: NodeView, part: PoolLedger, now: int) -> Entry | None:
    """Advance a drain.

    It ends if it takes too long, if the rollout stops or if nothing is to be done any more.
    """
    timeout_s = seconds_of(pool.spec.rollout.drain_timeout)
    # The time is checked before anything else, so a node that stops answering during its drain does not keep its slot.
    if now - entry.since >= timeout_s:
        return msgspec.structs.replace(entry, state=EntryState.RESTING, until=now + timeout_s)
    if not view.answers or not view.ready:
        return entry
    pending = eligible_changes(view, pool)
    if not pending.digests or is_stopped(pool, part, approved=pending.approved):
        return _over(entry)
    return msgspec.structs.replace(entry, digests=pending.digests, generation=pool.metadata.generation)


def _settle_grant(entry: Entry, pool: SriovNetworkPool, view: NodeView, now: int) -> tuple[Entry | None, bool]:
    pfs = {pf.pci_address: pf for pf in view.state.status.pfs}
    runs = [_run(digest, pfs.get(address)) for address, digest in entry.digests.items()]
    # The end comes before the deadline: a change that ended late counts by its result.
    if all(run is not None and not run.is_running for run in runs):
        return _end(entry, runs, now)
    if not entry.since:
        entry = msgspec.structs.replace(entry, since=now)  # An older version did not record the time.
    # A node that is down cannot report an end. It does not time out, but counts as lost after ten minutes.
    if view.ready and now >= deadline_of(entry, pool):
        return msgspec.structs.replace(entry, state=EntryState.FAILED, silent=not view.confirmed), False
    if any(_is_running(run) for run in runs):
        return (msgspec.structs.replace(entry, state=EntryState.FAILED) if view.lost else entry), False
    if entry.state is EntryState.GRANTED and not view.lost and _usable(entry, view.state, pfs):
        return entry, False
    granted = any(pf.grant in entry.digests.values() for pf in view.state.spec.pfs)
    # The agent may be claiming a grant that has just left the spec, until it confirms the generation without it.
    if entry.state is EntryState.REVOKED and not granted and (view.confirmed or view.lost):
        return _end(entry, runs, now)
    return msgspec.structs.replace(entry, state=EntryState.REVOKED), False


def deadline_of(entry: Entry, pool: SriovNetworkPool) -> int:
    """Return the time at which a granted change must have ended, in seconds since 1970.

    An agent that never ends or never starts a change loses its slot then. A change may take as long as a drain plus the time
    that a node may be cut off before it rolls back.
    """
    return entry.since + seconds_of(pool.spec.rollout.drain_timeout) + seconds_of(pool.spec.safety.rollback_timeout)


def _end(entry: Entry, runs: Collection[ApplyState | None], now: int) -> tuple[Entry | None, bool]:
    """End an entry after its changes.

    A failure is recorded, a refused change rests, and otherwise the slot is freed.
    """
    # One failed PF makes the node fail, even if its other PFs were changed as asked.
    if any(run is not None and run.has_failed for run in runs):
        return msgspec.structs.replace(entry, state=EntryState.FAILED), False
    applied = ApplyState.APPLIED in runs
    if ApplyState.REFUSED in runs:
        return msgspec.structs.replace(entry, state=EntryState.RESTING, until=now + _REFUSED_REST_S), applied
    return _over(entry), applied


def _is_running(run: ApplyState | None) -> bool:
    """Return whether a change has started and not ended."""
    return run is not None and run.is_running


def _run(digest: str, pf: PfStatus | None) -> ApplyState | None:
    """Return the state of a granted change, or None if it has not begun."""
    if pf is None or pf.apply is None or pf.apply.digest != digest:
        return None
    return pf.apply.state


def _usable(entry: Entry, state: NodeNicState, pfs: Mapping[str, PfStatus]) -> bool:
    """Return whether a PF of the entry still has the granted plan, with nothing that blocks it unapproved."""
    plans = [pf.plan for address in entry.digests if (pf := pfs.get(address)) is not None and pf.plan is not None]
    return any(plan.digest in entry.digests.values() and not state.unapproved_blockers(plan) for plan in plans)
