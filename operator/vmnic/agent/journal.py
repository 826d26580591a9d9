"""The journal: what vmnic owns on this host, how it was before, and what it is about to do. Written before the host is.

One file, replaced atomically and synced, so it is always a whole one. A journal that cannot be read or written stops every
write to the host: without it neither the original values nor an interrupted run would be known.
"""

from __future__ import annotations

import os
import pathlib

import msgspec

from ..checked.documents import read_json
from ..nodes.observed import ObservedPf
from ..nodes.planning.digest import same_desired
from ..nodes.planning.target import Original, original_of
from ..nodes.state import Apply, ApplyState, PfSpec

__all__ = [
    "Intent",
    "Journal",
    "JournalError",
    "JournalStore",
    "PfRecord",
    "mark_awaiting_confirmation",
    "mark_finished",
    "mark_recovered",
    "mark_released",
    "mark_rolling_back",
    "mark_started",
]

_VERSION = 1
_MESSAGE_CHARS = 512
"""What a status has room for."""
_MOST_BYTES = 2**23
"""64 functions with all that is remembered of their VFs have a twentieth of it."""


class _Header(msgspec.Struct):
    version: int


class JournalError(Exception):
    """The journal cannot be read or written; the message names file and remedy."""


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """A run that has begun; still there at the agent's start, it was interrupted."""

    digest: str
    desired: PfSpec
    before: Original
    """The function's values right before; what a roll-back puts back."""
    probes: tuple[str, ...] = ()
    """What was reachable before, and must be after."""
    boot_id: str = ""
    deadline: float = 0.0
    """When the node must be reachable again, in seconds since boot (CLOCK_BOOTTIME)."""
    rolling_back: str = msgspec.field(default="", name="undoing")
    """It was not: what was lost, and why the function could not be put back yet. From then on the run can only be undone."""


class PfRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of one function."""

    original: Original | None = None
    """Set once vmnic owns the function."""
    granted: PfSpec | None = None
    """What was granted last and has proven itself: to bring it back after a reboot or drift needs no new grant."""
    running: Intent | None = None
    """The run that is going on."""
    attempt: int = 0
    """Ends of runs so far."""
    apply: Apply | None = None
    failure: str | None = None
    """Why the last run failed; cleared by a success or another desired spec."""
    failed_spec: PfSpec | None = None
    rolled_back: bool = False
    """Whether the failure cut the node off and was undone: then it is not tried again unasked."""


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    version: int = _VERSION
    pfs: dict[str, PfRecord] = {}

    def of(self, address: str) -> PfRecord:
        """Give a function's record, empty if there is none."""
        return self.pfs.get(address, PfRecord())


class JournalStore:
    """Reads and writes the journal of one host."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._path = directory / "journal.json"

    def load(self) -> Journal:
        """Read the journal; an absent one is empty.

        Raises:
            JournalError: it cannot be read, is damaged, or a newer vmnic wrote it.
        """
        try:
            with self._path.open("rb") as file:
                raw = file.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            return Journal()
        except OSError as error:
            raise JournalError(f"{self._path}: {error.strerror}: mount the state directory for the agent") from error
        try:
            version = read_json(raw, _Header, max_bytes=_MOST_BYTES).version
            if version == _VERSION:
                return msgspec.json.decode(raw, type=Journal)
        except (ValueError, RecursionError, MemoryError) as error:
            raise JournalError(f"{self._path} is damaged ({error}): restore it, or remove it to give up ownership") from error
        raise JournalError(f"{self._path} is of version {version}, this agent knows {_VERSION}: upgrade the agent")

    def save(self, journal: Journal) -> None:
        """Replace the journal.

        Raises:
            JournalError: it cannot be written; the old one stands.
        """
        fresh = self._path.with_suffix(".new")
        try:
            with fresh.open("wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(journal)))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
            directory = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise JournalError(f"{self._path}: {error.strerror}: free the state directory or make it writable") from error

    def update(self, journal: Journal, address: str, record: PfRecord | None) -> Journal:
        """Replace one function's record, or forget it, and write the journal.

        Raises:
            JournalError: it cannot be written.
        """
        rest = {other: kept for other, kept in journal.pfs.items() if other != address}
        changed = Journal(pfs=rest if record is None else rest | {address: record})
        self.save(changed)
        return changed


def mark_started(
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


def mark_awaiting_confirmation(record: PfRecord, now: float) -> PfRecord:
    """Note that all is written: from now on the node has its time to be reachable again."""
    intent = record.running
    if intent is None:
        return record
    deadline = now + intent.desired.rollback_timeout_s
    return msgspec.structs.replace(record, running=msgspec.structs.replace(intent, deadline=deadline))


def mark_rolling_back(record: PfRecord, why: str, *, failed: bool) -> PfRecord:
    """Note that the run has cut the node off: whatever is reachable later, and after a restart, too, it is undone.

    Args:
        record: The present record.
        why: What was lost, and why it could not be put back yet.
        failed: Whether it could not: that is told as the run's failure until it could.
    """
    intent = record.running
    assert intent is not None
    apply = Apply(digest=intent.digest, state=ApplyState.FAILED, message=why[:_MESSAGE_CHARS]) if failed else record.apply
    return msgspec.structs.replace(record, running=msgspec.structs.replace(intent, rolling_back=why), apply=apply)


def mark_finished(record: PfRecord, desired: PfSpec, digest: str | None, state: ApplyState, message: str) -> PfRecord:
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


def mark_recovered(record: PfRecord, desired: PfSpec) -> PfRecord:
    """Note that a function has become what a run failed to make of it."""
    plain = msgspec.structs.replace(desired, grant=None)
    return msgspec.structs.replace(record, granted=plain, failure=None, failed_spec=None)


def mark_released(record: PfRecord) -> PfRecord:
    """Note that a function needs no write to be as it was, and is vmnic's no longer."""
    return msgspec.structs.replace(record, original=None, granted=None, failure=None)
