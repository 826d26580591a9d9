"""Metrics of the controller, its queue and its webhook, and on the leader of pools, policies, nodes.

A scrape renders them in another thread than the one that changes the counted collections, so every collection is copied first.
`list` does not let another thread run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from ..api.common import Condition
from ..kube.errors import ApiError, ConflictError, InvalidError, TooManyRequestsError, UnreachableError
from ..kube.set_aside import SetAside, SetAsideReason
from ..kube.workqueue import WorkQueue
from ..metrics import (
    API_WRITES,
    BUILD_INFO,
    ApiWrites,
    Metric,
    family,
    make_counter,
    make_histogram,
    make_registry,
    render_metrics,
)
from .caches.cluster_cache import ClusterCache
from .caches.keys import Key, Kind, subject_of
from .pools.ledger import LedgerStore
from .pools.survival import SurvivalCheck

__all__ = ["CONTROLLER_METRICS", "ControllerMetrics", "StateCollector"]

_KIND = {"kind": ", ".join(Kind)}
_CONDITION = "of the kind's conditions; 1 is True"

_DEPTH = Metric("vmnic_queue_depth", "gauge", "Keys that wait for a worker.", _KIND)
_WAIT = Metric("vmnic_queue_wait_seconds", "histogram", "Time that a key waited for a worker.", _KIND)
_RECONCILE = Metric("vmnic_reconcile_seconds", "histogram", "Duration of reconciling a key, waits included.", _KIND)
_ERRORS = Metric(
    "vmnic_reconcile_errors_total",
    "counter",
    "Failed reconciliations, which are retried.",
    _KIND | {"cause": "changed (another client wrote first), throttled, unreachable, refused, internal"},
)
_WEBHOOK = Metric(
    "vmnic_webhook_seconds",
    "histogram",
    "Duration of an admission request.",
    {
        "webhook": "virtualmachine, virtualmachineinstance, policy",
        "outcome": "patched, unchanged, refused (a policy that can never work); the object is allowed as it is: late (no "
        "decision in time), throttled (unauthenticated peers cost too much CPU time), failed (an exception); malformed (no "
        "AdmissionReview, or a request that is too large, or too slow)",
    },
)
_SET_ASIDE_KIND = "such as VirtualMachine; Allocation is the choice of VFs over all VMs"
_SET_ASIDE = Metric(
    "vmnic_objects_set_aside",
    "gauge",
    "Objects that vmnic leaves alone because it cannot handle them; the log and `kubectl vmnic status` name them.",
    {"kind": _SET_ASIDE_KIND},
)
_SET_ASIDE_TOTAL = Metric(
    "vmnic_set_aside_total",
    "counter",
    "How often an object was set aside.",
    {"kind": _SET_ASIDE_KIND, "reason": "decode (unreadable), exception, time (over its time budget)"},
)
_LEADER = Metric("vmnic_leader", "gauge", "1 while this replica leads.", {})
_POOL_CONDITION = Metric(
    "vmnic_pool_condition",
    "gauge",
    "Whether a condition of a SriovNetworkPool holds.",
    {"pool": "name", "condition": _CONDITION},
    leader_only=True,
)
_POOL_NODES = Metric(
    "vmnic_pool_nodes",
    "gauge",
    "Nodes of a pool.",
    {"pool": "name", "state": "matched, ready, updating, waiting, failed"},
    leader_only=True,
)
_POOL_VFS = Metric(
    "vmnic_pool_vfs",
    "gauge",
    "VFs of a pool.",
    {"pool": "name", "state": "desired, configured, in_use, assigned, reserved, free"},
    leader_only=True,
)
_POOL_SURVIVES = Metric(
    "vmnic_pool_survives_node_loss",
    "gauge",
    "1 if the VMs that hold devices of the pool would fit on the other nodes after the loss of any one node, as far as devices,"
    " node selectors, node affinity and taints go. Absent if unknown.",
    {"pool": "name"},
    leader_only=True,
)
_POLICY_CONDITION = Metric(
    "vmnic_policy_condition",
    "gauge",
    "Whether a condition of a VmNicPolicy holds.",
    {"policy": "name", "condition": _CONDITION},
    leader_only=True,
)
_POLICY_VMS = Metric(
    "vmnic_policy_vms",
    "gauge",
    "VMs of a policy.",
    {"policy": "name", "state": "matched, compliant, to_change, pending_restart, blocked, conflicting, at_risk"},
    leader_only=True,
)
_POLICY_NICS = Metric(
    "vmnic_policy_nics", "gauge", "NICs of a policy by their present datapath.", {"policy": "name", "datapath": "name"},
    leader_only=True,
)  # fmt: skip
_NODES = Metric(
    "vmnic_nodes",
    "gauge",
    "Nodes whose NodeNicState has a condition that is True.",
    {"condition": "Ready, Degraded, Blocked, RolledBack, Fenced, and `Known` for all"},
    leader_only=True,
)
_PROBLEMS = Metric(
    "vmnic_function_problems",
    "gauge",
    "Physical functions that differ from their pool's spec.",
    {"reason": "of `docs/reference/reasons.md`"},
    leader_only=True,
)
_ROLLOUT = Metric(
    "vmnic_rollout_nodes",
    "gauge",
    "Nodes in the ledger of grants: those that change, are drained for it, or have failed.",
    {"pool": "name", "state": "of the ledger"},
    leader_only=True,
)
CONTROLLER_METRICS = (
    *(BUILD_INFO, _LEADER, _DEPTH, _WAIT, _RECONCILE, _ERRORS, API_WRITES, _WEBHOOK, _SET_ASIDE, _SET_ASIDE_TOTAL),
    *(
        _POOL_CONDITION,
        _POOL_NODES,
        _POOL_VFS,
        _POOL_SURVIVES,
        _POLICY_CONDITION,
        _POLICY_VMS,
        _POLICY_NICS,
        _NODES,
        _PROBLEMS,
        _ROLLOUT,
    ),
)


class ControllerMetrics:
    """Counters of queue and webhook events. Collectors read everything else at each scrape.

    Args:
        set_aside: Receives the keys that the queue sets aside.
    """

    def __init__(self, set_aside: SetAside) -> None:
        self._set_aside = set_aside
        self._registry = make_registry()
        self._wait = make_histogram(_WAIT, self._registry)
        self._reconcile = make_histogram(_RECONCILE, self._registry)
        self._errors = make_counter(_ERRORS, self._registry)
        self._webhook = make_histogram(_WEBHOOK, self._registry)
        # Looked up once, because `labels` costs more than counting.
        self._waits = {kind: self._wait.labels(kind) for kind in Kind}
        self._takes = {kind: self._reconcile.labels(kind) for kind in Kind}
        self._registry.register(_SetAsideCollector(set_aside))

    def show(self, state: StateCollector, *writes: Counter[str]) -> None:
        """Register what is read at each scrape."""
        self._registry.register(state)
        self._registry.register(ApiWrites(*writes))

    def render(self) -> bytes:
        """Return the exposition of all metrics.

        Any thread may call this.
        """
        return render_metrics(self._registry)

    def waited(self, key: Key, seconds: float) -> None:
        """Record how long a key waited for a worker."""
        self._waits[key.kind].observe(seconds)

    def worked(self, key: Key, seconds: float, error: BaseException | None) -> None:
        """Record that a key was reconciled."""
        self._takes[key.kind].observe(seconds)
        if error is not None:
            self._errors.labels(key.kind, _cause(error)).inc()

    def set_aside(self, key: Key, reason: SetAsideReason, error: BaseException) -> None:
        """Record that a key is set aside."""
        unexpected = error if reason is SetAsideReason.EXCEPTION else None
        self._set_aside.add(*subject_of(key), reason, str(error) or type(error).__name__, unexpected)

    def taken_back(self, key: Key) -> None:
        """Record that a key is no longer set aside."""
        for reason in (SetAsideReason.EXCEPTION, SetAsideReason.TIME):
            self._set_aside.discard(*subject_of(key), reason)

    def reviewed(self, webhook: str, outcome: str, seconds: float) -> None:
        """Record an admission request."""
        self._webhook.labels(webhook, outcome).observe(seconds)


def _cause(error: BaseException) -> str:
    # Subclasses first, because all but the last are ApiErrors too.
    causes = (
        ((ConflictError, InvalidError), "changed"),
        (TooManyRequestsError, "throttled"),
        (UnreachableError, "unreachable"),
        (ApiError, "refused"),
    )
    return next((cause for types, cause in causes if isinstance(error, types)), "internal")


class StateCollector(Collector):
    """Reads the caches, the queue and the ledger at each scrape."""

    def __init__(
        self,
        world: ClusterCache,
        ledger: LedgerStore,
        queue: WorkQueue[Key],
        survival: SurvivalCheck,
        leads: Callable[[], bool],
    ) -> None:
        self._world = world
        self._survival = survival
        self._ledger = ledger
        self._queue = queue
        self._leads = leads

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return all gauges.

        Those of the cluster are empty unless this replica leads.
        """
        waiting = Counter(key.kind for key in self._queue.waiting())
        leads = self._leads()
        yield family(_LEADER, [((), int(leads))])
        yield family(_DEPTH, [((kind,), waiting[kind]) for kind in Kind])
        # Every replica has these caches. If each of them reported, sums over replicas would count objects twice.
        pools = list(self._world.pools.items.values()) if leads else []
        yield family(_POOL_CONDITION, [((p.metadata.name, *c), v) for p in pools for c, v in _holds(p.status.conditions)])
        yield family(_POOL_NODES, [((p.metadata.name, s), n) for p in pools for s, n in _counts(p.status.nodes, "summary")])
        yield family(_POOL_VFS, [((p.metadata.name, s), n) for p in pools for s, n in _counts(p.status.vfs)])
        survives = self._survival.by_pool if leads else {}
        yield family(_POOL_SURVIVES, [((pool,), int(answer)) for pool, answer in survives.items()])
        policies = list(self._world.policies.items.values()) if leads else []
        yield family(_POLICY_CONDITION, [((p.metadata.name, *c), v) for p in policies for c, v in _holds(p.status.conditions)])
        yield family(_POLICY_VMS, [((p.metadata.name, s), n) for p in policies for s, n in _counts(p.status.vms)])
        yield family(_POLICY_NICS, [((p.metadata.name, d), n) for p in policies for d, n in p.status.nics_by_datapath.items()])
        states = list(self._world.node_states.items.values()) if leads else []
        conditions = Counter(one.type for state in states for one in state.status.conditions if one.status == "True")
        conditions["Known"] = len(states)
        yield family(_NODES, [((condition,), count) for condition, count in conditions.items() if count])
        problems = Counter(pf.problem.reason for state in states for pf in state.status.pfs if pf.problem is not None)
        yield family(_PROBLEMS, [((reason,), count) for reason, count in problems.items()])
        parts = self._ledger.current.pools.items() if leads else ()
        entries = Counter((pool, entry.state.value) for pool, part in parts for entry in part.entries.values())
        yield family(_ROLLOUT, [(labels, count) for labels, count in entries.items()])


class _SetAsideCollector(Collector):
    """Reads the registry of objects that are set aside."""

    def __init__(self, set_aside: SetAside) -> None:
        self._set_aside = set_aside

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Return how many objects are set aside now, and how many ever were."""
        counts = self._set_aside.counts()
        # A kind that once had such an object stays, so that an alert sees it return to 0.
        present = Counter({kind: 0 for kind, _ in counts})
        present.update({one.kind: 0 for one in self._set_aside.items()})
        for kind, _ in {(one.kind, one.key) for one in self._set_aside.items()}:
            present[kind] += 1
        yield family(_SET_ASIDE, [((kind,), count) for kind, count in sorted(present.items())])
        made = CounterMetricFamily(_SET_ASIDE_TOTAL.name, _SET_ASIDE_TOTAL.text, labels=tuple(_SET_ASIDE_TOTAL.labels))
        for (kind, reason), count in sorted(counts.items()):
            made.add_metric((kind, reason.value), count)
        yield made


def _holds(conditions: Iterable[Condition]) -> Iterator[tuple[tuple[str], int]]:
    for condition in conditions:
        yield (condition.type,), int(condition.status == "True")


def _counts(status: Any, *left_out: str) -> Iterator[tuple[str, int]]:
    for name in type(status).model_fields:
        if name not in left_out:
            yield name, getattr(status, name)
