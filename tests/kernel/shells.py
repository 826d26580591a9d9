"""Connections to the shells of domains' guests, which QEMU serves at sockets."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import time

__all__ = ["Shells"]

_MARK = re.compile(r"END\d+\.\n")


class Shells:
    """The open connections, by the path of their socket. QEMU serves one at a time."""

    def __init__(self) -> None:
        self._open: dict[str, socket.socket] = {}
        self._numbers = itertools.count(1)

    def ask(self, path: str, command: str, timeout_s: float) -> str | None:
        """Run a command and return its output, or None if the guest does not answer in time."""
        end = f"END{next(self._numbers)}."
        try:
            shell = self._open.get(path) or self._connect(path)
            shell.sendall(f"{command}\necho {end}\n".encode())
            return _until(shell, end, time.monotonic() + timeout_s)
        except OSError:
            # The domain has ended, and another one may listen there later.
            with contextlib.suppress(KeyError):
                self._open.pop(path).close()
            return None

    def _connect(self, path: str) -> socket.socket:
        shell = socket.socket(socket.AF_UNIX)
        shell.connect(path)
        self._open[path] = shell
        return shell


def _until(shell: socket.socket, end: str, deadline: float) -> str | None:
    got = ""
    while f"{end}\n" not in got:
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        shell.settimeout(left)
        try:
            data = shell.recv(4096)
        except TimeoutError:
            return None
        if not data:
            raise ConnectionError("the domain has ended")
        got += data.decode(errors="replace").replace("\r", "")
    # Answers that came too late for their own requests stand before this one, each with its mark.
    return _MARK.split(got.split(f"{end}\n")[0])[-1].strip()
