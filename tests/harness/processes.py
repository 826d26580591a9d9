"""Processes of the harness, started with a log each, recorded in a state file, and stopped in the right order."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
_given_ports: set[int] = set()


class Processes:
    """Named processes of one directory.

    The state file lets another process stop them, as `make demo-down` does.
    """

    def __init__(self, directory: pathlib.Path, *, die_with_parent: bool) -> None:
        self.directory = directory
        self._die_with_parent = die_with_parent
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        (directory / "log").mkdir(parents=True, exist_ok=True)

    def start(
        self, name: str, command: Sequence[object], env: dict[str, str] | None = None, cwd: pathlib.Path | None = None
    ) -> None:
        """Start a process.

        Its output goes to `log/NAME.log`.
        """
        with (self.directory / "log" / f"{name}.log").open("ab") as log:
            self._started[name] = subprocess.Popen(
                [str(word) for word in command],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=env,
                cwd=cwd,
                preexec_fn=_die_with_parent if self._die_with_parent else None,  # noqa: PLW1509 - tests have no threads then
            )
        self._save()

    def pid(self, name: str) -> int:
        """Return a process's id."""
        return self._started[name].pid

    def running(self, name: str) -> bool:
        """Return whether a process runs."""
        return name in self._started and self._started[name].poll() is None

    def log(self, name: str) -> str:
        """Return the output of a process."""
        return (self.directory / "log" / f"{name}.log").read_text(errors="replace")

    def freeze(self, name: str) -> None:
        """Freeze a process (SIGSTOP)."""
        os.kill(self.pid(name), signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Resume a frozen process."""
        os.kill(self.pid(name), signal.SIGCONT)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Kill a process and wait for its end."""
        process = self._started[name]
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        process.wait(15)

    def stop_all(self) -> None:
        """Stop every process, the last started first, so that an API server never loses its etcd.

        The state file of another process, which has started what it names, stays for `stop_recorded`.
        """
        for name in reversed(list(self._started)):
            self._stop(name)
        if self._started:
            (self.directory / "processes.json").unlink(missing_ok=True)

    def _stop(self, name: str) -> None:
        process = self._started[name]
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
            os.kill(process.pid, signal.SIGTERM if name in ("etcd", "kube-apiserver") else signal.SIGKILL)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)

    def _save(self) -> None:
        pids = {name: process.pid for name, process in self._started.items() if process.poll() is None}
        (self.directory / "processes.json").write_text(json.dumps(pids))


def stop_recorded(directory: pathlib.Path) -> bool:
    """Stop the processes that a state file names, and return whether there is one."""
    state = directory / "processes.json"
    if not state.exists():
        return False
    for name, pid in reversed(json.loads(state.read_text()).items()):
        if not _is_ours(pid):
            continue
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGTERM if name in ("etcd", "kube-apiserver") else signal.SIGKILL)
        deadline = time.monotonic() + 10
        while _is_ours(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        if _is_ours(pid):
            os.killpg(pid, signal.SIGKILL)
    state.unlink()
    return True


def _is_ours(pid: int) -> bool:
    """Return whether the process still leads its own session, as all processes of the harness do."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return False
    return fields[0] != "Z" and int(fields[3]) == pid


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port() -> int:
    """Return a free TCP port of the loopback that no other call of this process returns.

    The kernel must not assign it to an outgoing connection before its server listens, so it is below the range of those.
    """
    lowest = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        port = secrets.choice(range(max(1024, lowest - 20000), lowest))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given_ports:
                _given_ports.add(port)
                return port
    raise AssertionError("no TCP port is free")
