"""`vmnic controller`: builds the parts of the controller, leads while it holds the lease, and closes everything.

Every replica keeps caches and serves the webhook; the leader alone writes. Its client asks the lease before each write.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import pathlib
import signal
import socket
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ..flags import Flags, level, port, positive
from ..kube.client import ApiClient
from ..kube.connection import Connection, ConnectionFileError, in_cluster_connection
from ..kube.errors import ApiError, NotLeadingError
from ..kube.events import Events
from ..kube.lease import CONTROLLER, LeaderElector
from ..kube.reflector import Reflector
from ..kube.tasks import end_tasks, run_together
from ..kube.workqueue import WorkQueue
from ..logs import setup_logging
from ..metrics import CONTENT_TYPE
from ..nodes.nics import NicDataError, add_models
from .admission.certificates import Lifetimes
from .admission.rotation import Certificates
from .admission.server import start_webhook
from .drain import Drainer
from .keys import Key, Kind, log_keys, pool_key, vm_key
from .ledger import LedgerStore
from .metrics import ControllerMetrics, StateCollector
from .reconcile.machines import MachineReconciler
from .reconcile.networks import NetworkReconciler
from .reconcile.nodes import NodeReconciler
from .reconcile.policies import PolicyReconciler
from .reconcile.pools import PoolReconciler
from .reconcile.rollouts import Rollouts
from .world import World, run_reflectors

if TYPE_CHECKING:
    from .wiring import KopfThread

__all__ = ["main"]

_log = logging.getLogger(__name__)

_MANAGER = "vmnic-controller"
_WORKERS = 8
_WRITES_PER_S = 50.0
"""What the controller may cost the API server, whatever there is to do."""
_LEDGER_FIRST_S, _LEDGER_LAST_S = 0.5, 30.0
"""How long a new leader waits before it reads the ledger again: at first, and at most."""
_RANK = {Kind.NODE: 0, Kind.POOL: 1, Kind.VM: 2, Kind.ALLOCATION: 2, Kind.POLICY: 3}
"""Grants before VM patches before statuses."""


def main(arguments: list[str]) -> int:
    """Run the controller until SIGTERM."""
    chosen = _parse(arguments)
    setup_logging(chosen.log_level)
    try:
        if chosen.nic_data:
            add_models(pathlib.Path(chosen.nic_data))
        asyncio.run(_run(chosen, in_cluster_connection()))
    except (ConnectionFileError, NicDataError) as error:
        _log.error("%s", error)
        return 2
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    flags = Flags(prog="vmnic controller", description="Decides about nodes and VMs.")
    flags.flag("namespace", "vmnic-system", "namespace of the lease, the ledger and the webhook's authority")
    flags.flag("identity", f"{socket.gethostname()}-{os.getpid()}", "unique name of this process in the lease")
    flags.flag("lease-duration-s", "10", "seconds after which another replica may take over", positive)
    flags.flag("restart-timeout-s", "600", "seconds after which a VM that was restarted has not come back", positive)
    flags.flag("webhook-port", "9443", "port of the webhook", port)
    flags.flag("webhook-hosts", "", "names or addresses that the webhook's certificate is for; default: its Service's names")
    lifetime = "days that the webhook's certificates live; its authority lives four times as long"
    flags.flag("webhook-certificate-days", "90", lifetime, positive)
    flags.flag("probe-port", "8080", "port of /healthz, /readyz and /metrics", port)
    flags.flag("nic-data", "", "file with further NIC models, of the shape of vmnic's nics.yaml")
    flags.flag("log-level", "info", "debug, info, warning or error", level)
    return flags.parse_args(arguments)


async def _run(chosen: argparse.Namespace, connection: Connection) -> None:
    """Compose the controller and run it."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        reads = await stack.enter_async_context(ApiClient(connection, field_manager=_MANAGER))
        elector = LeaderElector(reads, CONTROLLER, chosen.namespace, chosen.identity, duration_s=chosen.lease_duration_s)
        writes = await stack.enter_async_context(
            ApiClient(connection, field_manager=_MANAGER, guard=elector.seconds_left, writes_per_s=_WRITES_PER_S)
        )
        comes_back = timedelta(seconds=chosen.restart_timeout_s)
        certificates = _certificates(chosen, reads, writes)
        controller = Controller(reads, writes, elector, certificates, namespace=chosen.namespace, comes_back=comes_back)
        tasks = [
            asyncio.create_task(run_reflectors(controller.world)),
            asyncio.create_task(controller.serve(chosen)),
            asyncio.create_task(elector.run(controller.lead)),
            asyncio.create_task(stop.wait()),
        ]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await end_tasks(pending)
        for task in done:
            task.result()


def _certificates(chosen: argparse.Namespace, reads: ApiClient, writes: ApiClient) -> Certificates:
    service = f"vmnic-webhook.{chosen.namespace}.svc"
    hosts = tuple(chosen.webhook_hosts.split(",")) if chosen.webhook_hosts else (service, f"{service}.cluster.local")
    lifetimes = Lifetimes(timedelta(days=chosen.webhook_certificate_days))
    return Certificates(reads, writes, chosen.namespace, hosts, lifetimes=lifetimes)


class Controller:
    """One replica."""

    def __init__(
        self,
        reads: ApiClient,
        writes: ApiClient,
        elector: LeaderElector,
        certificates: Certificates,
        *,
        namespace: str,
        comes_back: timedelta,
    ) -> None:
        self._reads = reads
        self._writes = writes
        self._elector = elector
        self._certificates = certificates
        self._leading = False
        self._serving = False
        self._metrics = ControllerMetrics()
        self._queue: WorkQueue[Key] = WorkQueue(lambda key: _RANK[key.kind], self._metrics, log_keys)
        self.world = World(reads, self._enqueue)
        ledger = LedgerStore(writes, namespace)
        self._metrics.show(
            StateCollector(self.world, ledger, self._queue, leads=lambda: self._leading), reads.writes, writes.writes
        )
        self._events = Events(writes, elector.identity)
        machines = MachineReconciler(self.world, writes, self._enqueue, self._events, comes_back=comes_back)
        self._ledger = ledger
        drainer = Drainer(self.world, writes)
        self._nodes = NodeReconciler(self.world, writes, ledger, drainer)
        rollouts = Rollouts(ledger, drainer, self._enqueue)
        networks = NetworkReconciler(self.world, writes)
        self._pools = PoolReconciler(self.world, writes, ledger, rollouts, networks, self._events)
        self._machines = machines
        self._policies = PolicyReconciler(self.world, writes, machines, self._enqueue, self._events)

    async def lead(self) -> None:
        """Act on everything while the lease is held."""
        await self._wait_for(self.world.nodes, self.world.node_states, self.world.pools)
        await _load_ledger(self._ledger)
        self._queue.clear()
        self._leading = True
        try:
            works = (
                self._start_with_everything(),
                self._queue.run(self._reconcile, _WORKERS),
                self._certificates.keep_leading(),
                self._events.run(),
            )
            await run_together(*works)
        finally:
            self._leading = False

    async def serve(self, chosen: argparse.Namespace) -> None:
        """Serve probes at once and the webhook as soon as it can decide; runs until cancelled."""
        probes = await self._start_probes(chosen.probe_port)
        try:
            await run_together(self._certificates.keep_fresh(), self._serve_webhook(chosen.webhook_port))
        finally:
            await probes.cleanup()

    async def _serve_webhook(self, port: int) -> None:
        await self._wait_for(self.world.policies, self.world.namespaces)
        await self._certificates.loaded.wait()
        webhook = await start_webhook(self.world, self._certificates.context, port, self._metrics.reviewed)
        self._serving = True
        try:
            await asyncio.Event().wait()
        finally:
            await webhook.cleanup()

    def _enqueue(self, key: Key, after_s: float = 0.0) -> None:
        """Take a key; followers have nothing to do with it, and a new leader looks at everything."""
        if self._leading:
            self._queue.add(key, after_s)

    async def _reconcile(self, key: Key) -> float | None:
        match key.kind:
            case Kind.NODE:
                await self._nodes.reconcile(key.name)
            case Kind.POOL:
                return await self._pools.reconcile(key.name)
            case Kind.POLICY:
                await self._policies.reconcile(key.name)
            case Kind.ALLOCATION:
                await self._machines.allocate()
            case Kind.VM:
                await self._machines.reconcile(key.namespace, key.name)
        return None

    def ask_for_everything(self) -> None:
        """Have every object looked at, and what is remembered of those that went while nobody, or another replica, led."""
        self.world.enqueue_everything()
        for name in self._ledger.current.pools:
            self._enqueue(pool_key(name))
        for vm in self._machines.remembered():
            self._enqueue(vm_key(*vm))

    async def _start_with_everything(self) -> None:
        """Look at all nodes at once, and at all VMs as soon as everything about them has been listed; then run Kopf."""
        self.ask_for_everything()
        await self._wait_for(*self.world.reflectors)
        # What has been listed lives on: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()
        # A pass over all VMs replaces small objects by the ten thousand, hardly any of which are in a cycle.
        gc.set_threshold(50_000, 50, 100)
        _log.info("the caches are complete")
        self.ask_for_everything()
        # Slow to import, and the loop has a lease to renew; what Kopf would say first has just been asked for.
        kopf_thread = (await asyncio.to_thread(_import_kopf))(self._writes.connection, self._enqueue)
        kopf_thread.start()
        try:
            await asyncio.Event().wait()
        finally:
            await kopf_thread.stop()

    async def _wait_for(self, *reflectors: Reflector[Any]) -> None:
        for reflector in reflectors:
            await reflector.synced.wait()

    async def _start_probes(self, port: int) -> web.AppRunner:
        async def healthy(_: web.Request) -> web.Response:
            return web.Response(text="ok\n")

        async def ready(_: web.Request) -> web.Response:
            if not self._serving:
                return web.Response(status=503, text="the caches are not complete yet\n")
            return web.Response(text="leading\n" if self._elector.seconds_left() else "following\n")

        async def metrics(_: web.Request) -> web.Response:
            return web.Response(body=await self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

        app = web.Application()
        app.router.add_get("/healthz", healthy)
        app.router.add_get("/readyz", ready)
        app.router.add_get("/metrics", metrics)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, port=port, reuse_port=True).start()
        return runner


def _import_kopf() -> type[KopfThread]:
    from .wiring import KopfThread  # noqa: PLC0415

    return KopfThread


async def _load_ledger(ledger: LedgerStore) -> None:
    """Read the ledger until that succeeds: without it nothing is granted, while the webhook goes on serving."""
    wait_s = _LEDGER_FIRST_S
    while True:
        try:
            await ledger.load()
        except (ApiError, NotLeadingError) as error:
            _log.error("nothing is granted before the ledger can be read: %s", error)
        else:
            return
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, _LEDGER_LAST_S)
