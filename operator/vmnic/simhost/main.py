"""Simulated host as a separate process (`vmnic simhost`), because a host outlives its agent."""

from __future__ import annotations

import argparse
import pathlib
import socket
import sys
import threading

from ..flags import Flags
from ..host.socket import serve_port
from ..records.document import RecordFileError, read_record_file
from .from_record import spec_of
from .host import SimHost
from .spec import HostSpec, ImpossibleHostError, parse_host

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Serve a simulated host over a Unix socket until killed, and as a file system if asked for."""
    flags = Flags(prog="vmnic simhost", description="Simulates a node with SR-IOV NICs.")
    flags.flag("spec", "", "YAML file that describes the host")
    flags.flag("record", "", "HostRecord to start the host from, instead of --spec")
    flags.flag("socket", None, "path of the Unix socket to serve", pathlib.Path)
    flags.flag("fuse", "", "directory to mount the host's /sys at")
    chosen = flags.parse_args(arguments)
    if bool(chosen.spec) == bool(chosen.record):
        flags.error("give either --spec or --record: the file that describes the host")
    try:
        host = SimHost(_spec(chosen), waits=True)
    except RecordFileError as error:
        print(f"vmnic simhost: {error}", file=sys.stderr)
        return 2
    except (OSError, ImpossibleHostError) as error:
        print(f"vmnic simhost: {chosen.record or chosen.spec}: {error}", file=sys.stderr)
        return 2
    # A process that was killed leaves its socket behind, and `bind` would fail with EADDRINUSE.
    chosen.socket.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(chosen.socket))
        listener.listen(128)
        if not chosen.fuse:
            serve_port(host, listener, host.control, host.listen)
            return 0
        # A daemon thread, so that the process ends when the file system is unmounted.
        threading.Thread(target=serve_port, args=(host, listener, host.control, host.listen), daemon=True).start()
        return _mount(host, pathlib.Path(chosen.fuse))


def _spec(chosen: argparse.Namespace) -> HostSpec:
    """Read the description of the host, or derive it from a record."""
    if chosen.record:
        return spec_of(read_record_file(pathlib.Path(chosen.record)))
    return parse_host(pathlib.Path(chosen.spec).read_text())


def _mount(host: SimHost, mountpoint: pathlib.Path) -> int:
    try:
        from .fuse import serve_sys  # noqa: PLC0415 - a package and a library that only this flag needs
    # mfusepy raises OSError if it does not find libfuse.
    except (ImportError, OSError) as error:
        print(f"vmnic simhost: --fuse needs libfuse 3 and the Python package mfusepy: {error}", file=sys.stderr)
        return 2
    try:
        serve_sys(host, mountpoint)
    except RuntimeError:
        print(f"vmnic simhost: {mountpoint} could not be mounted", file=sys.stderr)
        return 1
    return 0
