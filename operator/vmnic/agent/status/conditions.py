"""Conditions of a NodeNicState, which do not flap, and the fit of its status into the API's bounds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from ...api.node_state import Condition, HostFacts, NodeSpec, NodeStatus, PfStatus
from ...api.reasons import NodeReason, PfReason
from ...checked.moments import transition_time
from ...nodes.bounds import fit

__all__ = ["conditions_of_refusal", "fit_status", "node_conditions", "same_status"]

_MESSAGE_CHARS = 1024
_NOTE_CHARS = 256

_Verdict = tuple[Literal["True", "False"], str, str]
"""Status, reason and message of a condition."""


def node_conditions(
    spec: NodeSpec,
    pfs: Sequence[PfStatus],
    host: HostFacts,
    *,
    generation: int,
    fault: str = "",
    before: Iterable[Condition],
) -> tuple[Condition, ...]:
    """Return the node's conditions.

    Args:
        spec: The node's spec.
        pfs: The PFs of the status.
        host: Facts about the node as a whole.
        generation: Generation of the object that was observed.
        fault: Why the host as a whole may not be changed. Empty if it may.
        before: The present conditions, whose transition times stay if their status does.
    """
    wanted = {pf.pci_address for pf in spec.pfs}
    mine = [pf for pf in pfs if pf.pci_address in wanted]
    problems = [pf for pf in mine if pf.problem is not None]
    blocked = [pf for pf in mine if pf.plan is not None and pf.plan.disruptive]
    pending = [pf for pf in mine if pf.plan is not None and not pf.plan.disruptive]
    # Which modules a node needs is unknown until the controller has decided.
    known = {*host.modules, *host.modules_unknown}
    missing = [name for name in spec.host.modules if name not in known] if spec.synced else []
    rolled_back = [pf for pf in mine if pf.problem is not None and pf.problem.reason is PfReason.ROLLED_BACK]
    fenced = [pf for pf in mine if _is_fenced(pf)]
    degraded_text = fault or "; ".join(f"{pf.problem.reason}: {pf.problem.message}" for pf in problems if pf.problem)
    blocked_text = "; ".join(f"{pf.pci_address}: {', '.join(pf.plan.blocked_by)}" for pf in blocked if pf.plan)
    ready: _Verdict
    if not spec.synced and not fault:
        ready = ("False", NodeReason.NOT_SYNCED, "the controller has not decided about this node yet")
    elif fault or problems:
        ready = ("False", NodeReason.DEGRADED, degraded_text)
    elif pending:
        ready = ("False", NodeReason.PLAN_PENDING, "; ".join(f"{pf.pci_address}: {pf.plan.text}" for pf in pending if pf.plan))
    elif blocked:
        ready = ("False", NodeReason.BLOCKED, blocked_text)
    else:
        text = f"{len(mine)} of {len(pfs)} functions belong to pools and are as desired"
        ready = ("True", NodeReason.AS_DESIRED, text + _left_text([pf for pf in pfs if pf.owned and pf not in mine]))
    degraded: _Verdict = ("False", NodeReason.HEALTHY, "")
    if fault or problems:
        degraded = ("True", NodeReason.DEGRADED, degraded_text)
    elif missing:
        degraded = ("True", PfReason.MODULE_MISSING, _missing_text(missing, host))
    verdicts: dict[str, _Verdict] = {
        "Ready": ready,
        "Degraded": degraded,
        "Blocked": ("True", NodeReason.WAITING_FOR_VMS, blocked_text) if blocked else ("False", NodeReason.NOT_BLOCKED, ""),
        "RolledBack": _of(rolled_back, NodeReason.ROLLED_BACK, NodeReason.NOT_ROLLED_BACK),
        "Fenced": _of(fenced, NodeReason.CHANGING, NodeReason.NOT_FENCED),
    }
    return _with_times(verdicts, before, generation)


def conditions_of_refusal(cause: str, before: Iterable[Condition], generation: int) -> tuple[Condition, ...]:
    """Return the conditions of a node whose status the API server refuses, with the server's message.

    Args:
        cause: What the API server answered.
        before: The present conditions.
        generation: Generation of the object that the present status describes.
    """
    text = (
        f"the API server refuses this node's status ({cause}): update the CRDs and the agent to one version, see docs/nodes.md"
    )
    verdicts: dict[str, _Verdict] = {
        "Ready": ("False", NodeReason.STATUS_REFUSED, text),
        "Degraded": ("True", NodeReason.STATUS_REFUSED, text),
    }
    return _with_times(verdicts, before, generation)


def _left_text(left: Sequence[PfStatus]) -> str:
    """Return a text about owned PFs that no pool asks for.

    For example, their pool was deleted while the node was away.
    """
    names = ", ".join(pf.pci_address for pf in left)
    return f"; no pool selects {names} any more, and the configuration there stays until a pool does" if left else ""


def _is_fenced(pf: PfStatus) -> bool:
    """Return whether its VFs are kept from pods, from the claim to the end of the change."""
    running = pf.apply is not None and pf.apply.state.is_running
    return running and pf.plan is not None and pf.plan.fenced


def _of(pfs: Sequence[PfStatus], reason: str, otherwise: str) -> _Verdict:
    texts = [
        f"{pf.pci_address}: {pf.problem.message if pf.problem is not None else 'its VFs are about to be removed'}" for pf in pfs
    ]
    return ("True", reason, "; ".join(texts)) if pfs else ("False", otherwise, "")


def _missing_text(missing: Sequence[str], host: HostFacts) -> str:
    refused = f" ({'; '.join(host.refused)})" if host.refused else ""
    names = " and ".join(missing)
    return (
        f"kernel modules are not loaded: {names}{refused}: load them at boot (modules-load.d) or by the agent's init container"
    )


def _with_times(verdicts: Mapping[str, _Verdict], before: Iterable[Condition], generation: int) -> tuple[Condition, ...]:
    """Build the conditions, and change a transition time only with its status."""
    present = {condition.type: condition for condition in before}
    now = datetime.now(UTC)
    return tuple(
        Condition(
            type=kind,
            status=status,
            reason=reason,
            message=message,
            observed_generation=generation,
            last_transition_time=transition_time(present.get(kind), status, now),
        )
        for kind, (status, reason, message) in verdicts.items()
    )


def fit_status(status: NodeStatus, wanted: Collection[str]) -> NodeStatus:
    """Fit a status into the API's bounds, and report in the condition Ready what was left out.

    Args:
        status: The status to publish.
        wanted: PCI addresses of the PFs that pools ask for, which are kept if there is no room for all.
    """
    # A machine may have many more network functions than NICs with SR-IOV.
    ordered = sorted(status.pfs, key=lambda pf: (pf.pci_address not in wanted, not pf.total_vfs))
    made, notes = fit(msgspec.structs.replace(status, pfs=tuple(ordered)))
    pfs = tuple(sorted(made.pfs, key=lambda pf: pf.pci_address))
    note = f" (shortened: {'; '.join(notes)[:_NOTE_CHARS]})" if notes else ""
    return msgspec.structs.replace(made, pfs=pfs, conditions=tuple(_with_note(one, note) for one in made.conditions))


def _with_note(condition: Condition, note: str) -> Condition:
    if condition.type != "Ready" or not note:
        return condition
    return msgspec.structs.replace(condition, message=condition.message[: _MESSAGE_CHARS - len(note)] + note)


def same_status(one: NodeStatus, other: NodeStatus) -> bool:
    """Return whether two statuses are equal, so that publishing again would change nothing."""
    return msgspec.json.encode(one) == msgspec.json.encode(other)
