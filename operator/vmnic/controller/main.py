"""Entry point of `vmnic controller`, which builds the parts, leads under the lease, and closes all.

Every replica keeps caches and serves the webhook. Only the leader writes: its client checks the lease before each write. Lease,
probes and metrics run in a thread and event loop of their own, so that slow decisions do not delay them.
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
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..checked.data_files import DataFileError
from ..flags import Flags, at_most, level, mtu, port
from ..kube.client import ApiClient
from ..kube.connection import Connection, ConnectionFileError, in_cluster_connection
from ..kube.errors import ApiError, NotLeadingError
from ..kube.events import Events
from ..kube.lease import CONTROLLER, LeaderElector
from ..kube.loops import run_in_thread
from ..kube.reflector import Reflector
from ..kube.set_aside import SetAside, SetAsideReason
from ..kube.tasks import cancel_and_wait, run_together
from ..kube.time_budget import Subject
from ..kube.workqueue import WorkQueue
from ..kubevirt.guests import guest_files
from ..logs import setup_logging
from ..nodes.nics import nic_files
from .admission.certificates import Lifetimes
from .admission.reviews import Reviews
from .admission.rotation import Certificates, ClientAuthorityError
from .caches.cluster_cache import ClusterCache, run_reflectors
from .caches.keys import Key, Kind, budget_of, key_of, log_keys, pool_key, vm_key
from .metrics import ControllerMetrics, StateCollector
from .pools.drain import Drainer
from .pools.ledger import LedgerStore
from .pools.networks import NetworkReconciler
from .pools.nodes import NodeReconciler
from .pools.reconciler import PoolReconciler
from .pools.rollouts import Rollouts
from .process.set_aside_report import SetAsideReport
from .process.threads import Threads
from .process.watchdog import StateDirectoryError, Watchdog
from .vms.policies import PolicyReconciler
from .vms.reconciler import MachineReconciler

if TYPE_CHECKING:
    from .process.kopf_watch import KopfThread

__all__ = ["main"]

_log = logging.getLogger(__name__)

_MANAGER = "vmnic-controller"
_WORKERS = 16
"""Number of keys that are reconciled at a time. Each waits for its own writes, whose total the write rate limits."""
_WRITES_PER_S = 50.0
"""The controller's initial write rate. It adapts to the API server's answers, between 5 and 400."""
_LEDGER_FIRST_S, _LEDGER_LAST_S = 0.5, 30.0
"""Initial and maximum delay before a new leader reads the ledger again, in seconds."""
_SWITCH_S = 0.0002
"""Time after which a waiting thread takes the interpreter's lock. An answer of the webhook waits for it several times."""
_COLLECTIONS = (2_000, 5, 1_000)
"""Objects that are visited in one garbage collection, and collections before older objects are visited. Most are short."""
_STALLED_LEASES = 2
"""Lease durations after which a stalled main loop ends the process."""
_RANK = {Kind.NODE: 0, Kind.POOL: 1, Kind.VM: 2, Kind.ALLOCATION: 2, Kind.POLICY: 3}
"""Priority: grants before VM patches before statuses."""


def main(arguments: list[str]) -> int:
    """Run the controller until SIGTERM."""
    chosen = _parse(arguments)
    setup_logging(chosen.log_level)
    # Threads that answer the API server and the kubelet get the interpreter sooner while the main loop decides.
    sys.setswitchinterval(_SWITCH_S)
    # Python's default lets one collection visit every object of a pass over all VMs, which takes tens of milliseconds.
    gc.set_threshold(*_COLLECTIONS)
    try:
        if chosen.nic_data:
            nic_files.add(pathlib.Path(chosen.nic_data))
        if chosen.guest_data:
            guest_files.add(pathlib.Path(chosen.guest_data))
        directory, limit_s = pathlib.Path(chosen.state_directory), _STALLED_LEASES * chosen.lease_duration_s
        with contextlib.closing(Watchdog(directory, limit_s)) as watchdog:
            asyncio.run(_run(chosen, in_cluster_connection(), watchdog))
    except (ConnectionFileError, DataFileError, ClientAuthorityError, StateDirectoryError) as error:
        _log.error("%s", error)
        return 2
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    flags = Flags(prog="vmnic controller", description="Decides about nodes and VMs.")
    flags.flag("namespace", "vmnic-system", "namespace of the lease, the ledger and the webhook's authority")
    flags.flag("identity", f"{socket.gethostname()}-{os.getpid()}", "unique name of this process in the lease")
    flags.flag("lease-duration-s", "10", "seconds after which another replica may take over", at_most(3600))
    flags.flag("restart-timeout-s", "600", "seconds to wait for a restarted VM to run again", at_most(10**6))
    flags.flag("webhook-port", "9443", "port of the webhook", port)
    flags.flag("webhook-hosts", "", "names or addresses that the webhook's certificate is for; default: its Service's names")
    lifetime = "days that the webhook's certificates are valid; its authority is valid four times as long"
    flags.flag("webhook-certificate-days", "90", lifetime, at_most(3650))
    flags.flag("client-ca", "", "PEM file with the authority of the API server's client certificate for webhooks")
    flags.flag("probe-port", "8080", "port of /healthz and /readyz", port)
    flags.flag("metrics-port", "8081", "port of /metrics", port)
    flags.flag("state-directory", "/tmp/vmnic-controller", "directory whose files survive a restart of the process")  # noqa: S108  # nosec B108 - in the pod a memory volume of its own
    flags.flag("pod-network-mtu", "", "MTU of the pod network, to say what guests with static configuration will use", mtu)
    flags.flag("nic-data", "", "file with additional NIC models, in the format of vmnic's nics.yaml")
    flags.flag("guest-data", "", "file with more names of guest systems, in the format of vmnic's guests.yaml")
    flags.flag("log-level", "info", "debug, info, warning or error", level)
    return flags.parse_args(arguments)


async def _run(chosen: argparse.Namespace, connection: Connection, watchdog: Watchdog) -> None:
    """Compose the controller and run it."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # A client belongs to the event loop in which it is opened.
    clients = {name: ApiClient(connection, field_manager=_MANAGER) for name in ("reads", "lease", "secrets")}
    elector = LeaderElector(clients["lease"], CONTROLLER, chosen.namespace, chosen.identity, duration_s=chosen.lease_duration_s)
    writes = ApiClient(connection, field_manager=_MANAGER, guard=elector.seconds_left, writes_per_s=_WRITES_PER_S)
    certificates = _certificates(chosen, clients["secrets"], writes)
    async with clients["reads"] as reads, writes:
        restart_timeout = timedelta(seconds=chosen.restart_timeout_s)
        controller = Controller(
            reads,
            writes,
            elector,
            certificates,
            namespace=chosen.namespace,
            restart_timeout=restart_timeout,
            pod_network_mtu=chosen.pod_network_mtu,
        )
        controller.show_metrics(*clients.values(), writes)
        # Before the caches list the object, because decoding it may be what stalled the last run.
        if watchdog.blamed is not None:
            controller.set_aside(watchdog.blamed)
        threads = Threads(controller, elector, certificates, watchdog, chosen, asyncio.get_running_loop())
        tasks = [
            asyncio.create_task(watchdog.beat()),
            asyncio.create_task(run_reflectors(controller.world)),
            asyncio.create_task(controller.freeze_caches()),
            asyncio.create_task(run_in_thread(lambda: threads.keep_lease(clients["lease"]), "lease")),
            asyncio.create_task(run_in_thread(lambda: threads.serve_webhook(clients["secrets"]), "webhook")),
            asyncio.create_task(stop.wait()),
        ]
        # Apart from `stop`, no task ends unless it has failed. The process then ends too, and the kubelet starts it again.
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await cancel_and_wait(pending)
        for task in done:
            task.result()


def _certificates(chosen: argparse.Namespace, reads: ApiClient, writes: ApiClient) -> Certificates:
    service = f"vmnic-webhook.{chosen.namespace}.svc"
    hosts = tuple(chosen.webhook_hosts.split(",")) if chosen.webhook_hosts else (service, f"{service}.cluster.local")
    lifetimes = Lifetimes(timedelta(days=chosen.webhook_certificate_days))
    client_ca = pathlib.Path(chosen.client_ca) if chosen.client_ca else None
    return Certificates(reads, writes, chosen.namespace, hosts, lifetimes=lifetimes, client_ca=client_ca)


class Controller:
    """One replica with its caches, queue and reconcilers, all in the main loop."""

    def __init__(
        self,
        reads: ApiClient,
        writes: ApiClient,
        elector: LeaderElector,
        certificates: Certificates,
        *,
        namespace: str,
        restart_timeout: timedelta,
        pod_network_mtu: int | None = None,
    ) -> None:
        self._writes = writes
        self._certificates = certificates
        self._leading = False
        self.set_aside_objects = SetAside()
        self.metrics = ControllerMetrics(self.set_aside_objects)
        self._queue: WorkQueue[Key] = WorkQueue(
            lambda key: _RANK[key.kind], self.metrics, log_keys, budget_of, has_urgent_work=self._has_reviews
        )
        self._reviews: Reviews | None = None
        self.world = ClusterCache(reads, self._enqueue, self._queue.readmit, self.set_aside_objects, pod_network_mtu)
        self._ledger = LedgerStore(writes, namespace)
        self._report = SetAsideReport(self.set_aside_objects, writes, namespace)
        self._events = Events(writes, elector.identity)
        self._machines = MachineReconciler(self.world, writes, self._enqueue, self._events, restart_timeout=restart_timeout)
        drainer = Drainer(self.world, writes)
        self._nodes = NodeReconciler(self.world, writes, self._ledger, drainer)
        rollouts = Rollouts(self._ledger, drainer, self._enqueue)
        networks = NetworkReconciler(self.world, writes)
        self._pools = PoolReconciler(self.world, writes, self._ledger, rollouts, networks, self._events)
        self._policies = PolicyReconciler(self.world, writes, self._machines, self._enqueue, self._events)

    def set_aside(self, subject: Subject) -> None:
        """Set aside the object that stalled the previous run."""
        message = "the process exited, because its event loop blocked while it decided about this object"
        self.set_aside_objects.add(*subject, SetAsideReason.TIME, message)
        # A network, for example, has no key: its reflector alone refuses it.
        key = key_of(subject)
        if key is not None:
            self._queue.set_aside[key] = message

    def show_metrics(self, *clients: ApiClient) -> None:
        """Add cluster state and the writes of these clients to the metrics."""
        state = StateCollector(self.world, self._ledger, self._queue, self._pools.survival, leads=lambda: self._leading)
        self.metrics.show(state, *(client.writes for client in clients))

    def reviews(self, *, is_authenticated: bool) -> Reviews:
        """Return the decider of admission reviews."""
        self._reviews = Reviews(self.world, self.set_aside_objects, is_authenticated=is_authenticated)
        return self._reviews

    def _has_reviews(self) -> bool:
        return self._reviews is not None and self._reviews.waiting > 0

    async def freeze_caches(self) -> None:
        """Exclude the listed objects from garbage collection, then wait until cancelled.

        They live on, so the collector must not visit them again and again. Every replica answers reviews meanwhile.
        """
        await self._wait_for(*self.world.reflectors)
        gc.collect()
        gc.freeze()
        await asyncio.Event().wait()

    async def wait_until_decidable(self) -> None:
        """Wait until reviews can be decided."""
        await self._wait_for(self.world.policies, self.world.namespaces)

    async def lead(self) -> None:
        """Reconcile while the lease is held."""
        # Not for VMs, whose list may be long: nodes and pools can be reconciled without them.
        await self._wait_for(self.world.nodes, self.world.node_states, self.world.pools)
        await _load_ledger(self._ledger)
        # Delays and failures of an earlier term do not count any more, and all objects are enqueued below.
        self._queue.clear()
        self._leading = True
        try:
            works = (
                self._start_with_everything(),
                self._queue.run(self._reconcile, _WORKERS),
                self._certificates.keep_leading(),
                self._events.run(),
                self._report.run(),
            )
            await run_together(*works)
        finally:
            self._leading = False

    def _enqueue(self, key: Key, after_s: float = 0.0) -> None:
        """Enqueue a key if this replica leads.

        A new leader reconciles everything, so followers can drop keys.
        """
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
        """Enqueue every object.

        This includes objects with remembered state that were deleted while no replica or another one led.
        """
        self.world.enqueue_all()
        for name in self._ledger.current.pools:
            self._enqueue(pool_key(name))
        for vm in self._machines.remembered():
            # The others are enqueued already, in slices.
            if vm not in self.world.machines.items:
                self._enqueue(vm_key(*vm))

    async def _start_with_everything(self) -> None:
        """Reconcile all nodes at once and all VMs when the caches are complete, then run Kopf."""
        self.ask_for_everything()
        await self._wait_for(*self.world.reflectors)
        _log.info("the caches are complete")
        self.ask_for_everything()
        # Kopf is slow to import, and the loop has reviews to answer. Objects that Kopf would report first are enqueued already.
        kopf_thread = (await asyncio.to_thread(_import_kopf))(self._writes.connection, self._enqueue)
        kopf_thread.start()
        try:
            await asyncio.Event().wait()
        finally:
            await kopf_thread.stop()

    async def _wait_for(self, *reflectors: Reflector[Any]) -> None:
        for reflector in reflectors:
            await reflector.synced.wait()


def _import_kopf() -> type[KopfThread]:
    from .process.kopf_watch import KopfThread  # noqa: PLC0415

    return KopfThread


async def _load_ledger(ledger: LedgerStore) -> None:
    """Read the ledger, and retry until that succeeds.

    Nothing is granted without it, while the webhook keeps serving.
    """
    wait_s = _LEDGER_FIRST_S
    while True:
        try:
            await ledger.load()
        # A lease that has run out is no failure either: the elector cancels this task.
        except (ApiError, NotLeadingError) as error:
            _log.error("no change is granted until the ledger can be read: %s", error)
        else:
            return
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, _LEDGER_LAST_S)
