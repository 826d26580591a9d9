"""A gate between an agent in the guest and its kernel.

The Linux adapters serve on a socket, where one write can be held. The agent is started with this socket as its host, like with
a simulated one. So a write can be numbered, held before it reaches the kernel or before its answer is sent, and the agent
killed at exactly that moment.
"""

from __future__ import annotations

import errno
import pathlib
import socket
import threading
from typing import Any

from vmnic.host.ops import Op, Port, ReadFile, Value, is_write
from vmnic.host.socket import serve_port

__all__ = ["GATE", "Gate"]

GATE = "/run/gate.sock"
_LOOK = ReadFile("/proc/sys/kernel/random/boot_id")
"""The first read of every observation."""


class Gate:
    """The gate. The test sends commands, and the agent sends operations."""

    def __init__(self, host: Port) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._left = 0
        self._when = ""
        self._reached, self._open = threading.Event(), threading.Event()
        self._writes: list[str] = []
        self._looks = 0
        path = pathlib.Path(GATE)
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(64)
        # It sends no events, so the agent only observes at its interval.
        threading.Thread(target=serve_port, args=(self, listener, None, lambda _: lambda: None), daemon=True).start()

    def command(self, argument: dict[str, Any]) -> Any:
        """Execute a command of the test."""
        ((name, value),) = argument.items()
        return getattr(self, f"_{name}_")(value)

    def perform(self, op: Op) -> Value:
        """Pass an operation on, unless it is the write to hold."""
        if not self._is_kept(op):
            return self._host.perform(op)
        if self._when == "after":
            self._host.perform(op)
        self._reached.set()
        self._open.wait()
        if self._when == "during":
            return self._host.perform(op)
        raise OSError(errno.ECONNRESET, "nobody waits for the answer")

    def _is_kept(self, op: Op) -> bool:
        with self._lock:
            self._looks += op == _LOOK
            if not is_write(op):
                return False
            self._writes.append(str(op))
            self._left -= 1
            return self._left == 0

    def _keep_(self, argument: dict[str, Any]) -> None:
        """Hold the n-th write from now on, `before` it, `during` it, or `after` it without its answer."""
        self._reached.clear()
        self._open.clear()
        self._when, self._left = argument["when"], argument["at"]

    def _await_(self, seconds: float) -> bool:
        """Wait until the write to hold arrives."""
        return self._reached.wait(seconds)

    def _go_on_(self, _: Any) -> None:
        """Release the held write, which reaches the kernel if its agent was killed during it."""
        self._open.set()

    def _writes_(self, _: Any) -> list[str]:
        return self._writes

    def _looks_(self, _: Any) -> int:
        return self._looks
