"""Metrics of the agent and its node, which cover passes, changes, host operations, problems and VFs.

They are served only if an address is configured, because agents use the host's network, where no NetworkPolicy restricts
access.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ..api.node_state import VFIO, ApplyState, NodeNicState, NodeStatus, PfStatus
from ..api.reasons import PfReason
from ..flags import Address
from ..host.client import HostAccess, OperationTimedOutError, Session
from ..host.ops import Op, Value
from ..metrics import (
    API_WRITES,
    BUILD_INFO,
    CONTENT_TYPE,
    ApiWrites,
    Metric,
    family,
    make_counter,
    make_histogram,
    make_registry,
    render_metrics,
)
from ..nodes.state import range_of
from ..nodes.vf_limits import possible_vfs
from .reconciler import ReconcilerProtocol

__all__ = ["AGENT_METRICS", "AgentMetrics"]

_PASS = Metric(
    "vmnic_agent_pass_seconds",
    "histogram",
    "Duration of a reconciliation: observe, change, publish.",
    {"outcome": "done, failed (the host or the API server did not answer; see the log)"},
)
_RUNS = Metric(
    "vmnic_agent_runs_total",
    "counter",
    "Finished changes of one physical function.",
    {"outcome": "Applied, Failed, RolledBack, Refused"},
)
_OPERATIONS = Metric(
    "vmnic_agent_host_operations_total",
    "counter",
    "Operations on the host.",
    {
        "operation": "ReadFile, WriteFile, ListDir, SetLink and so on (`host/ops.py`)",
        "outcome": "done, refused (the kernel returned an errno, ENOENT included), late (no answer within the deadline)",
    },
)
_CONDITION = Metric(
    "vmnic_agent_condition", "gauge", "Whether a condition of the NodeNicState holds.", {"condition": "its type; 1 is True"}
)
_PROBLEMS = Metric(
    "vmnic_agent_problems",
    "gauge",
    "Physical functions that differ from their pool's spec.",
    {"reason": "of `docs/reference/reasons.md`"},
)
_VFS = Metric("vmnic_agent_vfs", "gauge", "VFs of the node.", {"state": "possible, configured, vfio (on vfio-pci), in_use"})
AGENT_METRICS = (BUILD_INFO, API_WRITES, _PASS, _RUNS, _OPERATIONS, _CONDITION, _PROBLEMS, _VFS)


class AgentMetrics(Collector):
    """Counts what the agent does, and exposes the last status as gauges."""

    def __init__(self, writes: Mapping[str, int]) -> None:
        self._registry = make_registry()
        self._pass = make_histogram(_PASS, self._registry)
        self._runs = make_counter(_RUNS, self._registry)
        self._operations = make_counter(_OPERATIONS, self._registry)
        self._status = NodeStatus()
        self._registry.register(self)
        self._registry.register(ApiWrites(writes))

    def render(self) -> bytes:
        """Return the metrics as text for a scrape."""
        return render_metrics(self._registry)

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Measure a pass, which counts as failed if an exception leaves it."""
        started, outcome = time.monotonic(), "failed"
        try:
            yield
            outcome = "done"
        finally:
            self._pass.labels(outcome).observe(time.monotonic() - started)

    def found(self, status: NodeStatus) -> None:
        """Record the status that a pass found.

        A PF whose attempt has risen has ended a change.
        """
        before = {pf.pci_address: pf for pf in self._status.pfs}
        for pf in status.pfs:
            old = before.get(pf.pci_address)
            # Changes before the first status were counted by an earlier agent.
            if old is not None and pf.attempt > old.attempt:
                self._runs.labels(_ending(pf, old)).inc()
        self._status = status

    def performed(self, operation: Op, outcome: str) -> None:
        """Count an operation on the host."""
        self._operations.labels(type(operation).__name__, outcome).inc()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges of the last status."""
        pfs = self._status.pfs
        yield family(_CONDITION, [((one.type,), int(one.status == "True")) for one in self._status.conditions])
        problems = Counter(pf.problem.reason.value for pf in pfs if pf.problem is not None)
        yield family(_PROBLEMS, [((reason,), count) for reason, count in sorted(problems.items())])
        counts = {
            "possible": sum(possible_vfs(pf, pfs) for pf in pfs),
            "configured": sum(pf.num_vfs for pf in pfs),
            "vfio": sum(len(range_of(part.range)) for pf in pfs for part in pf.vfs if part.driver == VFIO),
            "in_use": sum(held.vf != pf.pci_address for pf in pfs for held in pf.held),
        }
        yield family(_VFS, [((state,), count) for state, count in counts.items()])

    def counted_host(self, host: HostAccess) -> HostAccess:
        """Wrap a host so that its operations are counted."""
        return _CountedHost(host, self)

    def counted_passes(self, passes: ReconcilerProtocol) -> ReconcilerProtocol:
        """Wrap a reconciler so that its passes are measured and their statuses recorded."""
        return _CountedPasses(passes, self)

    async def serve(self, address: Address) -> None:
        """Serve scrapes until cancelled."""
        # Only agents with a metrics address pay the memory for a server.
        from aiohttp import web  # noqa: PLC0415

        async def metrics(_: web.Request) -> web.Response:
            return web.Response(body=self.render(), headers={"Content-Type": CONTENT_TYPE})

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, address.host, address.port).start()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()


def _ending(pf: PfStatus, old: PfStatus) -> str:
    """Return how a change ended.

    A change that restores what was granted before writes no `apply`, so only its problem reports a failure.
    """
    if pf.problem is not None and pf.problem.reason is PfReason.ROLLED_BACK:
        return ApplyState.ROLLED_BACK
    if pf.apply is not None and pf.apply != old.apply:
        return pf.apply.state
    return ApplyState.FAILED if pf.problem is not None else ApplyState.APPLIED


class _CountedPasses:
    """A reconciler whose passes are measured and whose statuses are recorded."""

    def __init__(self, passes: ReconcilerProtocol, metrics: AgentMetrics) -> None:
        self._passes = passes
        self._metrics = metrics

    async def run(self, state: NodeNicState | None) -> NodeStatus:
        """Run a pass (see `HostReconciler.run`)."""
        with self._metrics.passing():
            status = await self._passes.run(state)
            self._metrics.found(status)
        return status

    async def reconcile_offline(self) -> None:
        """Run a pass without the API server (see `HostReconciler.reconcile_offline`)."""
        with self._metrics.passing():
            await self._passes.reconcile_offline()


class _CountedHost:
    """A host whose operations are counted."""

    def __init__(self, host: HostAccess, metrics: AgentMetrics) -> None:
        self._host = host
        self._metrics = metrics

    @asynccontextmanager
    async def session(self, pf: str, *, write: bool) -> AsyncIterator[Session]:
        """Open a session (see `HostAccess`)."""
        async with self._host.session(pf, write=write) as session:
            yield _CountedSession(session, self._metrics)


class _CountedSession:
    def __init__(self, session: Session, metrics: AgentMetrics) -> None:
        self._session = session
        self._metrics = metrics

    async def perform(self, op: Op, *, deadline_s: float) -> Value:
        """Perform an operation (see `Session`)."""
        outcome = "refused"
        try:
            value = await self._session.perform(op, deadline_s=deadline_s)
            outcome = "done"
        except OperationTimedOutError:
            outcome = "late"
            raise
        finally:
            self._metrics.performed(op, outcome)
        return value

    async def perform_all(self, ops: Sequence[Op], *, deadline_s: float) -> list[Value | OSError]:
        """Perform operations in order (see `Session`)."""
        answers: list[Value | OSError] = []
        try:
            answers = await self._session.perform_all(ops, deadline_s=deadline_s)
        except OperationTimedOutError:
            # The reply comes as a whole, so which operation is late is unknown. Only one is.
            self._metrics.performed(ops[0], "late")
            raise
        for op, answer in zip(ops, answers, strict=True):
            self._metrics.performed(op, "refused" if isinstance(answer, OSError) else "done")
        return answers
