"""What becomes of functions that no pool asks for any more: their agent gives them up, and then they are forgotten. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from ...api.pool import SriovNetworkPool
from ..state import ApplyState, NodeNicState, NodeSpec, PfReason, PfSpec, PfStatus

__all__ = ["ABANDON", "FINALIZER", "begin_release", "released_pfs"]

ABANDON = "vmnic.dev/abandon"
"""Annotation of a pool: it lets go of its functions as they are, and its removal waits for nobody."""
FINALIZER = "vmnic.dev/nodes"
"""Keeps a pool until its nodes have given up their functions."""

_STARTED = (ApplyState.CLAIMED, ApplyState.APPLYING)


def released_pfs(state: NodeNicState, pools: Iterable[SriovNetworkPool], asked: Collection[str]) -> tuple[PfSpec, ...]:
    """Give the functions of a node that are to be given up.

    Args:
        state: The node's NodeNicState.
        pools: All pools, also those that are being removed; what a pool had that is gone altogether is forgotten.
        asked: PCI addresses of the functions that some pool asks for.
    """
    removal = {pool.metadata.name: pool.spec.removal for pool in pools if ABANDON not in pool.metadata.annotations}
    found = {pf.pci_address: pf for pf in state.status.pfs}
    return tuple(
        msgspec.structs.replace(spec, release=spec.release or removal[spec.pool], grant=None)
        for spec in state.spec.pfs
        if spec.pci_address not in asked and spec.pool in removal and not _is_given_up(spec, state, found)
    )


def begin_release(state: NodeNicState, pools: Iterable[SriovNetworkPool]) -> NodeSpec:
    """Say what a node is told so that it gives up everything, where no controller grants its plans.

    Only what disturbs nobody is granted, and nothing again that went wrong: a person sees why, and decides.
    """
    told = {spec.pci_address: spec for spec in state.spec.pfs if spec.release}
    confirmed = state.status.observed_generation >= state.metadata.generation
    plans = {
        pf.pci_address: pf.plan.digest
        for pf in state.status.pfs
        if confirmed and pf.plan is not None and pf.problem is None and not pf.plan.disruptive
    }
    pfs = tuple(
        msgspec.structs.replace(spec, grant=plans.get(spec.pci_address, told[spec.pci_address].grant))
        if spec.pci_address in told
        else spec
        for spec in released_pfs(state, pools, ())
    )
    return msgspec.structs.replace(state.spec, pfs=pfs)


def _is_given_up(spec: PfSpec, state: NodeNicState, found: Mapping[str, PfStatus]) -> bool:
    """Whether the agent has nothing of ours there any more: what it owns, or is just about to own."""
    if state.unreadable:
        return False
    pf = found.get(spec.pci_address)
    if pf is None or (pf.problem is not None and pf.problem.reason is PfReason.VANISHED):
        return True
    started = pf.apply is not None and pf.apply.state in _STARTED
    confirmed = state.status.observed_generation >= state.metadata.generation
    return confirmed and not pf.owned and not started
