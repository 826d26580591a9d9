"""Start of the host worker, which receives a socket for each session.

The module loads quickly, so that the worker starts early.
"""

from __future__ import annotations

import json
import pathlib
import socket
import subprocess
import sys

__all__ = ["WorkerGoneError", "WorkerProcess"]


class WorkerGoneError(Exception):
    """The worker or a session's child ended unexpectedly."""


class WorkerProcess:
    """The worker process. If it died, the next session starts it again.

    Args:
        host: `linux`, or a simulated host at `sim:SOCKET`.
        state_dir: Directory of the lock files.
        root: Directory below which the host's /sys is.
        links: Host of the links, if it is another one than `host`.
        modules: Host of the modules, if it is another one than `host`.
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
        """Return the process id of the worker, or None if it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start the process unless it runs."""
        if self.pid is not None:
            return
        self.close()
        # SOCK_SEQPACKET keeps requests apart, and reports the end of the peer, which SOCK_DGRAM does not.
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # -I: neither PYTHON* variables nor the working directory decide what a root process imports.
            command = [sys.executable, "-I", "-m", "vmnic.host.worker", "--control", str(theirs.fileno()), *self._arguments]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        # A worker that no longer reads must not block the event loop. A full socket counts as a worker that is gone.
        self._control.setblocking(False)
        self.has_answered = False

    def ask(self, pf: str, *, write: bool) -> socket.socket:
        """Request a session and return the socket on which its child answers.

        Raises:
            WorkerGoneError: The worker cannot be reached.
        """
        self.start()
        assert self._control is not None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        # The worker gets its own copy. If this one stayed open, the agent would never see the end of the child.
        with theirs:
            try:
                socket.send_fds(self._control, [json.dumps({"pf": pf, "write": write}).encode()], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise WorkerGoneError(f"the host worker is gone: {error.strerror}") from error
        return ours

    def close(self) -> None:
        """End the worker. A child that is stuck in the kernel stays."""
        if self._control is not None:
            self._control.close()
            self._control = None

    def wait(self) -> None:
        """Wait until the worker has ended."""
        if self._process is not None:
            self._process.wait()
