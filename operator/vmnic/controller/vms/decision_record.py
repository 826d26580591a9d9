"""Records of VM decisions, and decisions that replace one which is not carried out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from ...policy.checks import Finding
from ...policy.reasons import Reason
from ...policy.sentences import join_sentences
from ...policy.types import Action, NicDecision, Verdict, VmDecision
from .reverts import digest_of

__all__ = ["NicDecisionRecord", "admit_digest", "already_restarted", "notes_of", "refused", "yielded_decision"]

# The API server's prefix for messages of vmnic's own ValidatingAdmissionPolicy. A VmNicState's message has no room for it.
_OWN_POLICY = "ValidatingAdmissionPolicy 'vmnic-controller' with binding 'vmnic-controller' denied request: "


@dataclass(frozen=True, slots=True)
class NicDecisionRecord:
    """The recorded decision for one NIC. Its explanation is computed again on demand."""

    nic: str
    policy: str
    verdict: Verdict
    datapath: str
    reason: str
    message: str
    pending_restart: bool
    conflicts_with: tuple[str, ...]
    warnings: tuple[Finding, ...] = ()


def notes_of(decision: VmDecision) -> tuple[NicDecisionRecord, ...]:
    """Return the records to keep of a decision, one for each NIC that a policy selects."""
    return tuple(
        NicDecisionRecord(
            nic=nic.nic.name,
            policy=nic.policy,
            verdict=nic.verdict,
            datapath=nic.nic.present.datapath.value,
            reason=nic.reason.value if nic.reason is not None else "",
            # Only messages that a status may quote are kept, to save memory.
            message=nic.message if nic.reason is not None or nic.verdict in (Verdict.BLOCKED, Verdict.CHANGE) else "",
            pending_restart=nic.verdict is Verdict.COMPLIANT and nic.nic.live is not None and nic.nic.live != nic.nic.present,
            conflicts_with=nic.conflicts_with,
            warnings=nic.warnings,
        )
        for nic in decision.nics
        if nic.policy is not None
    )


def yielded_decision(decision: VmDecision, manager: str) -> VmDecision:
    """Return the decision for a VM that another client reverted twice."""
    who = manager or "Another client"
    text = (
        f"{who} reverted this twice within an hour, so vmnic leaves the VM alone for a day: change the manifest that it applies"
    )
    return _blocked(decision, Reason.OWNED_BY_GIT, lambda nic: join_sentences(nic.message, text))


def refused(decision: VmDecision, message: str) -> VmDecision:
    """Return the decision for a VM whose patch the API server refuses.

    The message is the refusing component's own. If vmnic's own admission policy refuses, another webhook has changed the patch.
    """
    _, is_own, field = message.partition(_OWN_POLICY)
    text = f"{field} (another webhook changes it)" if is_own else message
    return _blocked(decision, Reason.PATCH_REFUSED, lambda _: f"refused: {text}")


def already_restarted(decision: VmDecision) -> VmDecision:
    """Return the decision for a VM that was already restarted for this change and reverted since."""
    text = "The VM was restarted once for this, and the change was reverted. Applied when the VM stops"

    def waits(nic: NicDecision) -> NicDecision:
        return replace(nic, action=Action.AUDIT, reason=Reason.WAITS_FOR_STOP, message=join_sentences(nic.message, text))

    return _retold(decision, (Action.PATCH, Action.ADMIT), waits)


def _blocked(decision: VmDecision, reason: Reason, say: Callable[[NicDecision], str]) -> VmDecision:
    def blocked(nic: NicDecision) -> NicDecision:
        return replace(nic, verdict=Verdict.BLOCKED, action=None, reason=reason, message=say(nic))

    return _retold(decision, (Action.PATCH,), blocked)


def _retold(decision: VmDecision, actions: Collection[Action], tell: Callable[[NicDecision], NicDecision]) -> VmDecision:
    """Replace the decisions of NICs that have one of these actions."""
    return replace(decision, nics=tuple(tell(nic) if nic.action in actions else nic for nic in decision.nics))


def admit_digest(decision: VmDecision) -> str:
    """Return the digest of what admission will set on the VM's next instance.

    It is empty if nothing is set.
    """
    wanted = [
        {"op": "admit", "path": nic.nic.name, "value": f"{nic.wanted.model} {nic.wanted.queues}"}
        for nic in decision.nics
        if nic.action is Action.ADMIT
    ]
    return digest_of(wanted) if wanted else ""
