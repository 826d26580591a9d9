"""Composition of the agent, which builds its parts, runs passes, and closes everything.

A pass runs when the controller changes the spec, and every few seconds to detect drift. The event loop itself never touches the
host. The worker process does that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import pathlib
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..api.node_state import NodeNicState, NodeStatus
from ..checked.data_files import DataFileError
from ..host.client import HostAccess, HostWorker, OperationTimedOutError, WorkerGoneError
from ..host.launch import WorkerProcess
from ..inspection.modules import refused_modules
from ..kube.client import ApiClient
from ..kube.connection import ConnectionFileError, in_cluster_connection
from ..kube.errors import ApiError
from ..kube.reflector import ObjectKey, Reflector
from ..kube.resources import NODE_NIC_STATES
from ..kube.tasks import cancel_and_wait
from ..nodes.nics import nic_files
from ..nodes.state import decode_own_state
from .execute.probes import NodeProbes
from .health import Health
from .journal import JournalStore
from .kubelet.plugin import DevicePlugin
from .kubelet.podresources import KubeletHolders
from .node_state_client import ApiNodeStateClient
from .reconciler import HostReconciler, ReconcilerProtocol
from .watch import HostEvents

if TYPE_CHECKING:
    from .metrics import AgentMetrics

__all__ = ["run_agent"]

_log = logging.getLogger(__name__)

_FRESH_S = 300.0
"""A node that was not observed for this many seconds is not ready. A change on slow NICs takes a minute or two."""
_ALONE_AFTER_S = 5.0
"""Seconds that the API server has to answer at the start."""


def run_agent(chosen: argparse.Namespace, process: WorkerProcess) -> int:
    """Run until SIGTERM and return the exit code."""
    try:
        asyncio.run(_run(chosen, process))
    except (ConnectionFileError, DataFileError) as error:
        _log.error("%s", error)
        return 2
    return 0


async def _run(chosen: argparse.Namespace, process: WorkerProcess) -> None:
    """Build the agent and run it."""
    if chosen.nic_data:
        nic_files.add(pathlib.Path(chosen.nic_data))
    state_dir = pathlib.Path(chosen.state_dir)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with ApiClient(in_cluster_connection(), field_manager="vmnic-agent") as api:
        wake = asyncio.Event()
        watched: set[str] = set()
        events = HostEvents(chosen.links or chosen.host, lambda: watched, wake.set)
        reflector = _watch(api, chosen.node, wake)
        reporter = ApiNodeStateClient(api, chosen.node)
        plugins = pathlib.Path(chosen.device_plugins)
        holders = KubeletHolders(pathlib.Path(chosen.pod_resources), plugins)
        plugin = DevicePlugin(plugins, pathlib.Path(chosen.device_info), holders)
        metrics = _metrics(api) if chosen.metrics_address else None
        host: HostAccess = HostWorker(process)
        if metrics is not None:
            host = metrics.counted_host(host)
        node_pass: ReconcilerProtocol = HostReconciler(
            host=host,
            store=JournalStore(state_dir),
            holders=plugin,
            reporter=reporter,
            probes=NodeProbes(host, reporter),
            fence=plugin,
            devices=plugin,
            refused=refused_modules(state_dir),
        )
        if metrics is not None:
            node_pass = metrics.counted_passes(node_pass)
        health = Health(_FRESH_S)

        def told(status: NodeStatus) -> None:
            watched.update(name for pf in status.pfs for name in (pf.name, pf.pci_address))
            health.seen()

        server = await health.serve(chosen.probe_port) if chosen.probe_port else None
        tasks = [
            asyncio.create_task(events.run()),
            asyncio.create_task(reflector.run()),
            asyncio.create_task(plugin.run()),
            asyncio.create_task(_loop(node_pass, reflector, chosen.node, wake, told, chosen.observe_interval_s)),
            asyncio.create_task(stop.wait()),
        ]
        if metrics is not None:
            tasks.append(asyncio.create_task(metrics.serve(chosen.metrics_address)))
        # Except for `stop`, a task ends only by an error. The agent then ends too, and the kubelet restarts it.
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await cancel_and_wait(pending)
        if server is not None:
            server.close()
        process.close()
        for task in done:
            task.result()


def _metrics(api: ApiClient) -> AgentMetrics:
    from .metrics import AgentMetrics  # noqa: PLC0415 - only agents that are scraped pay for Prometheus' client

    return AgentMetrics(api.writes)


def _watch(api: ApiClient, node: str, wake: asyncio.Event) -> Reflector[NodeNicState]:
    """Watch only this node's object.

    A new spec triggers a pass. The agent's own status does not.
    """

    def changed(_key: ObjectKey, old: NodeNicState | None, new: NodeNicState | None) -> None:
        # Without a boot id, the status was set aside, removed, or not published yet, so a pass has to publish it.
        if old is None or new is None or old.spec != new.spec or not new.status.boot_id:
            wake.set()

    selectors = {"fieldSelector": f"metadata.name={node}"}
    return Reflector(api, NODE_NIC_STATES, decode=decode_own_state, on_change=changed, selectors=selectors)


async def _loop(
    node_pass: ReconcilerProtocol,
    reflector: Reflector[NodeNicState],
    node: str,
    wake: asyncio.Event,
    told: Callable[[NodeStatus], None],
    interval_s: float,
) -> None:
    """Run passes until cancelled.

    Errors of a pass are logged, and the next pass observes again. `told` receives every published status.

    Until the API server has answered once, the agent only restores what was granted before.
    """
    key, last_fault = ObjectKey("", node), ""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ALONE_AFTER_S):
            await reflector.synced.wait()
    while True:
        # Cleared before the pass, so that an event during the pass causes another one.
        wake.clear()
        try:
            if reflector.synced.is_set():
                told(await node_pass.run(reflector.items.get(key)))
            else:
                await node_pass.reconcile_offline()
        except ApiError as error:
            _log.warning("the status could not be published: %s", error.message)
        except (OSError, OperationTimedOutError, WorkerGoneError) as error:
            _log.error("the host cannot be read: %s", error)
        except Exception as error:
            # Any error is retried by the next pass. A repeated error is logged with its traceback only once.
            seen, last_fault = last_fault, f"{type(error).__name__}: {error}"
            _log.error("a reconciliation failed: %s", last_fault, exc_info=error if seen != last_fault else None)
        else:
            last_fault = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(interval_s):
                await wake.wait()
