"""The host worker: `python -I -m vmnic.host.worker`, a small single-threaded program beside the agent.

It forks a child per session, since nothing else can be abandoned: a system call may block in the kernel for ever, and then
the agent drops the session and goes on. A write session holds a lock per PF, which the kernel releases when the child truly
ends; so a child that outlives its agent is seen by the next one.

Protocol: the agent sends `{"pf": …, "write": …}` with one end of a stream socket over the SEQPACKET socket named by
`--control`; the child answers `{"ready": true}` there, or `{"in_flight": true}`, and then serves operations (see `socket.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gc
import json
import os
import pathlib
import signal
import socket
import sys

from .linux import linux_host
from .ops import Port
from .ports import Host
from .socket import SocketPort, answer

__all__ = ["lock_path", "main", "open_host"]

_REQUEST_BYTES = 4096


def main(arguments: list[str]) -> int:
    """Serve sessions until the agent goes away."""
    parser = argparse.ArgumentParser(prog="vmnic.host.worker")
    parser.add_argument("--control", type=int, required=True, help="descriptor of the socket to the agent")
    parser.add_argument("--host", required=True, help="linux, or sim:SOCKET")
    parser.add_argument("--root", default="/", help="directory below which the host's /sys is")
    parser.add_argument("--links", default="", help="where links are, if not where --host says")
    parser.add_argument("--modules", default="", help="where modules are, likewise")
    parser.add_argument("--state-dir", required=True, type=pathlib.Path, help="directory of the lock files")
    chosen = parser.parse_args(arguments)
    (chosen.state_dir / "locks").mkdir(parents=True, exist_ok=True)
    if (chosen.links or chosen.host) == "linux":
        _import_netlink()
    # The agent handles the signals and closes the socket; children reap themselves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control = socket.socket(fileno=chosen.control)
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, _REQUEST_BYTES, 1)
        if not request:
            return 0
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # The exit code of modprobe is to be had.
            os._exit(_serve_session(json.loads(request), descriptors[0], chosen))
        os.close(descriptors[0])


def _import_netlink() -> None:
    """Import what every child needs once, before the forks."""
    gc.disable()
    import pyroute2  # noqa: F401, PLC0415 - slow, and a simulated host needs none

    gc.freeze()  # Children that look for garbage would copy all of it.
    gc.enable()


def _serve_session(request: dict[str, object], descriptor: int, chosen: argparse.Namespace) -> int:
    """Be one session's child: its end is this process's end."""
    with socket.socket(fileno=descriptor) as stream, contextlib.suppress(BrokenPipeError, ConnectionError):
        lock = _take_lock(lock_path(chosen.state_dir, str(request["pf"]))) if request["write"] else None
        if request["write"] and lock is None:
            stream.sendall(b'{"in_flight": true}\n')
            return 0
        port = open_host(chosen.host, chosen.root, links=chosen.links, modules=chosen.modules)
        stream.sendall(b'{"ready": true}\n')
        for line in stream.makefile("rb"):
            stream.sendall(json.dumps(answer(port, json.loads(line))).encode() + b"\n")
        if lock is not None:
            os.close(lock)  # Before the agent sees the end of the stream.
    return 0


def lock_path(state_dir: pathlib.Path, pf: str) -> pathlib.Path:
    """Give the file whose lock a write session on this PF holds."""
    return state_dir / "locks" / f"{pf}.lock"


def _take_lock(path: pathlib.Path) -> int | None:
    """Take a lock and give its descriptor, with which the kernel frees it; None: another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def open_host(host: str, root: str, *, links: str = "", modules: str = "") -> Port:
    """Open the host that the agent was started for.

    Args:
        host: `linux`, or a simulated one at `sim:SOCKET`.
        root: Directory below which the files of a `linux` host are.
        links: The same for links alone; empty: as `host`.
        modules: The same for modules alone.
    """
    whole = _open(host, root)
    if not links and not modules:
        return whole
    return Host(whole, _open(links, root) if links else whole, _open(modules, root) if modules else whole)


def _open(host: str, root: str) -> Port:
    return SocketPort(host.removeprefix("sim:")) if host.startswith("sim:") else linux_host(root)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
