"""Processes in the guest that write a file and may be killed while they do."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess

__all__ = ["Writers"]


class Writers:
    """The writers, by process id."""

    def __init__(self) -> None:
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, path: str, text: str) -> int:
        """Start a writer."""
        writer = subprocess.Popen(["/bin/sh", "-c", 'printf %s "$2" > "$1"', "sh", path, text], stdin=subprocess.DEVNULL)
        self._running[writer.pid] = writer
        return writer.pid

    def state(self, pid: int) -> str:
        """Return the kernel's letter for its state, or an empty string once it has ended.

        `D` means that no signal reaches it.
        """
        if self._running[pid].poll() is None:
            with contextlib.suppress(FileNotFoundError):
                return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
        return ""

    def kill(self, pid: int) -> None:
        """Send SIGKILL."""
        self._running[pid].kill()
