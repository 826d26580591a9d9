"""The published status of a node, from an observation, the journal, and what prevents changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from ...api.node_state import Apply, NodeNicState, NodeSpec, NodeStatus, PfProblem, PfSpec, PfStatus
from ...api.reasons import PfReason
from ...inspection.errno_hints import describe_errno, reason_for
from ...nodes.observed import ObservedPf, render_pf_status
from ...nodes.planning.digest import same_desired
from ...nodes.planning.plan import Planned
from ...nodes.planning.preflight import words_of_unknown_vfs
from ..change import needs_holders
from ..journal import Journal, PfRecord
from ..observe.observer import NodeObservation
from .conditions import fit_status, node_conditions

__all__ = ["InFlightSummary", "render_status", "render_unobservable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlightSummary:
    """Kernel calls that have not returned."""

    stuck: Collection[str]
    """PFs with such a call of this agent."""
    bus_stuck: bool
    """Whether one of them is a write, in which case no PF of the node is written."""
    in_flight: Collection[str]
    """PFs with a write of an earlier agent."""


def render_status(
    state: NodeNicState | None,
    look: NodeObservation,
    journal: Journal,
    calls: InFlightSummary,
    *,
    fault: str,
    claims: Mapping[str, Apply],
) -> NodeStatus:
    """Return the node's status.

    Args:
        state: The NodeNicState that was observed. None if there is none.
        look: The observation.
        journal: Ownership and ends of changes.
        calls: Kernel calls that have not returned.
        fault: Why the host as a whole may not be changed. Empty if it may.
        claims: Grants that are being claimed, by PF.
    """
    spec = state.spec if state is not None else NodeSpec()
    before = state.status if state is not None else NodeStatus()
    generation = state.metadata.generation if state is not None else 0
    desired = {pf.pci_address: pf for pf in spec.pfs}
    pfs = [
        _render_pf(pf, look, journal.of(pf.pci_address), desired.get(pf.pci_address), calls, claims)
        for pf in look.observation.pfs
    ]
    # PFs that are being changed were not read. The status keeps what it says about them.
    pfs += [pf for pf in before.pfs if pf.pci_address in look.busy]
    silent = {*calls.stuck, *look.observation.unreadable} - {pf.pci_address for pf in pfs}
    pfs += [_unread(pf, look, journal.pfs.get(pf.pci_address), calls) for pf in before.pfs if pf.pci_address in silent]
    seen = {pf.pci_address for pf in pfs}
    vanished = [_vanished(pf, before.pfs) for pf in spec.pfs if pf.pci_address not in seen]
    pfs += [_with_end(pf, journal.pfs.get(pf.pci_address)) for pf in vanished]
    pfs.sort(key=lambda pf: pf.pci_address)
    host = look.observation.host
    seen_pfs = {pf.pci_address: pf for pf in look.observation.pfs}
    plans = [(one.plan, seen_pfs[address]) for address, one in look.planned.items() if one.plan and address in seen_pfs]
    if look.unknown and any(needs_holders(plan, pf) for plan, pf in plans):
        fault = fault or f"{look.unknown}; VFs are not changed meanwhile"
    conditions = node_conditions(spec, pfs, host, generation=generation, fault=fault, before=before.conditions)
    status = NodeStatus(
        observed_generation=generation,
        boot_id=look.observation.boot_id,
        host=host,
        pfs=tuple(pfs),
        conditions=conditions,
    )
    return fit_status(status, desired.keys())


def render_unobservable(state: NodeNicState | None, journal: Journal, fault: str) -> NodeStatus:
    """Return the status while the host cannot be observed.

    It has the last known state, and the ends of changes since.
    """
    spec = state.spec if state is not None else NodeSpec()
    before = state.status if state is not None else NodeStatus()
    pfs = tuple(_with_end(pf, journal.pfs.get(pf.pci_address)) for pf in before.pfs)
    # This spec was not compared with the host, so its generation is not reported as observed.
    generation = before.observed_generation
    conditions = node_conditions(spec, pfs, before.host, generation=generation, fault=fault, before=before.conditions)
    status = msgspec.structs.replace(before, pfs=pfs, conditions=conditions)
    return fit_status(status, {pf.pci_address for pf in spec.pfs})


def _render_pf(
    pf: ObservedPf,
    look: NodeObservation,
    record: PfRecord,
    desired: PfSpec | None,
    calls: InFlightSummary,
    claims: Mapping[str, Apply],
) -> PfStatus:
    planned = look.planned.get(pf.pci_address, Planned())
    # A plan that needs the attributes is refused. Any other one goes on, and the failed read is reported after it.
    asked = desired is not None and not desired.release and planned.plan is None
    unread = PfProblem(reason=PfReason.UNREADABLE, message=words_of_unknown_vfs(pf)) if asked and pf.vfs_unknown else None
    return render_pf_status(
        pf,
        holders=look.holders,
        owned=record.original is not None,
        attempt=record.attempt,
        plan=planned.plan,
        problem=planned.problem or _run_problem(planned, record, desired, calls) or _loss(pf, look, desired) or unread,
        apply=claims.get(pf.pci_address, record.apply),
    )


def _run_problem(planned: Planned, record: PfRecord, desired: PfSpec | None, calls: InFlightSummary) -> PfProblem | None:
    """Return what prevents a change.

    There is a problem only if the PF has a plan, or an interrupted change has not ended.
    """
    if desired is None or (planned.plan is None and record.running is None):
        return None
    if calls.bus_stuck:
        others = " and ".join(sorted(calls.stuck))
        text = f"nothing is written until the kernel has answered a write to {others}; it may hold the lock of the PCI bus"
        own = desired.pci_address in calls.stuck
        return PfProblem(reason=PfReason.PCI_BUS_STUCK, message=_stuck_text(desired.pci_address, record) if own else text)
    if record.running is not None and record.running.rolling_back:
        return PfProblem(reason=PfReason.APPLY_FAILED, message=record.running.rolling_back)
    if calls.in_flight:
        which = " and ".join(sorted(calls.in_flight))
        text = f"a write to {which} by an earlier agent has not returned from the kernel"
        return PfProblem(reason=PfReason.WRITE_STILL_IN_FLIGHT, message=text)
    if record.failure and record.failed_spec is not None and same_desired(record.failed_spec, desired):
        reason = PfReason.ROLLED_BACK if record.rolled_back else reason_for(record.failure)
        return PfProblem(reason=reason, message=record.failure)
    return None


def _loss(pf: ObservedPf, look: NodeObservation, desired: PfSpec | None) -> PfProblem | None:
    if desired is None or desired.release or pf.pci_address not in look.link_down:
        return None
    text = f"{pf.name} ({pf.pci_address}) has lost its carrier: check the cable, the transceiver and the switch port"
    return PfProblem(reason=PfReason.CARRIER_LOST, message=text)


def _unread(pf: PfStatus, look: NodeObservation, record: PfRecord | None, calls: InFlightSummary) -> PfStatus:
    """Return the last known state of a PF that does not answer, with the reason in place of a plan."""
    error = look.observation.unreadable.get(pf.pci_address)
    if calls.bus_stuck:
        problem = PfProblem(reason=PfReason.PCI_BUS_STUCK, message=_stuck_text(pf.pci_address, record))
    else:
        why = (
            describe_errno(error) if isinstance(error, OSError) else f"{error or 'one has not returned'}: check the kernel log"
        )
        problem = PfProblem(reason=PfReason.UNREADABLE, message=f"{pf.pci_address} does not answer reads: {why}")
    return msgspec.structs.replace(_with_end(pf, record), plan=None, problem=problem)


def _with_end(pf: PfStatus, record: PfRecord | None) -> PfStatus:
    """Return the last known state of a PF, with the end of its last change."""
    if record is None:
        return pf
    return msgspec.structs.replace(pf, apply=record.apply, attempt=record.attempt)


def _stuck_text(address: str, record: PfRecord | None) -> str:
    what = (record and record.failure) or f"{address}: a write has not returned from the kernel"
    return f"{what}: check the kernel log for what it waits for (a VF that is still open), or reboot the node"


def _vanished(desired: PfSpec, before: Sequence[PfStatus]) -> PfStatus:
    """Return the status of a PF that a pool asks for and that is missing, so that it offers nothing."""
    known = next((pf for pf in before if pf.pci_address == desired.pci_address), PfStatus(pci_address=desired.pci_address))
    problem = PfProblem(
        reason=PfReason.VANISHED,
        message=f"{known.name or 'the function'} ({desired.pci_address}) is no longer on the bus: check the hardware and the "
        "kernel log, or exclude it from the pool's nicSelector",
    )
    return msgspec.structs.replace(known, num_vfs=0, vfs=(), held=(), host_use=(), first_vf="", plan=None, problem=problem)
