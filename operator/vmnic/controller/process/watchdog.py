"""Watchdog of the main loop.

It is the last resort if the loop stalls and no time budget can end the cause. It needs two detectors. Another thread notices
that the loop stalls. If C code holds the interpreter's lock, that thread stalls too; then an interval timer of the kernel,
which counts the CPU time of the process, ends it. Neither takes a frozen process for a stalled one. The object that was being
decided is kept in a file, and the next run starts with it set aside. A pod's `/tmp` outlives a restart of the container.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import mmap
import os
import pathlib
import signal

from ...kube.time_budget import Subject, record_subjects

__all__ = ["StateDirectoryError", "Watchdog"]

_log = logging.getLogger(__name__)

_TICKS = 8
"""Checks by the other thread within the time limit."""
_SUBJECT_BYTES = 1024
_SHOWN_CHARS = 4000
# EX_SOFTWARE of sysexits.h.
_EXIT_CODE = 70


class StateDirectoryError(Exception):
    """The state directory cannot be used. The message names it and the remedy."""


class Watchdog:
    """Ends the process if its main loop stalls for too long.

    Args:
        directory: Directory for the name of the object that is being decided. It is created if it does not exist.
        limit_s: Maximum stall, in seconds.

    Raises:
        StateDirectoryError: the directory cannot be written.
    """

    def __init__(self, directory: pathlib.Path, limit_s: float) -> None:
        self._limit_s = limit_s
        self._beats = 0
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Not "w+", which would empty the file before the trace of the last run is read.
            self._stalled = (directory / "stalled").open("a+", encoding="utf-8", errors="replace")
            self._subject = _map(directory / "subject")
        except OSError as error:
            message = f"{error.filename or directory}: {error.strerror}: name a writable one with --state-directory"
            raise StateDirectoryError(message) from error
        self.blamed = self._read_last()
        """The object that stalled the previous run."""

    def close(self) -> None:
        """Close the files."""
        self._stalled.close()
        self._subject.close()

    def note(self, subject: Subject | None) -> None:
        """Record the object that is being decided."""
        text = "" if subject is None else f"{subject.kind}\n{subject.key}"
        self._subject[:] = text.encode(errors="replace")[:_SUBJECT_BYTES].ljust(_SUBJECT_BYTES, b"\0")

    async def beat(self) -> None:
        """Signal that the main loop runs, until cancelled.

        This runs in the main loop.
        """
        record_subjects(self.note)
        # With `chain`, the default action of SIGPROF follows the dump, and ends the process.
        faulthandler.register(signal.SIGPROF, file=self._stalled, chain=True)
        try:
            while True:
                self._beats += 1
                signal.setitimer(signal.ITIMER_PROF, self._limit_s)
                await asyncio.sleep(self._limit_s / _TICKS)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.note(None)

    async def watch(self) -> None:
        """End the process if the main loop stalls, until cancelled.

        This runs in another thread's loop.
        """
        missed, seen = 0, self._beats
        while missed < _TICKS:
            await asyncio.sleep(self._limit_s / _TICKS)
            # Checks are counted, not seconds: while the process is frozen, a clock goes on, but no check is made.
            missed = missed + 1 if self._beats == seen else 0
            seen = self._beats
        faulthandler.dump_traceback(self._stalled)
        # `sys.exit` would only end this thread, and the interpreter's own shutdown would wait for the loop that stalls.
        os._exit(_EXIT_CODE)

    def _read_last(self) -> Subject | None:
        """Read why the previous run ended, and clear the record so that a later run tries the object again."""
        self._stalled.seek(0)
        trace = self._stalled.read(_SHOWN_CHARS)
        self._stalled.truncate(0)
        # A process that is killed leaves a subject too. Only the trace proves a stall.
        blamed = _subject(self._subject[:]) if trace else None
        self.note(None)
        if trace:
            what = f" while it decided about {blamed.kind} {blamed.key}" if blamed is not None else ""
            _log.error("the last process exited because its event loop blocked%s: %s", what, trace)
        return blamed


def _map(path: pathlib.Path) -> mmap.mmap:
    """Map a file into memory.

    Its content outlives the process, and a write costs no system call.
    """
    with path.open("a+b") as file:
        # This also extends a new file, because an empty one cannot be mapped.
        file.truncate(_SUBJECT_BYTES)
        return mmap.mmap(file.fileno(), _SUBJECT_BYTES)


def _subject(raw: bytes) -> Subject | None:
    kind, _, key = raw.rstrip(b"\0").decode(errors="replace").partition("\n")
    return Subject(kind, key) if kind and key else None
