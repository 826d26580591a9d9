"""Nodes that wait for others, so that a VM moves only once, to a node that is done. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ...api.node_state import PfSpec, PfStatus
from ...api.pool import SriovNetworkPool
from ..state import group_of
from .eligibility import eligible_changes
from .ledger import NodeView, PoolLedger
from .progress import is_stopped

__all__ = ["free_nodes_come", "is_done", "unanswered"]


def unanswered(nodes: Iterable[NodeView]) -> set[str]:
    """Return the names of nodes that may still publish plans for what the pools ask now.

    Nodes that are not ready are not waited for.
    """
    return {view.name for view in nodes if view.ready and not view.answers}


def free_nodes_come(
    part: PoolLedger, pool: SriovNetworkPool, nodes: Iterable[NodeView], *, without: Collection[str] = ()
) -> bool:
    """Return whether a node that no VM has to leave is changing, or is about to change."""
    if any(entry.under_way and not entry.disruptive for entry in part.entries.values()):
        return True
    rest = (view for view in nodes if view.name not in part.entries and view.name not in without)
    return any(_may_start(part, pool, view) for view in rest)


def is_done(view: NodeView, pool: SriovNetworkPool) -> bool:
    """Return whether a VM that moves to a node may stay, because the pool's VFs there will not disappear.

    An unknown state counts as no.
    """
    name, found = pool.metadata.name, {pf.pci_address: pf for pf in view.state.status.pfs}
    specs = [spec for spec in view.state.spec.pfs if spec.pool == name or group_of(spec, name) is not None]
    return view.ready and view.answers and all(_stays(spec, found.get(spec.pci_address)) for spec in specs)


def _may_start(part: PoolLedger, pool: SriovNetworkPool, view: NodeView) -> bool:
    pending = eligible_changes(view, pool)
    free = bool(pending.harmless) or (bool(pending.disruptive) and not pending.leaving)
    return free and not is_stopped(pool, part, approved=pending.approved)


def _stays(spec: PfSpec, pf: PfStatus | None) -> bool:
    if pf is None or spec.release:
        return False
    return pf.plan is None or not (pf.plan.disruptive or pf.plan.fenced)
