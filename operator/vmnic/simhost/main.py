"""`vmnic simhost`: a simulated host as a process of its own, since a host outlives its agent."""

from __future__ import annotations

import argparse
import os
import pathlib
import socket
import sys

from ..host.socket import serve_port
from .host import SimHost
from .spec import ImpossibleHostError, parse_host

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Serve a simulated host over a Unix socket until killed."""
    parser = argparse.ArgumentParser(prog="vmnic simhost", description="Simulates a node with SR-IOV NICs.")
    for flag, text in (("spec", "YAML file that describes the host"), ("socket", "path of the Unix socket to serve")):
        value = os.environ.get(f"VMNIC_{flag.upper()}")
        parser.add_argument(
            f"--{flag}", type=pathlib.Path, default=value, required=value is None, help=f"{text} (VMNIC_{flag.upper()})"
        )
    chosen = parser.parse_args(arguments)
    try:
        host = SimHost(parse_host(chosen.spec.read_text()), waits=True)
    except (OSError, ImpossibleHostError) as error:
        print(f"vmnic simhost: {chosen.spec}: {error}", file=sys.stderr)
        return 2
    chosen.socket.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(chosen.socket))
        listener.listen(128)
        serve_port(host, listener, control=host.control)
    return 0
