"""Release of PFs that no pool asks for any more.

Their agent releases them, and then they are removed from the node's spec. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from ...api.node_state import NodeNicState, NodeSpec, PfPlan, PfSpec, PfStatus
from ...api.pool import SriovNetworkPool
from ...api.reasons import PfReason

__all__ = ["ABANDON", "FINALIZER", "begin_release", "released_pfs"]

ABANDON = "vmnic.dev/abandon"
"""Annotation of a pool. The pool leaves its PFs as they are, and its removal does not wait for its nodes."""
FINALIZER = "vmnic.dev/nodes"
"""Finalizer that keeps a pool until its nodes have released their PFs."""


def released_pfs(state: NodeNicState, pools: Iterable[SriovNetworkPool], asked: Collection[str]) -> tuple[PfSpec, ...]:
    """Return the specs of the PFs that a node is to release.

    Args:
        state: The node's NodeNicState.
        pools: All pools, also those being removed. PFs of a pool that no longer exists are dropped from the spec.
        asked: PCI addresses of the PFs that some pool asks for.
    """
    removal = {pool.metadata.name: pool.spec.removal for pool in pools if ABANDON not in pool.metadata.annotations}
    found = {pf.pci_address: pf for pf in state.status.pfs}
    return tuple(
        # A release keeps the way in which it began, even if `removal` is edited meanwhile.
        msgspec.structs.replace(spec, release=spec.release or removal[spec.pool], grant=None)
        for spec in state.spec.pfs
        if spec.pci_address not in asked and spec.pool in removal and not _is_given_up(spec, state, found)
    )


def begin_release(state: NodeNicState, pools: Iterable[SriovNetworkPool]) -> NodeSpec:
    """Build the spec that makes a node release all its PFs, where no controller grants its plans.

    Only plans that are not disruptive, or whose blockers are all approved, are granted. A failed plan is not granted again: a
    person sees the reason and decides.
    """
    told = {spec.pci_address: spec for spec in state.spec.pfs if spec.release}
    confirmed = state.status.observed_generation >= state.metadata.generation
    plans = {
        pf.pci_address: pf.plan.digest
        for pf in state.status.pfs
        if confirmed and pf.plan is not None and pf.problem is None and _disturbs_no_one(state, pf.plan)
    }
    pfs = tuple(
        # Without a plan, the agent may be carrying out the grant that it already has.
        msgspec.structs.replace(spec, grant=plans.get(spec.pci_address, told[spec.pci_address].grant))
        if spec.pci_address in told
        else spec
        for spec in released_pfs(state, pools, ())
    )
    return msgspec.structs.replace(state.spec, pfs=pfs)


def _disturbs_no_one(state: NodeNicState, plan: PfPlan) -> bool:
    return not plan.disruptive or (bool(plan.blocked_by) and not state.unapproved_blockers(plan))


def _is_given_up(spec: PfSpec, state: NodeNicState, found: Mapping[str, PfStatus]) -> bool:
    """Return whether the agent neither owns the PF any more nor is about to own it."""
    # An unreadable status is empty, and a PF that is missing from it would otherwise count as released.
    if state.unreadable:
        return False
    pf = found.get(spec.pci_address)
    if pf is None or (pf.problem is not None and pf.problem.reason is PfReason.VANISHED):
        return True
    started = pf.apply is not None and pf.apply.state.is_running
    confirmed = state.status.observed_generation >= state.metadata.generation
    return confirmed and not pf.owned and not started
