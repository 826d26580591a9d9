"""A gate between an agent in the guest and its kernel: the Linux adapters at a socket, where one write can be kept.

The agent is told that its host is at this socket, as it is told of a simulated one. So a write can be numbered, kept before
it reaches the kernel or with its answer, and the agent killed at exactly that moment.
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
"""What every look at the host begins with."""


class Gate:
    """The gate; commands come from the test, operations from the agent."""

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
        # It tells of no event, so the agent looks from time to time.
        threading.Thread(target=serve_port, args=(self, listener, None, lambda _: lambda: None), daemon=True).start()

    def command(self, argument: dict[str, Any]) -> Any:
        """Do what the test says."""
        ((name, value),) = argument.items()
        return getattr(self, f"_{name}_")(value)

    def perform(self, op: Op) -> Value:
        """Pass an operation on, unless it is the write to be kept."""
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
        """Keep the n-th write from now on: `before` it, `during` it, or `after` it with its answer."""
        self._reached.clear()
        self._open.clear()
        self._when, self._left = argument["when"], argument["at"]

    def _await_(self, seconds: float) -> bool:
        """Wait until the write is there."""
        return self._reached.wait(seconds)

    def _go_on_(self, _: Any) -> None:
        """Let it go: to the kernel, if its agent was killed during it."""
        self._open.set()

    def _writes_(self, _: Any) -> list[str]:
        return self._writes

    def _looks_(self, _: Any) -> int:
        return self._looks
