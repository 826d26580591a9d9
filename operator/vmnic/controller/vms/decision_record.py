"""What is remembered of a VM's decision, and how a decision reads that is not carried out after all. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from ...policy.reasons import Reason
from ...policy.types import Action, NicDecision, Verdict, VmDecision
from .reverts import digest_of

__all__ = ["NicDecisionRecord", "admit_digest", "already_restarted", "notes_of", "refused", "yielded_decision"]

# Kubernetes' words before the message of vmnic's own policy: with them, the field would not fit into a VmNicState.
_OWN_POLICY = "ValidatingAdmissionPolicy 'vmnic-controller' with binding 'vmnic-controller' denied request: "


@dataclass(frozen=True, slots=True)
class NicDecisionRecord:
    """What is remembered of one NIC's decision; its explanation is worked out anew when somebody asks."""

    nic: str
    policy: str
    verdict: Verdict
    datapath: str
    reason: str
    message: str
    pending_restart: bool
    conflicts_with: tuple[str, ...]


def notes_of(decision: VmDecision) -> tuple[NicDecisionRecord, ...]:
    """Give what is remembered of a decision."""
    return tuple(
        NicDecisionRecord(
            nic=nic.nic.name,
            policy=nic.policy,
            verdict=nic.verdict,
            datapath=nic.nic.present.datapath.value,
            reason=nic.reason.value if nic.reason is not None else "",
            # Only what a status may have to quote is kept in words.
            message=nic.message if nic.verdict in (Verdict.BLOCKED, Verdict.CHANGE) else "",
            pending_restart=nic.verdict is Verdict.COMPLIANT and nic.nic.live is not None and nic.nic.live != nic.nic.present,
            conflicts_with=nic.conflicts_with,
        )
        for nic in decision.nics
        if nic.policy is not None
    )


def yielded_decision(decision: VmDecision, manager: str) -> VmDecision:
    """Say that a VM is left alone because somebody put it back twice."""
    who = f"{manager} puts" if manager else "somebody put"
    text = f"{who} it back, twice within an hour, so it is left for a day: change it where they take the VM from"
    return _blocked(decision, Reason.OWNED_BY_GIT, lambda nic: f"{nic.message}: {text}")


def refused(decision: VmDecision, message: str) -> VmDecision:
    """Say that the API server does not take a VM's change, in the words of the component that refuses it."""
    _, is_own, field = message.partition(_OWN_POLICY)
    text = f"{field} (another webhook changes it)" if is_own else message
    return _blocked(decision, Reason.PATCH_REFUSED, lambda _: f"refused: {text}")


def already_restarted(decision: VmDecision) -> VmDecision:
    """Say that a VM waits because it was restarted for this and is again as it was before."""
    text = "it was restarted once for this and somebody put it back, so it waits until it is stopped"

    def waits(nic: NicDecision) -> NicDecision:
        return replace(nic, action=Action.AUDIT, reason=Reason.WAITS_FOR_STOP, message=f"{nic.message}: {text}")

    return _retold(decision, (Action.PATCH, Action.ADMIT), waits)


def _blocked(decision: VmDecision, reason: Reason, say: Callable[[NicDecision], str]) -> VmDecision:
    def blocked(nic: NicDecision) -> NicDecision:
        return replace(nic, verdict=Verdict.BLOCKED, action=None, reason=reason, message=say(nic))

    return _retold(decision, (Action.PATCH,), blocked)


def _retold(decision: VmDecision, actions: Collection[Action], tell: Callable[[NicDecision], NicDecision]) -> VmDecision:
    """Tell anew of the NICs for which something would be done."""
    return replace(decision, nics=tuple(tell(nic) if nic.action in actions else nic for nic in decision.nics))


def admit_digest(decision: VmDecision) -> str:
    """Name what the VM's next instance is to get; empty: nothing."""
    wanted = [
        {"op": "admit", "path": nic.nic.name, "value": f"{nic.wanted.model} {nic.wanted.queues}"}
        for nic in decision.nics
        if nic.action is Action.ADMIT
    ]
    return digest_of(wanted) if wanted else ""
