"""What of a node's plans may start: at once, or only once the node is out of service. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...api.pool import SriovNetworkPool
from ..planning.plan import TOLD_HOLDERS
from ..state import Held, PfPlan, PfReason, PfSpec, PfStatus
from .ledger import NodeView

__all__ = ["EligibleChanges", "eligible_changes"]


_DIGEST_CHARS = 64
_STUCK = (PfReason.PCI_BUS_STUCK, PfReason.WRITE_STILL_IN_FLIGHT, PfReason.UNREADABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class EligibleChanges:
    """The plans of one node for one pool; what waits for people or for VMs to go by themselves is left out."""

    harmless: dict[str, str] = field(default_factory=dict)
    """Digest by PCI address."""
    disruptive: dict[str, str] = field(default_factory=dict)
    """Likewise, of those that take the node out of service."""
    cordons: bool = False
    """Whether the node is to be cordoned before a disruptive one is granted."""
    leaving: tuple[Held, ...] = ()
    """Devices whose holders have to leave first."""
    resources: frozenset[str] = frozenset()
    """Resources of the functions that a disruptive plan changes, as the controller's own spec has them."""
    unfenced: frozenset[str] = frozenset()
    """Resources whose device plugin cannot keep back what is about to go: no pod may be there that asks for one."""
    approved: bool = False
    """Whether a person has approved all of them."""

    @property
    def digests(self) -> dict[str, str]:
        """All plans."""
        return self.harmless | self.disruptive


_NOTHING = EligibleChanges()


def eligible_changes(view: NodeView, pool: SriovNetworkPool) -> EligibleChanges:
    """Read a node's plans for a pool; nothing where the agent reports on another spec, or cannot be reached."""
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
    hard = [one for one in plans if one[1].pci_address not in harmless and _may_disrupt(one[2], pool, approved)]
    digests = {pf.pci_address: plan.digest for _, pf, plan in hard}
    return EligibleChanges(
        harmless=harmless,
        disruptive=digests,
        cordons=any(pool.spec.rollout.disruption != "WhenFree" or _unfenced(spec, plan) for spec, _, plan in hard),
        leaving=tuple(held for _, pf, plan in hard for held in holders_of(pf, plan)),
        resources=frozenset(group.resource for spec, _, _ in hard for group in spec.groups),
        unfenced=frozenset(group.resource for spec, _, plan in hard if _unfenced(spec, plan) for group in spec.groups),
        approved=bool(plans) and all(plan.digest in approved for _, _, plan in plans),
    )


def holders_of(pf: PfStatus, plan: PfPlan) -> tuple[Held, ...]:
    """Give the held devices that a plan would take; it names each by its address, or all are meant where it has no room."""
    if len(plan.blocked_by) > TOLD_HOLDERS:
        return pf.held
    return tuple(held for held in pf.held if any(text.endswith(f" {held.vf}") for text in plan.blocked_by))


def _may_start(pf: PfStatus, plan: PfPlan, approved: frozenset[str]) -> bool:
    """Return whether a function is neither stuck nor was rolled back unapproved, and its plan's digest is one.

    What failed may be tried again; its entry in the ledger says when.
    """
    if len(plan.digest) > _DIGEST_CHARS:
        return False
    if pf.problem is None:
        return True
    if pf.problem.reason is PfReason.ROLLED_BACK:
        return plan.digest in approved
    return pf.problem.reason not in _STUCK


def _unfenced(spec: PfSpec, plan: PfPlan) -> bool:
    """Whether a pod could get a device while it goes, and nobody can keep it back."""
    return plan.fenced and any(group.device_plugin == "None" for group in spec.groups)


def _may_disrupt(plan: PfPlan, pool: SriovNetworkPool, approved: frozenset[str]) -> bool:
    match pool.spec.rollout.disruption:
        case "WhenFree":
            return not plan.blocked_by
        case "Drain":
            return True
        case "Manual":
            return not plan.disruptive or plan.digest in approved
