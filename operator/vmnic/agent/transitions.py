"""How a function's record in the journal changes when a run begins and ends. Pure; the journal writes it down."""

from __future__ import annotations

import msgspec

from ..nodes.digest import same_desired
from ..nodes.observed import ObservedPf
from ..nodes.state import Apply, ApplyState, PfSpec
from ..nodes.target import original_of
from .journal import Intent, PfRecord

__all__ = ["begun", "ended", "given_up", "healed", "proving", "undoing"]

_MESSAGE_CHARS = 512
"""What a status has room for."""


def begun(
    record: PfRecord,
    desired: PfSpec,
    observed: ObservedPf,
    *,
    digest: str,
    granted: bool,
    probes: tuple[str, ...],
    boot_id: str,
    now: float,
) -> PfRecord:
    """Note ownership, original values and the intent.

    Args:
        record: The present record.
        desired: What the function is to become.
        observed: What it is.
        digest: The plan.
        granted: Whether a grant stands behind it, whose end is then told.
        probes: What is reachable now.
        boot_id: The kernel's boot id.
        now: Seconds since boot.
    """
    before, earlier = original_of(observed), record.running
    intent = Intent(
        digest=digest,
        desired=msgspec.structs.replace(desired, grant=None),
        # A run that goes on after an interruption would go back to where the first one began.
        before=earlier.before if earlier is not None else before,
        probes=earlier.probes if earlier is not None else probes,
        boot_id=boot_id,
        deadline=now + desired.rollback_timeout_s,
    )
    apply = Apply(digest=digest, state=ApplyState.APPLYING) if granted else record.apply
    return msgspec.structs.replace(record, original=record.original or before, running=intent, apply=apply)


def proving(record: PfRecord, now: float) -> PfRecord:
    """Note that all is written: from now on the node has its time to be reachable again."""
    intent = record.running
    if intent is None:
        return record
    deadline = now + intent.desired.rollback_timeout_s
    return msgspec.structs.replace(record, running=msgspec.structs.replace(intent, deadline=deadline))


def undoing(record: PfRecord, why: str, *, failed: bool) -> PfRecord:
    """Note that the run has cut the node off: whatever is reachable later, and after a restart, too, it is undone.

    Args:
        record: The present record.
        why: What was lost, and why it could not be put back yet.
        failed: Whether it could not: that is told as the run's failure until it could.
    """
    intent = record.running
    assert intent is not None
    apply = Apply(digest=intent.digest, state=ApplyState.FAILED, message=why[:_MESSAGE_CHARS]) if failed else record.apply
    return msgspec.structs.replace(record, running=msgspec.structs.replace(intent, undoing=why), apply=apply)


def ended(record: PfRecord, desired: PfSpec, digest: str | None, state: ApplyState, message: str) -> PfRecord:
    """Note the end of a run: its grant is used up.

    Args:
        record: The present record.
        desired: What the function was to become.
        digest: The grant that is answered; None: there was none.
        state: How it ended.
        message: Why it did not end well.
    """
    plain = msgspec.structs.replace(desired, grant=None)
    failed = state in (ApplyState.FAILED, ApplyState.ROLLED_BACK)
    granted = record.granted
    if state is ApplyState.FAILED and not (granted is not None and same_desired(granted, desired)):
        granted = None  # The function is half way to something else.
    if state is ApplyState.APPLIED:
        granted = None if desired.release else plain
    # To be refused what needed no grant is no end: nothing was begun, and it is tried again as it is.
    counts = digest is not None or state is not ApplyState.REFUSED
    return msgspec.structs.replace(
        record,
        original=None if desired.release and state is ApplyState.APPLIED else record.original,
        granted=granted,
        running=None,
        attempt=record.attempt + counts,
        apply=Apply(digest=digest, state=state, message=message[:_MESSAGE_CHARS]) if digest is not None else record.apply,
        failure=message[:_MESSAGE_CHARS] if failed else None,
        failed_spec=plain if failed else None,
        rolled_back=state is ApplyState.ROLLED_BACK,
    )


def healed(record: PfRecord, desired: PfSpec) -> PfRecord:
    """Note that a function has become what a run failed to make of it."""
    plain = msgspec.structs.replace(desired, grant=None)
    return msgspec.structs.replace(record, granted=plain, failure=None, failed_spec=None)


def given_up(record: PfRecord) -> PfRecord:
    """Note that a function needs no write to be as it was, and is vmnic's no longer."""
    return msgspec.structs.replace(record, original=None, granted=None, failure=None)
