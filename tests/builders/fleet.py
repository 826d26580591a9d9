"""A fleet of simulated nodes around the controller's own reconcilers.

It consists of an API server that is a dictionary, agents that follow the protocol, caches that lag behind, and an outside
observer.
"""

import asyncio
import itertools
import json
import random

import msgspec

from tests.builders.node import PF, observed, pf_status
from vmnic.api.node_state import Apply, ApplyState, Held, HostFacts, NodeNicState, NodeStatus, wire
from vmnic.controller.caches.cluster_cache import ClusterCache
from vmnic.controller.caches.keys import Kind
from vmnic.controller.pools.drain import Drainer, DrainSimulation
from vmnic.controller.pools.ledger import LEDGER_NAME, LedgerStore
from vmnic.controller.pools.networks import NetworkReconciler
from vmnic.controller.pools.nodes import NodeReconciler
from vmnic.controller.pools.reconciler import PoolReconciler
from vmnic.controller.pools.rollouts import Rollouts
from vmnic.kube.errors import ConflictError, InvalidError, NotFoundError, UnreachableError
from vmnic.kube.events import Events
from vmnic.kube.reflector import ObjectKey
from vmnic.nodes.observed import with_holders
from vmnic.nodes.planning.plan import plan_pf
from vmnic.nodes.rollout.ledger import CORDONED, EntryState, Ledger

HOST = HostFacts(iommu=True, modules=("vfio_pci",))


class MemoryCluster:
    """The API server's objects with versions and generations, and requests that fail on demand."""

    def __init__(self):
        self.objects = {}
        self.changes = []
        """Every written key in order, as watches deliver them."""
        self.fault = lambda verb, plural: None
        """Returns `before` or `after` for a request that is to fail before or after it took effect."""
        self.evicted = lambda pod: None
        self.running_pods = list
        """Returns pods besides those that were put."""
        self._versions = itertools.count(1)

    def put(self, plural, body, namespace=""):
        key = (plural, namespace, body["metadata"]["name"])
        old = self.objects.get(key, {})
        meta = {"generation": 1, "uid": f"uid-{body['metadata']['name']}"} | old.get("metadata", {}) | body["metadata"]
        if old and old.get("spec") != body.get("spec"):
            meta["generation"] += 1
        meta["resourceVersion"] = str(next(self._versions))
        self.objects[key] = body | {"metadata": meta}
        self.changes.append(key)
        return self.objects[key]

    def remove(self, plural, name):
        self.objects.pop((plural, "", name), None)
        self.changes.append((plural, "", name))

    def get(self, plural, name, namespace=""):
        return self.objects.get((plural, namespace, name))

    async def _request(self, verb, plural, work):
        when = self.fault(verb, plural)
        if when == "before":
            raise UnreachableError(status=0, reason="Unreachable", message="away")
        result = work()
        if when == "after":
            raise UnreachableError(status=0, reason="Unreachable", message="away")
        return result

    async def read(self, resource, name, namespace=""):
        return await self._request("GET", resource.plural, lambda: self.get(resource.plural, name, namespace))

    async def create(self, resource, body, namespace="", *, name="", subresource=""):
        if subresource == "eviction":
            return await self._request("POST", "evictions", lambda: self.evicted(name))
        if self.get(resource.plural, body["metadata"]["name"], namespace):
            raise ConflictError(status=409, reason="AlreadyExists", message="there already")
        return await self._request("POST", resource.plural, lambda: self.put(resource.plural, dict(body), namespace))

    async def replace(self, resource, body, name, namespace="", *, subresource=""):
        def work():
            found = self.get(resource.plural, name, namespace)
            if found["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
                raise ConflictError(status=409, reason="Conflict", message="changed")
            return self.put(resource.plural, dict(body), namespace)

        return await self._request("PUT", resource.plural, work)

    async def patch_json(self, resource, name, operations, namespace="", *, subresource=""):
        def work():
            body = self.get(resource.plural, name, namespace)
            for one in operations:
                if one["op"] == "test" and body["metadata"]["resourceVersion"] != one["value"]:
                    raise InvalidError(status=422, reason="Invalid", message="changed")
                if one["op"] == "add":
                    body = body | {one["path"].removeprefix("/"): one["value"]}
            return self.put(resource.plural, body, namespace)

        return await self._request("PATCH", resource.plural, work)

    async def patch_merge(self, resource, name, body, namespace="", *, subresource=""):
        def work():
            found = self.get(resource.plural, name, namespace)
            if found is None:
                raise NotFoundError(status=404, reason="NotFound", message="gone")
            if body["metadata"].get("resourceVersion", "") not in ("", found["metadata"]["resourceVersion"]):
                raise ConflictError(status=409, reason="Conflict", message="changed")
            merged = self.put(resource.plural, _merged(found, body), namespace)
            if merged["metadata"].get("deletionTimestamp") and not merged["metadata"].get("finalizers"):
                self.remove(resource.plural, name)
            return merged

        return await self._request("PATCH", resource.plural, work)

    async def list_pages(self, resource, namespace="", *, selectors=None):
        found = [body for (plural, _, _), body in self.objects.items() if plural == resource.plural]
        if resource.plural == "pods":
            node = selectors["fieldSelector"].removeprefix("spec.nodeName=")
            found = [pod for pod in [*found, *self.running_pods()] if pod["spec"].get("nodeName") == node]
        yield await self._request("GET", resource.plural, lambda: [msgspec.Raw(msgspec.json.encode(one)) for one in found]), ""


def _merged(old, patch):
    result = dict(old)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(old.get(name) or {}, value) if isinstance(value, dict) else value
    return result


class Roomy(DrainSimulation):
    """A simulation in which there is always a VF elsewhere."""

    def blocking_reason(self, node, holders):
        return ""


class RoomyDrainer(Drainer):
    def simulation(self):
        return Roomy({}, self._world.devices)


class Replica:
    """One controller: the real reconcilers with caches of their own, which may lag behind."""

    def __init__(self, cluster, clock, drainer=RoomyDrainer):
        self._cluster = cluster
        self._seen = 0
        self.queue = {}
        self.world = ClusterCache(cluster, lambda key, after_s=0.0: self.queue.setdefault(key))
        self.ledger = LedgerStore(cluster, "vmnic-system")
        drainer = drainer(self.world, cluster)
        rollouts = Rollouts(self.ledger, drainer, self.world._enqueue, clock=clock)
        networks = NetworkReconciler(self.world, cluster)
        self._pools = PoolReconciler(self.world, cluster, self.ledger, rollouts, networks, Events(cluster, "fleet"))
        self._nodes = NodeReconciler(self.world, cluster, self.ledger, drainer)
        self._caches = {one.resource.plural: one for one in _caches_of(self.world)}

    def hear(self, count=None):
        """Deliver all written changes, or only this many."""
        end = len(self._cluster.changes) if count is None else min(self._seen + count, len(self._cluster.changes))
        for plural, namespace, name in self._cluster.changes[self._seen : end]:
            cache, body = self._caches.get(plural), self._cluster.objects.get((plural, namespace, name))
            if cache is None:
                continue
            if body is None:
                cache._drop(ObjectKey(namespace, name))
            else:
                cache._store(msgspec.Raw(msgspec.json.encode(body)))
        self._seen = end

    def has_heard_of_outage(self, name):
        """Return whether the cache shows that a node is cordoned or not ready."""
        node = self.world.nodes.items.get(ObjectKey("", name))
        return node is not None and (not node.ready or node.spec.unschedulable)

    async def work(self, count=None):
        """Reconcile waiting keys.

        A key whose reconciliation fails waits again.
        """
        for key in list(self.queue)[:count]:
            del self.queue[key]
            try:
                if key.kind is Kind.POOL:
                    if await self._pools.reconcile(key.name) is not None:
                        self.queue.setdefault(key)
                elif key.kind is Kind.NODE:
                    await self._nodes.reconcile(key.name)
            except (ConflictError, InvalidError, UnreachableError):
                self.queue.setdefault(key)


def _caches_of(world):
    return (world.nodes, world.node_states, world.pools, world.instances)


class Agent:
    """One node with its agent, reduced to the protocol.

    It plans, claims on the live object, runs, and reports.
    """

    def __init__(self, cluster, name, rng):
        self._cluster, self._rng, self.name = cluster, rng, name
        self.num_vfs, self.attempt, self.boot = 0, 0, 1
        self.holder = False
        """Whether a VM holds a VF."""
        self.apply = self.failure = None
        self.running = None
        """Spec of the running change, and whether it is disruptive."""
        self.owned = False
        self.bad = 0.0
        """Probability that a change fails."""
        self._seen = None

    def step(self):
        """Make one pass."""
        raw = self._cluster.get("nodenicstates", self.name)
        now = (raw and raw["metadata"]["resourceVersion"], self.holder, self.boot, self.num_vfs)
        if raw is None or (now == self._seen and self.running is None):
            return
        self._seen = now
        state = msgspec.convert(raw, NodeNicState)
        if self.running is not None:
            self._end()
        spec = state.spec.pfs[0] if state.spec.synced and state.spec.pfs else None
        plan = self._plan(spec)
        if spec and spec.release and plan is None:
            self.owned = False
        if plan and spec.grant == plan.digest and not plan.blocked_by:
            self.apply = Apply(digest=plan.digest, state=ApplyState.CLAIMED)
            self.running = spec
        self._publish(state, plan)

    def _plan(self, spec):
        if spec is None or (spec.release and not self.owned):
            return None
        seen = observed(num_vfs=self.num_vfs, held={0} if self.holder else ())
        holders = {"0000:0b:10.0": f"pod tenants/{self.name}"} if self.holder else {}
        wanted = msgspec.structs.replace(spec, release="", num_vfs=0 if spec.release else spec.num_vfs)
        return plan_pf(
            msgspec.structs.replace(wanted, groups=wanted.groups if wanted.num_vfs else ()), with_holders(seen, holders),
            host=HOST, boot_id=f"b{self.boot}", attempt=self.attempt, holders=holders,
        ).plan  # fmt: skip

    def _end(self):
        spec, self.running = self.running, None
        self.attempt += 1
        failed = self._rng.random() < self.bad
        rolled = failed and self._rng.random() < 0.5
        word = ApplyState.ROLLED_BACK if rolled else ApplyState.FAILED if failed else ApplyState.APPLIED
        self.apply = Apply(digest=self.apply.digest, state=word)
        if not failed:
            assert not self.holder or self.num_vfs == spec.num_vfs, "a held VF was taken"
            self.num_vfs = 0 if spec.release else spec.num_vfs
            self.owned = not spec.release

    def _publish(self, state, plan):
        held = (Held(vf="0000:0b:10.0", by=f"pod tenants/{self.name}"),) if self.holder else ()
        pf = pf_status(plan=plan, apply=self.apply, num_vfs=self.num_vfs, held=held, owned=self.owned, attempt=self.attempt)
        status = NodeStatus(observed_generation=state.metadata.generation, boot_id=f"b{self.boot}", host=HOST, pfs=(pf,))
        if status != state.status:
            self._cluster.put("nodenicstates", self._cluster.get("nodenicstates", self.name) | {"status": wire(status)})


class Fleet:
    """Nodes, agents, one pool, and what an outside observer sees."""

    def __init__(self, count, *, seed=0, **spec):
        self.rng = random.Random(seed)
        self.now = 1_000_000.0
        self.cluster = MemoryCluster()
        self.names = [f"n{number:04}" for number in range(count)]
        self.agents = {name: Agent(self.cluster, name, self.rng) for name in self.names}
        self.cluster.evicted = self._evict
        self.admins = set()
        """Nodes that an administrator has cordoned."""
        self.cluster.running_pods = lambda: [launcher(name, name) for name, one in self.agents.items() if one.holder]
        for name in self.names:
            self.cluster.put("virtualmachineinstances", instance(name, name), "tenants")
            self.cluster.put(
                "nodes", {"metadata": {"name": name, "labels": {}}, "spec": {}, "status": _node_status(ready=True)}
            )
        self.edit(**spec)

    def edit(self, **spec):
        body = {"nicSelector": {"models": ["82576"]}, "numVfs": 7} | spec
        self.cluster.put("sriovnetworkpools", {"metadata": {"name": "fast"}, "spec": body})

    def _evict(self, pod):
        """Let most VMs leave on eviction."""
        if self.rng.random() < 0.8:
            self.agents[pod].holder = False

    def replica(self, drainer=RoomyDrainer):
        return Replica(self.cluster, lambda: self.now, drainer)

    def ledger(self):
        found = self.cluster.get("configmaps", LEDGER_NAME, "vmnic-system")
        return Ledger.parse(json.loads(found["data"]["ledger.json"])) if found else Ledger()

    def set_ready(self, name, *, ready):
        node = self.cluster.get("nodes", name)
        self.cluster.put("nodes", node | {"status": _node_status(ready=ready)})

    def is_ready(self, name):
        return self.cluster.get("nodes", name)["status"]["conditions"][0]["status"] == "True"

    def admin_cordons(self, name):
        """Cordon a node as `kubectl cordon` does, which changes nothing if it is cordoned already."""
        node = self.cluster.get("nodes", name)
        if not node["spec"].get("unschedulable"):
            self.cluster.put("nodes", node | {"spec": {"unschedulable": True}})
            self.admins.add(name)

    def admin_uncordons(self, name):
        self.admins.discard(name)
        self.cluster.put("nodes", self.cluster.get("nodes", name) | {"spec": {}})

    def running(self):
        return {name for name, agent in self.agents.items() if agent.running is not None}

    def cordoned_by_us(self):
        nodes = (self.cluster.get("nodes", name) for name in self.names)
        return {
            one["metadata"]["name"]
            for one in nodes
            if one["spec"].get("unschedulable") and one["metadata"].get("annotations", {}).get(CORDONED)
        }

    def settled(self, count):
        return all(agent.num_vfs == count and agent.running is None for agent in self.agents.values())

    def draining(self):
        return {node for node, entry in self.ledger().of("fast").entries.items() if entry.state is EntryState.DRAINING}

    async def run(self, *replicas, turns, until=lambda: False):
        """Let all parts work in turn while time passes."""
        for _ in range(turns):
            for agent in self.agents.values():
                if self.is_ready(agent.name):
                    agent.step()
            for replica in replicas:
                replica.hear()
                await replica.work()
            self.now += 1
            await asyncio.sleep(0)
            if until():
                return True
        return until()


def instance(name, node):
    """Return a VirtualMachineInstance on a node."""
    meta = {"name": name, "namespace": "tenants", "uid": f"uid-{name}"}
    return {"metadata": meta, "status": {"phase": "Running", "nodeName": node}}


def launcher(name, node, *, pod="", requests=("vmnic.dev/fast",), namespace="tenants", **owner):
    """Return the launcher of that instance.

    By default, it has a device of the pool `fast`.
    """
    reference = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": name, "uid": f"uid-{name}"}
    meta = {"name": pod or name, "namespace": namespace, "ownerReferences": [reference | {"controller": True} | owner]}
    containers = [{"name": "compute", "resources": {"requests": dict.fromkeys(requests, "1")}}]
    return {"metadata": meta, "spec": {"nodeName": node, "containers": containers}, "status": {"phase": "Running"}}


def _node_status(*, ready):
    return {
        "conditions": [{"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    }


__all__ = ["PF", "Agent", "Fleet", "MemoryCluster", "Replica", "instance", "launcher"]
