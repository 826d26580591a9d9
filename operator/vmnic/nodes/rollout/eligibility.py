"""Plans of a node that may start, at once or after the node is out of service. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ...api.node_state import Held, NodeNicState, PfPlan, PfSpec, PfStatus
from ...api.pool import SriovNetworkPool
from ...api.reasons import PfReason
from ..planning.plan import TOLD_HOLDERS, words_of_interruption
from .ledger import NodeView

__all__ = ["EligibleChanges", "eligible_changes"]


_DIGEST_CHARS = 64
_STUCK = (PfReason.PCI_BUS_STUCK, PfReason.WRITE_STILL_IN_FLIGHT, PfReason.UNREADABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class EligibleChanges:
    """Plans of one node for one pool that may start.

    Plans that wait for a person, or for VMs to stop by themselves, are left out.
    """

    harmless: dict[str, str] = field(default_factory=dict)
    """Digests of plans that are not disruptive, by PCI address."""
    disruptive: dict[str, str] = field(default_factory=dict)
    """Digests of plans that take the node out of service, by PCI address."""
    cordons: bool = False
    """Whether the node must be cordoned before a disruptive plan is granted."""
    leaving: tuple[Held, ...] = ()
    """Devices whose holders have to leave first."""
    resources: frozenset[str] = frozenset()
    """Resources of the PFs that a disruptive plan changes, taken from the controller's own spec."""
    unfenced: frozenset[str] = frozenset()
    """Resources whose device plugin cannot fence devices, so no pod that asks for one may be on the node."""
    approved: bool = False
    """Whether a person has approved all the plans."""

    @property
    def digests(self) -> dict[str, str]:
        """Return all plans."""
        return self.harmless | self.disruptive


_NOTHING = EligibleChanges()


def eligible_changes(view: NodeView, pool: SriovNetworkPool) -> EligibleChanges:
    """Return the plans of a node that may start for a pool.

    Nothing may start if the agent's report is for another spec, or if the node is not ready.
    """
    state = view.state
    if not any(pf.plan is not None for pf in state.status.pfs):
        return _NOTHING
    if not view.current or not view.confirmed or not view.ready or not state.spec.synced:
        return _NOTHING
    specs = {pf.pci_address: pf for pf in state.spec.pfs if pf.pool == pool.metadata.name}
    approvals = state.approvals
    plans = [
        (specs[pf.pci_address], pf, pf.plan)
        for pf in state.status.pfs
        if pf.pci_address in specs and pf.plan is not None and _may_start(pf, pf.plan, approvals)
    ]
    harmless = {pf.pci_address: plan.digest for spec, pf, plan in plans if not plan.disruptive and not _unfenced(spec, plan)}
    # A plan that is not disruptive also counts here if another device plugin could give away its VFs in the meantime.
    rest = [one for one in plans if one[1].pci_address not in harmless and _may_disrupt(one[1], one[2], pool, state)]
    # Plans that a person has approved with all their blockers go before those that need an empty node.
    hard = [one for one in rest if _runs_beside(state, one[0], one[2])] or rest
    digests = {pf.pci_address: plan.digest for _, pf, plan in hard}
    return EligibleChanges(
        harmless=harmless,
        disruptive=digests,
        # With WhenFree nothing is evicted, but without a fence only a cordon keeps new pods away from the VFs.
        cordons=any(_needs_cordon(state, pool, spec, plan) for spec, _, plan in hard),
        leaving=tuple(held for _, pf, plan in hard for held in holders_of(pf, plan, approvals.get(plan.digest, ()))),
        resources=frozenset(group.resource for spec, _, _ in hard for group in spec.groups),
        unfenced=frozenset(group.resource for spec, _, plan in hard if _unfenced(spec, plan) for group in spec.groups),
        approved=bool(plans) and all(plan.digest in approvals for _, _, plan in plans),
    )


def holders_of(pf: PfStatus, plan: PfPlan, approved: Collection[str] = ()) -> tuple[Held, ...]:
    """Return the held devices whose holders block a plan, without the approved blockers.

    If the plan has no room for all blockers, every held device counts.
    """
    blockers = plan.unapproved(approved)
    if len(blockers) > TOLD_HOLDERS:
        return pf.held
    return tuple(held for held in pf.held if any(_is_about(text, held) for text in blockers))


def _is_about(text: str, held: Held) -> bool:
    # The address is the last word of a hard blocker (`_holders` in planning/plan.py). The name before it is foreign text.
    return text.endswith(f" {held.vf}") or text == words_of_interruption(held.by, held.vf)


def _may_start(pf: PfStatus, plan: PfPlan, approved: Collection[str]) -> bool:
    """Return whether a PF's plan may start.

    It may not if the PF is stuck, if the plan was rolled back and is not approved, or if its digest is too long. A failed
    plan may be tried again; its entry in the ledger determines when.
    """
    if len(plan.digest) > _DIGEST_CHARS:
        return False
    if pf.problem is None:
        return True
    if pf.problem.reason is PfReason.ROLLED_BACK:
        return plan.digest in approved
    return pf.problem.reason not in _STUCK


def _unfenced(spec: PfSpec, plan: PfPlan) -> bool:
    """Return whether a pod could get a device that is about to disappear.

    A foreign device plugin does not fence devices.
    """
    return plan.fenced and any(group.device_plugin == "None" for group in spec.groups)


def _can_leave(pf: PfStatus, soft: Sequence[str]) -> bool:
    """Return whether moving VMs away removes these soft blockers.

    It does not if something else blocks, for example the host or an unexplained address.
    """
    pods = [held for held in pf.held if held.by.startswith("pod ")]
    # One more line stands for those that the plan has no room for.
    return all(any(_is_about(text, held) for held in pods) for text in soft[:TOLD_HOLDERS])


def _runs_beside(state: NodeNicState, spec: PfSpec, plan: PfPlan) -> bool:
    """Return whether a plan runs beside its holders, because a person has approved what they lose."""
    return bool(plan.blocked_by) and not state.unapproved_blockers(plan) and not _unfenced(spec, plan)


def _needs_cordon(state: NodeNicState, pool: SriovNetworkPool, spec: PfSpec, plan: PfPlan) -> bool:
    if _runs_beside(state, spec, plan):
        return False
    return pool.spec.rollout.disruption != "WhenFree" or _unfenced(spec, plan)


def _may_disrupt(pf: PfStatus, plan: PfPlan, pool: SriovNetworkPool, state: NodeNicState) -> bool:
    left = state.unapproved_blockers(plan)
    if plan.blocked_by and not left:
        return True
    match pool.spec.rollout.disruption:
        case "WhenFree":
            return not left
        case "Drain":
            return _can_leave(pf, [text for text in left if text not in plan.hard])
        case "Manual":
            # An approval of soft blockers covers only those that the person saw.
            return not plan.disruptive or (plan.digest in state.approved and (bool(plan.hard) or not left))
