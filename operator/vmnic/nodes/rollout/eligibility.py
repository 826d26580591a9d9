"""Plans of a node that may start, at once or after the node is out of service. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...api.node_state import Held, PfPlan, PfSpec, PfStatus
from ...api.pool import SriovNetworkPool
from ...api.reasons import PfReason
from ..planning.plan import TOLD_HOLDERS
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
    approved = state.approved
    plans = [
        (specs[pf.pci_address], pf, pf.plan)
        for pf in state.status.pfs
        if pf.pci_address in specs and pf.plan is not None and _may_start(pf, pf.plan, approved)
    ]
    harmless = {pf.pci_address: plan.digest for spec, pf, plan in plans if not plan.disruptive and not _unfenced(spec, plan)}
    # A plan that is not disruptive also counts here if another device plugin could give away its VFs in the meantime.
    hard = [one for one in plans if one[1].pci_address not in harmless and _may_disrupt(one[2], pool, approved)]
    digests = {pf.pci_address: plan.digest for _, pf, plan in hard}
    return EligibleChanges(
        harmless=harmless,
        disruptive=digests,
        # With WhenFree nothing is evicted, but without a fence only a cordon keeps new pods away from the VFs.
        cordons=any(pool.spec.rollout.disruption != "WhenFree" or _unfenced(spec, plan) for spec, _, plan in hard),
        leaving=tuple(held for _, pf, plan in hard for held in holders_of(pf, plan)),
        resources=frozenset(group.resource for spec, _, _ in hard for group in spec.groups),
        unfenced=frozenset(group.resource for spec, _, plan in hard if _unfenced(spec, plan) for group in spec.groups),
        approved=bool(plans) and all(plan.digest in approved for _, _, plan in plans),
    )


def holders_of(pf: PfStatus, plan: PfPlan) -> tuple[Held, ...]:
    """Return the held devices that a plan would take.

    The plan lists each of them by address. If it has no room for all, every held device counts.
    """
    if len(plan.blocked_by) > TOLD_HOLDERS:
        return pf.held
    # The address is the last word of each sentence (`_holders` in planning/plan.py). The name before it is foreign text.
    return tuple(held for held in pf.held if any(text.endswith(f" {held.vf}") for text in plan.blocked_by))


def _may_start(pf: PfStatus, plan: PfPlan, approved: frozenset[str]) -> bool:
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


def _may_disrupt(plan: PfPlan, pool: SriovNetworkPool, approved: frozenset[str]) -> bool:
    match pool.spec.rollout.disruption:
        case "WhenFree":
            return not plan.blocked_by
        case "Drain":
            return True
        case "Manual":
            return not plan.disruptive or plan.digest in approved
