"""Choice of nodes to drain, each of whose VMs finds a device on a node where it can stay."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ...api.pool import SriovNetworkPool
from ...nodes.rollout.budget import RolloutSlot, order_disruptive, select_disruptive
from ...nodes.rollout.ledger import Ledger, NodeView
from ...nodes.rollout.turns import is_done
from .drain import Drainer
from .rollout_memory import RolloutMemory

__all__ = ["match_starts"]

_TRIES = 20
"""Maximum number of nodes whose VMs are matched in one pass."""


def match_starts(
    drainer: Drainer,
    ledger: Ledger,
    pool: SriovNetworkPool,
    views: Sequence[NodeView],
    memory: RolloutMemory,
    now: int,
    *,
    free_only: bool,
) -> Sequence[RolloutSlot]:
    """Choose nodes that may be drained, without those whose VMs have nowhere to go.

    If no node is changing and every node with free devices will change itself, the node that the fewest VMs have to leave is
    chosen anyway. Only its VMs move twice, and once it is done it has room for those of the others.

    Args:
        drainer: Returns a snapshot of running VMs.
        ledger: The ledger, with the pool's part settled.
        pool: The pool.
        views: Its nodes, as they are at this moment.
        memory: Records which nodes are refused.
        now: Seconds since 1970.
        free_only: Whether nodes that VMs would have to leave wait for others.
    """
    part = ledger.of(pool.metadata.name)
    candidates = order_disruptive(part, pool, views)
    unfinished = {view.name for view in views if not is_done(view, pool)}
    for _ in range(_TRIES):
        without = memory.pausing(now) | memory.refused(now)
        starts = select_disruptive(ledger, pool, views, without=without, free_only=free_only, candidates=candidates)
        refused = _refused(drainer, starts, ledger, views, keep_off=unfinished)
        if not refused:
            break
        memory.refuse(refused, now)
    else:
        # All tries met refusals. The next pass goes on without the nodes that were refused.
        starts = ()
    if starts or free_only or part.running():
        return starts
    return _match_any(drainer, ledger, pool, views, memory, now, candidates)


def _match_any(
    drainer: Drainer,
    ledger: Ledger,
    pool: SriovNetworkPool,
    views: Sequence[NodeView],
    memory: RolloutMemory,
    now: int,
    candidates: Sequence[RolloutSlot],
) -> Sequence[RolloutSlot]:
    """Choose one node whose VMs find devices on any other node."""
    without = memory.pausing(now)
    for _ in range(_TRIES):
        starts = select_disruptive(ledger, pool, views, without=without, candidates=candidates)[:1]
        refused = _refused(drainer, starts, ledger, views, keep_off=())
        if not refused:
            for start in starts:
                # It was refused above, where VMs may only go to nodes that are done.
                memory.accept(start.view.name)
            return starts
        memory.refuse(refused, now)
        without |= refused.keys()
    return ()


def _refused(
    drainer: Drainer, starts: Sequence[RolloutSlot], ledger: Ledger, views: Sequence[NodeView], *, keep_off: Collection[str]
) -> dict[str, str]:
    """Return why nodes among the starts cannot be drained together with the preceding ones."""
    # A snapshot visits all running VMs, so none is taken for nodes that no VM has to leave.
    if not any(start.pending.leaving for start in starts):
        return {}
    simulation = drainer.simulation()
    simulation.keep_off(keep_off)
    draining = ledger.busy(disruptive=True)
    for view in views:
        if view.name in draining:
            simulation.reserve(view.name, [held for pf in view.state.status.pfs for held in pf.held])
    refused = {}
    for start in starts:
        why = simulation.blocking_reason(start.view.name, start.pending.leaving)
        if why:
            refused[start.view.name] = why
        else:
            simulation.reserve(start.view.name, start.pending.leaving)
    return refused
