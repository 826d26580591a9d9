"""`vmnic agent`, which reads the flags and starts the host worker before it loads the rest of itself.

Both processes take a while to load, and no work can start before both are ready, so they load at the same time.
"""

from __future__ import annotations

import argparse
import gc
import os
import pathlib
from collections.abc import Callable

from ..flags import Flags, address, level, port, positive
from ..host.launch import WorkerProcess
from ..inspection.modules import MODULES, load_modules
from ..logs import setup_logging

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Run the agent until SIGTERM."""
    chosen = _parse(arguments)
    setup_logging(chosen.log_level, node=chosen.node)
    state_dir = pathlib.Path(chosen.state_dir)
    if chosen.load_modules:
        from ..host.worker import open_host  # noqa: PLC0415 - the agent itself never opens the host

        load_modules(open_host(chosen.host, chosen.root), chosen.load_modules.split(","), state_dir)
        return 0
    state_dir.mkdir(parents=True, exist_ok=True)
    worker = WorkerProcess(host=chosen.host, state_dir=state_dir, root=chosen.root, links=chosen.links, modules=chosen.modules)
    worker.start()
    return _loaded()(chosen, worker)


def _loaded() -> Callable[[argparse.Namespace, WorkerProcess], int]:
    """Import the rest of the agent, which is the slowest part of its start."""
    # aiohttp reads every public certificate authority at import. The agent trusts only the cluster's own.
    os.environ["SSL_CERT_FILE"] = os.devnull
    gc.disable()  # All imported objects stay. Collecting garbage among them takes a tenth of the time.
    from .wiring import run_agent  # noqa: PLC0415 - the worker is to be loaded meanwhile

    gc.freeze()
    gc.enable()
    return run_agent


def _parse(arguments: list[str]) -> argparse.Namespace:
    flags = Flags(prog="vmnic agent", description="Prepares the NICs of one node.")
    flags.add_argument(
        "--load-modules",
        nargs="?",
        const=",".join(MODULES),
        metavar="NAMES",
        help=f"load these kernel modules and exit, as an init container does; default {','.join(MODULES)}",
    )
    flags.flag("node", "", "name of the node")
    flags.flag("state-dir", "/var/lib/vmnic", "directory of the journal, kept over restarts")
    flags.flag("host", "linux", "linux, or sim:SOCKET for a simulated host")
    flags.flag("root", "/", "directory below which the host's /sys is")
    flags.flag("links", "", "where links are set, if not where --host says")
    flags.flag("modules", "", "where modules are loaded, if not where --host says")
    flags.flag("pod-resources", "/var/lib/kubelet/pod-resources/kubelet.sock", "the kubelet's socket that names holders")
    flags.flag("device-plugins", "/var/lib/kubelet/device-plugins", "the kubelet's directory of device plugins")
    flags.flag("device-info", "/var/run/k8s.cni.cncf.io/devinfo/dp", "directory in which Multus looks for device-info files")
    flags.flag("probe-port", "0", "port of /healthz and /readyz on the loopback; 0: not served", port)
    interval = "seconds between periodic observations of the host; kernel messages also start one"
    flags.flag("observe-interval-s", "4", interval, positive)
    flags.flag("nic-data", "", "file with additional NIC models, in the format of vmnic's nics.yaml")
    flags.flag("metrics-address", "", "ADDRESS:PORT of /metrics, such as 127.0.0.1:9417; empty: not served", address)
    flags.flag("log-level", "info", "debug, info, warning or error", level)
    chosen = flags.parse_args(arguments)
    if not chosen.node and not chosen.load_modules:
        flags.error("--node (VMNIC_NODE) is needed: the name of the node that this agent runs on")
    return chosen
