"""`vmnic agent`: builds the parts of the agent, runs passes, and closes everything.

A pass is made when the controller asks for something else, and every few seconds to see drift. The loop itself never touches
the host: that is the worker's part.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import pathlib
import signal
from collections.abc import Callable

from ..flags import Flags, address, level, port, positive
from ..host.client import HostWorker, OperationTimedOutError, WorkerGoneError
from ..host.worker import open_host
from ..kube.client import ApiClient
from ..kube.connection import ConnectionFileError, in_cluster_connection
from ..kube.errors import ApiError
from ..kube.reflector import ObjectKey, Reflector
from ..kube.resources import NODE_NIC_STATES
from ..kube.tasks import end_tasks
from ..logs import setup_logging
from ..nodes.nics import NicDataError, add_models
from ..nodes.state import NodeNicState, NodeStatus, decode_node_state
from .deviceplugin.plugin import DevicePlugin
from .health import Health
from .journal import JournalStore
from .metrics import AgentMetrics, CountedHost, CountedPass
from .modules import MODULES, load_modules, refused_modules
from .passes import NodePass
from .podresources import KubeletHolders
from .probes import NodeProbes
from .reporter import ApiReporter
from .watch import HostEvents

__all__ = ["main"]

_log = logging.getLogger(__name__)

_SETTLE_S = 0.2
_FRESH_S = 300.0
"""A node that has not been looked at for so long is not ready; a run on slow NICs takes a minute or two."""
_ALONE_AFTER_S = 5.0
"""How long the API server has to answer at the start."""


def main(arguments: list[str]) -> int:
    """Run the agent until SIGTERM."""
    chosen = _parse(arguments)
    setup_logging(chosen.log_level, node=chosen.node)
    if chosen.load_modules:
        load_modules(open_host(chosen.host, chosen.root), chosen.load_modules.split(","), pathlib.Path(chosen.state_dir))
        return 0
    try:
        asyncio.run(_run(chosen))
    except (ConnectionFileError, NicDataError) as error:
        _log.error("%s", error)
        return 2
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    flags = Flags(prog="vmnic agent", description="Prepares the NICs of one node.")
    flags.add_argument(
        "--load-modules",
        nargs="?",
        const=",".join(MODULES),
        metavar="NAMES",
        help=f"load these kernel modules and end, as an init container does; default {','.join(MODULES)}",
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
    interval = "seconds between looks at the host, besides those that the kernel's own messages cause"
    flags.flag("observe-interval-s", "5", interval, positive)
    flags.flag("nic-data", "", "file with further NIC models, of the shape of vmnic's nics.yaml")
    flags.flag("metrics-address", "", "ADDRESS:PORT of /metrics, such as 127.0.0.1:9417; empty: not served", address)
    flags.flag("log-level", "info", "debug, info, warning or error", level)
    chosen = flags.parse_args(arguments)
    if not chosen.node and not chosen.load_modules:
        flags.error("--node (VMNIC_NODE) is needed: the name of the node that this agent runs on")
    return chosen


async def _run(chosen: argparse.Namespace) -> None:
    """Compose the agent and run it."""
    if chosen.nic_data:
        add_models(pathlib.Path(chosen.nic_data))
    state_dir = pathlib.Path(chosen.state_dir)
    state_dir.mkdir(parents=True, exist_ok=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    worker = HostWorker(host=chosen.host, state_dir=state_dir, root=chosen.root, links=chosen.links, modules=chosen.modules)
    await worker.start()
    async with ApiClient(in_cluster_connection(), field_manager="vmnic-agent") as api:
        wake = asyncio.Event()
        watched: set[str] = set()
        events = HostEvents(chosen.links or chosen.host, lambda: watched, wake.set)
        reflector = _watch(api, chosen.node, wake)
        reporter = ApiReporter(api, chosen.node)
        holders = KubeletHolders(pathlib.Path(chosen.pod_resources))
        plugin = DevicePlugin(pathlib.Path(chosen.device_plugins), pathlib.Path(chosen.device_info), holders)
        metrics = AgentMetrics(api.writes)
        host = CountedHost(worker, metrics)
        node_pass = NodePass(
            host=host,
            store=JournalStore(state_dir),
            holders=plugin,
            reporter=reporter,
            probes=NodeProbes(host, reporter),
            fence=plugin,
            devices=plugin,
            refused=refused_modules(state_dir),
        )
        health = Health(_FRESH_S)

        def told(status: NodeStatus) -> None:
            watched.update(name for pf in status.pfs for name in (pf.name, pf.pci_address))
            health.seen()

        server = await health.serve(chosen.probe_port) if chosen.probe_port else None
        counted, interval_s = CountedPass(node_pass, metrics), chosen.observe_interval_s
        tasks = [
            asyncio.create_task(events.run()),
            asyncio.create_task(reflector.run()),
            asyncio.create_task(plugin.run()),
            asyncio.create_task(_loop(counted, reflector, chosen.node, wake, told, interval_s)),
            asyncio.create_task(stop.wait()),
        ]
        if chosen.metrics_address:
            tasks.append(asyncio.create_task(metrics.serve(chosen.metrics_address)))
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await end_tasks(pending)
        if server is not None:
            server.close()
        worker.close()
        for task in done:
            task.result()


def _watch(api: ApiClient, node: str, wake: asyncio.Event) -> Reflector[NodeNicState]:
    """Watch this node's object only; a new spec is a reason to look, the own status is none."""

    def changed(_key: ObjectKey, old: NodeNicState | None, new: NodeNicState | None) -> None:
        if old is None or new is None or old.spec != new.spec or not new.status.boot_id:
            wake.set()

    selectors = {"fieldSelector": f"metadata.name={node}"}
    return Reflector(api, NODE_NIC_STATES, decode=decode_node_state, on_change=changed, selectors=selectors)


async def _loop(
    node_pass: CountedPass,
    reflector: Reflector[NodeNicState],
    node: str,
    wake: asyncio.Event,
    told: Callable[[NodeStatus], None],
    interval_s: float,
) -> None:
    """Make passes for ever; whatever one meets is told, and the next one looks again.

    `told` gets every status that was published.

    Until the API server has answered once, the node is only kept as it was granted before.
    """
    key = ObjectKey("", node)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ALONE_AFTER_S):
            await reflector.synced.wait()
    while True:
        wake.clear()
        try:
            if reflector.synced.is_set():
                told(await node_pass.run(reflector.items.get(key)))
            else:
                await node_pass.run_alone()
        except ApiError as error:
            _log.warning("the status could not be published: %s", error.message)
        except (OSError, OperationTimedOutError, WorkerGoneError) as error:
            _log.error("the host cannot be read: %s", error)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(interval_s):
                await wake.wait()
                # One change makes many messages; together they are a reason for one look.
                await asyncio.sleep(_SETTLE_S)
