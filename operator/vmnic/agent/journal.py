"""The journal of one host.

It records the PFs that vmnic owns, their original state, and the changes that run.

It is written before the host is. It is one file, which is replaced atomically and synced, so it is always complete. While the
journal cannot be read or written, vmnic writes nothing to the host, because the original values and an interrupted change would
be unknown.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable

import msgspec

from ..api.node_state import Apply, ApplyState, PfSpec
from ..checked.documents import read_json
from ..nodes.observed import ObservedPf
from ..nodes.planning.digest import same_desired
from ..nodes.planning.target import Original, original_of

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
"""Length of a message in the status."""
_MOST_BYTES = 2**23
"""64 PFs with the records of all their VFs take a twentieth of it."""


class _Header(msgspec.Struct):
    version: int


class JournalError(Exception):
    """The journal cannot be read or written. The message names file and remedy."""


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """A change that has started. If it is still in the journal when the agent starts, it was interrupted."""

    digest: str
    desired: PfSpec
    before: Original
    """The PF's values right before the change, which a rollback restores."""
    probes: tuple[str, ...] = ()
    """What was reachable before the change and must be reachable after it."""
    boot_id: str = ""
    approved: tuple[str, ...] = ()
    """IDs of the soft blockers that a person had approved. They do not stop an interrupted change either."""
    deadline: float = 0.0
    """When the node must be reachable again, in seconds since boot (CLOCK_BOOTTIME)."""
    rolling_back: str = msgspec.field(default="", name="undoing")
    """Set once the node was cut off. It says what was lost and why the PF could not be restored yet. From then on the change
    can only be rolled back."""


class PfRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the journal records of one PF."""

    original: Original | None = None
    """Set while vmnic owns the PF."""
    granted: PfSpec | None = None
    """The spec that was granted last and has been applied. Restoring it after a reboot or drift needs no new grant."""
    running: Intent | None = None
    """The change that runs."""
    attempt: int = 0
    """Number of changes that have ended."""
    apply: Apply | None = None
    failure: str | None = None
    """Why the last change failed. A success or another spec clears it."""
    failed_spec: PfSpec | None = None
    rolled_back: bool = False
    """Whether the failed change cut the node off and was rolled back. It is then not retried without a new grant."""


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the journal file."""

    version: int = _VERSION
    pfs: dict[str, PfRecord] = {}

    def of(self, address: str) -> PfRecord:
        """Return the record of a PF, which is empty if there is none."""
        return self.pfs.get(address, PfRecord())


class JournalStore:
    """Reads and writes the journal of one host."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._path = directory / "journal.json"

    def load(self) -> Journal:
        """Read the journal, which is empty if the file does not exist.

        Raises:
            JournalError: The journal cannot be read, is damaged, or was written by a newer vmnic.
        """
        try:
            with self._path.open("rb") as file:
                # One byte more than allowed is enough for `read_json` to refuse a file that is too large.
                raw = file.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            return Journal()
        except OSError as error:
            raise JournalError(f"{self._path}: {error.strerror}: mount the state directory for the agent") from error
        try:
            # The version is read by itself first, because a newer journal may not decode as this `Journal`.
            version = read_json(raw, _Header, max_bytes=_MOST_BYTES).version
            if version == _VERSION:
                return msgspec.json.decode(raw, type=Journal)
        except (ValueError, RecursionError, MemoryError) as error:
            raise JournalError(f"{self._path} is damaged ({error}): restore it, or remove it to give up ownership") from error
        raise JournalError(f"{self._path} has version {version}, but this agent supports {_VERSION}: upgrade the agent")

    def save(self, journal: Journal) -> None:
        """Replace the journal.

        Raises:
            JournalError: The journal cannot be written. The old one stays in place.
        """
        fresh = self._path.with_suffix(".new")
        try:
            with fresh.open("wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(journal)))
                file.flush()
                # This sync writes the content before it gets its name. The one below makes the name survive a crash.
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
        """Replace or remove the record of one PF and write the journal.

        Raises:
            JournalError: The journal cannot be written.
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
    approved: Iterable[str] = (),
    now: float,
) -> PfRecord:
    """Record the start of a change, with ownership, original values and intent.

    Args:
        record: The present record.
        desired: The spec to apply.
        observed: The PF as observed.
        digest: The plan.
        granted: Whether the controller granted it, so that the status reports its end.
        probes: What is reachable now.
        boot_id: The kernel's boot id.
        approved: IDs of the soft blockers that a person has approved.
        now: Seconds since boot.
    """
    before, earlier = original_of(observed), record.running
    intent = Intent(
        digest=digest,
        # A grant here would have to be claimed. Without one, an offline pass can complete the change.
        desired=msgspec.structs.replace(desired, grant=None),
        # A change that continues an interrupted one would roll back to the state before the first one.
        before=earlier.before if earlier is not None else before,
        probes=earlier.probes if earlier is not None else probes,
        boot_id=boot_id,
        approved=tuple(sorted(approved)),
        deadline=now + desired.rollback_timeout_s,
    )
    apply = Apply(digest=digest, state=ApplyState.APPLYING) if granted else record.apply
    # Later changes start from values that vmnic wrote, so only the first one records the original.
    return msgspec.structs.replace(record, original=record.original or before, running=intent, apply=apply)


def mark_awaiting_confirmation(record: PfRecord, now: float) -> PfRecord:
    """Record that all is written, and start the time in which the node must become reachable."""
    intent = record.running
    if intent is None:
        return record
    deadline = now + intent.desired.rollback_timeout_s
    return msgspec.structs.replace(record, running=msgspec.structs.replace(intent, deadline=deadline))


def mark_rolling_back(record: PfRecord, why: str, *, failed: bool) -> PfRecord:
    """Mark the change for rollback because it cut the node off.

    The rollback happens even if the node becomes reachable again or the agent restarts.

    Args:
        record: The present record.
        why: What was lost, and why the PF could not be restored yet.
        failed: Whether restoring failed. The status then reports the change as failed until the rollback succeeds.
    """
    intent = record.running
    assert intent is not None
    apply = Apply(digest=intent.digest, state=ApplyState.FAILED, message=why[:_MESSAGE_CHARS]) if failed else record.apply
    return msgspec.structs.replace(record, running=msgspec.structs.replace(intent, rolling_back=why), apply=apply)


def mark_finished(record: PfRecord, desired: PfSpec, digest: str | None, state: ApplyState, message: str) -> PfRecord:
    """Record the end of a change, which uses up its grant.

    Args:
        record: The present record.
        desired: The spec that the change was to apply.
        digest: The grant to answer. None if the change had none.
        state: How it ended.
        message: Why it did not succeed.
    """
    plain = msgspec.structs.replace(desired, grant=None)
    failed = state.has_failed
    granted = record.granted
    # A failed repair of the granted spec keeps it, so that it is tried again, also after a reboot.
    if state is ApplyState.FAILED and not (granted is not None and same_desired(granted, desired)):
        granted = None  # The PF is left between two specs.
    if state is ApplyState.APPLIED:
        granted = None if desired.release else plain
    # A refused change that had no grant did not start, so it is no end and is retried as it is.
    counts = digest is not None or state is not ApplyState.REFUSED
    return msgspec.structs.replace(
        record,
        original=None if desired.release and state is ApplyState.APPLIED else record.original,
        granted=granted,
        running=None,
        attempt=record.attempt + counts,
        # A repair answers no grant, so the answer to the last grant stays.
        apply=Apply(digest=digest, state=state, message=message[:_MESSAGE_CHARS]) if digest is not None else record.apply,
        failure=message[:_MESSAGE_CHARS] if failed else None,
        failed_spec=plain if failed else None,
        rolled_back=state is ApplyState.ROLLED_BACK,
    )


def mark_recovered(record: PfRecord, desired: PfSpec) -> PfRecord:
    """Record that a PF has reached the spec that an earlier change failed to apply."""
    plain = msgspec.structs.replace(desired, grant=None)
    return msgspec.structs.replace(record, granted=plain, failure=None, failed_spec=None)


def mark_released(record: PfRecord) -> PfRecord:
    """Record that a released PF needs no further write, and end vmnic's ownership."""
    return msgspec.structs.replace(record, original=None, granted=None, failure=None)
