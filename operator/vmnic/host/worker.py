"""The host worker `python -I -m vmnic.host.worker`, a small single-threaded process beside the agent.

It forks a child per session, because only a process can be abandoned. A system call may block in the kernel for ever. The agent
then drops the session and continues. A write session holds a lock per PF, which the kernel releases when the child really ends,
so the next agent detects a child that outlives this one.

Protocol: the agent sends `{"pf": …, "write": …}` with one end of a stream socket over the SEQPACKET socket named by
`--control`. The child answers `{"ready": true}` there, or `{"in_flight": true}`, and then serves operations (see `socket.py`).
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
    """Serve sessions until the agent closes the control socket."""
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
    # The agent handles the signals and closes the socket. Children reap themselves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control = socket.socket(fileno=chosen.control)
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, _REQUEST_BYTES, 1)
        # End of file: the agent has closed the socket or was killed. Children in the kernel continue and keep their locks.
        if not request:
            return 0
        if os.fork() == 0:
            # A stuck child that kept this end open would hide the death of the worker from the agent.
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # Otherwise the exit code of modprobe would be lost.
            # Unlike sys.exit, this runs no exit handlers and flushes no buffers that the child has from its parent.
            os._exit(_serve_session(json.loads(request), descriptors[0], chosen))
        os.close(descriptors[0])


def _import_netlink() -> None:
    """Import what every child needs, once and before the forks."""
    gc.disable()
    import pyroute2  # noqa: F401, PLC0415 - slow, and a simulated host needs none

    gc.freeze()  # A garbage collection in a child would copy all of its pages.
    gc.enable()


def _serve_session(request: dict[str, object], descriptor: int, chosen: argparse.Namespace) -> int:
    """Serve one session in a child, which ends with the session."""
    with socket.socket(fileno=descriptor) as stream, contextlib.suppress(BrokenPipeError, ConnectionError):
        lock = _take_lock(lock_path(chosen.state_dir, str(request["pf"]))) if request["write"] else None
        if request["write"] and lock is None:
            stream.sendall(b'{"in_flight": true}\n')
            return 0
        # `ready` follows this. If the host cannot be opened, the child dies without it, and the agent gets a WorkerGoneError.
        port = open_host(chosen.host, chosen.root, links=chosen.links, modules=chosen.modules)
        stream.sendall(b'{"ready": true}\n')
        for line in stream.makefile("rb"):
            stream.sendall(json.dumps(answer(port, json.loads(line))).encode() + b"\n")
        if lock is not None:
            os.close(lock)  # The agent must find the lock free when it sees the end of the stream.
    return 0


def lock_path(state_dir: pathlib.Path, pf: str) -> pathlib.Path:
    """Return the file whose lock a write session of this PF holds."""
    return state_dir / "locks" / f"{pf}.lock"


def _take_lock(path: pathlib.Path) -> int | None:
    """Take a lock and return its descriptor, or None if another process holds it.

    The kernel releases the lock with the descriptor.
    """
    # Lock files are never removed: a lock on a removed file does not exclude a process that creates the file again.
    # O_CLOEXEC: modprobe, which a child may start, must not inherit the lock.
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
        host: `linux`, or a simulated host at `sim:SOCKET`.
        root: Directory below which the files of a `linux` host are.
        links: Host of the links. Empty for the same as `host`.
        modules: Host of the modules. Empty for the same as `host`.
    """
    whole = _open(host, root)
    if not links and not modules:
        return whole
    return Host(whole, _open(links, root) if links else whole, _open(modules, root) if modules else whole)


def _open(host: str, root: str) -> Port:
    return SocketPort(host.removeprefix("sim:")) if host.startswith("sim:") else linux_host(root)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
