"""Starts the host worker's program and hands it a socket for each session; quick to load, so that the program starts early."""

from __future__ import annotations

import json
import pathlib
import socket
import subprocess
import sys

__all__ = ["WorkerGoneError", "WorkerProcess"]


class WorkerGoneError(Exception):
    """The worker or a session's child ended unasked."""


class WorkerProcess:
    """The worker; one that died is started again when it is needed.

    Args:
        host: `linux`, or a simulated one at `sim:SOCKET`.
        state_dir: Directory of the lock files.
        root: Directory below which the host's /sys is.
        links: Where links are, if not where `host` says.
        modules: Where modules are, likewise.
    """

    def __init__(self, *, host: str, state_dir: pathlib.Path, root: str = "/", links: str = "", modules: str = "") -> None:
        flags = {"host": host, "root": root, "links": links, "modules": modules, "state-dir": str(state_dir)}
        self._arguments = [word for name, text in flags.items() for word in (f"--{name}", text)]
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.has_answered = False
        """Whether it has opened a session since its start."""

    @property
    def pid(self) -> int | None:
        """Process id of the worker, if it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start the program, unless it runs."""
        if self.pid is not None:
            return
        self.close()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-I", "-m", "vmnic.host.worker", "--control", str(theirs.fileno()), *self._arguments]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._control.setblocking(False)
        self.has_answered = False

    def ask(self, pf: str, *, write: bool) -> socket.socket:
        """Ask for a session, and give the socket at which its child will answer.

        Raises:
            WorkerGoneError: the worker cannot be asked.
        """
        self.start()
        assert self._control is not None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            try:
                socket.send_fds(self._control, [json.dumps({"pf": pf, "write": write}).encode()], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise WorkerGoneError(f"the host worker is gone: {error.strerror}") from error
        return ours

    def close(self) -> None:
        """Let the worker end; a child that is stuck in the kernel goes on."""
        if self._control is not None:
            self._control.close()
            self._control = None

    def wait(self) -> None:
        """Wait for its end."""
        if self._process is not None:
            self._process.wait()
