"""Programs in the guest that write a file and may be killed meanwhile."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess

__all__ = ["Writers"]


class Writers:
    """Each is known by its process id."""

    def __init__(self) -> None:
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, path: str, text: str) -> int:
        """Start one."""
        writer = subprocess.Popen(["/bin/sh", "-c", 'printf %s "$2" > "$1"', "sh", path, text], stdin=subprocess.DEVNULL)
        self._running[writer.pid] = writer
        return writer.pid

    def state(self, pid: int) -> str:
        """Give the kernel's letter for it, `D` if no signal reaches it; empty once it has ended."""
        if self._running[pid].poll() is None:
            with contextlib.suppress(FileNotFoundError):
                return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
        return ""

    def kill(self, pid: int) -> None:
        """Send SIGKILL."""
        self._running[pid].kill()
