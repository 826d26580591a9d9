"""The journal: what vmnic owns on this host, how it was before, and what it is about to do. Written before the host is.

One file, replaced atomically and synced, so it is always a whole one. A journal that cannot be read or written stops every
write to the host: without it neither the original values nor an interrupted run would be known.
"""

from __future__ import annotations

import os
import pathlib

import msgspec

from ..checked.documents import read_json
from ..nodes.state import Apply, PfSpec
from ..nodes.target import Original

__all__ = ["Intent", "Journal", "JournalError", "JournalStore", "PfRecord"]

_VERSION = 1
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
    undoing: str = ""
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
