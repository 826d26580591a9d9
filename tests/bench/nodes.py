"""A full rollout over thousands of simulated nodes: its duration, and its cost for the API server.

    python -m tests.bench.nodes SECONDS    plays the agents of all nodes (as the bench starts it)

The agents follow the protocol and plan as real ones do, while their hosts are variables. The API server itself counts the
writes.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec
from rich.table import Table

from tests.harness.api import Api, wait_for
from tests.harness.cluster import AGENT_NAMESPACE, ROOT, Cluster
from vmnic.api.node_state import Apply, ApplyState, HostFacts, NodeNicState, NodeStatus, PfSpec, wire
from vmnic.kube.client import ApiClient
from vmnic.kube.connection import in_cluster_connection
from vmnic.kube.errors import ConflictError, InvalidError
from vmnic.kube.reflector import ObjectKey, Reflector
from vmnic.kube.resources import NODE_NIC_STATES
from vmnic.nodes.addresses import vf_address
from vmnic.nodes.observed import ObservedPf, ObservedVf, render_pf_status
from vmnic.nodes.planning.plan import plan_pf
from vmnic.nodes.state import decode_node_state

NODES = int(os.environ.get("VMNIC_BENCH_NODES", "5000"))
VFS = 16
ADDRESS = "0000:81:00.0"
LABEL = "bench.vmnic.dev/simulated"
POOL = "bench-nodes"
SAMPLE = 500
WORKERS = 16
HOST = HostFacts(kernel="6.12", iommu=True, modules=("macvtap", "tun", "vfio_pci", "vhost_net"))
_KINDS = ("nodenicstates", "sriovnetworkpools", "configmaps", "nodes", "leases")


def measure(cluster: Cluster, table: Table) -> None:
    """Add the rows of this part."""
    api = cluster.api
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(lambda number: _create_node(api, number), range(NODES)))
    cluster.start_controller("bench-nodes", lease_duration_s=15)
    token = cluster.plane.service_account(AGENT_NAMESPACE, "vmnic-agent", "bench00000")
    # One process plays all agents, so it writes as an administrator. The admission policy binds an agent's token to one node.
    (cluster.directory / "accounts" / "vmnic-agent-bench00000" / "token").write_text("admin-token")
    agents = subprocess.Popen([sys.executable, "-m", "tests.bench.nodes", "1800"], env=os.environ | token, cwd=ROOT)
    try:
        spec = {"nicSelector": {"pciAddresses": [ADDRESS]}, "numVfs": 0, "rollout": {"maxConcurrent": "10%"}}
        api.apply({"apiVersion": "vmnic.dev/v1alpha1", "kind": "SriovNetworkPool", "metadata": {"name": POOL}, "spec": spec})
        wait_for("every node has reported", lambda: _summary(api) == f"{NODES}/{NODES}", 900)
        before, began = _writes(api), time.monotonic()
        api.merge("SriovNetworkPool", POOL, {"spec": {"numVfs": VFS}})
        wait_for("all nodes are as asked", lambda: _summary(api) == f"{NODES}/{NODES}", 900)
        took = time.monotonic() - began
        writes = {kind: count - before.get(kind, 0) for kind, count in _writes(api).items()}
    finally:
        agents.kill()
        agents.wait()
        cluster.kill("bench-nodes")
    floor = _floor(api)
    each = sum(count for kind, count in writes.items() if kind != "leases") / NODES
    told = ", ".join(f"{kind} {count}" for kind, count in sorted(writes.items()) if count)
    table.add_row(
        f"full rollout, {NODES} simulated nodes, 10 % at a time",
        f"{took:.0f} s",
        f"5 writes a node, bare, {WORKERS} at a time {floor:.0f} s (measured on {min(NODES, SAMPLE)})",
        f"{took / floor:.1f} times",
    )
    table.add_row("API writes of it, per node", f"{each:.2f}", told, "aim ≤ 6")
    _remove(cluster)


def _create_node(api: Api, number: int) -> None:
    meta = {"name": f"bench{number:05}", "labels": {LABEL: "yes"}}
    api.create({"apiVersion": "v1", "kind": "Node", "metadata": meta})


def _summary(api: Api) -> str:
    """Return the status's summary of ready and matched nodes, which is empty before it is up to date."""
    pool = api.get("SriovNetworkPool", POOL) or {}
    status = pool.get("status", {})
    current = status.get("observedGeneration") == pool.get("metadata", {}).get("generation")
    return status.get("nodes", {}).get("summary", "") if current else ""


def _writes(api: Api) -> dict[str, int]:
    """Count the writes that the API server has answered, by kind."""
    answer = api._pool.request("GET", f"{api.server}/metrics", headers=api._headers)
    counts = dict.fromkeys(_KINDS, 0)
    for line in answer.data.decode().splitlines():
        if line.startswith("apiserver_request_total{"):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
            if labels["resource"] in counts and labels["verb"] in ("POST", "PUT", "PATCH", "APPLY", "DELETE"):
                counts[labels["resource"]] += int(float(line.rsplit(" ", 1)[1]))
    return counts


def _floor(api: Api) -> float:
    """Measure the time to write each object as often as the rollout does, and nothing else.

    The time is measured on some nodes and extrapolated to all.
    """
    states = [f"bench{number:05}" for number in range(min(NODES, SAMPLE))]
    began = time.monotonic()

    def write(name: str) -> None:
        for turn in range(5):
            if turn % 2:
                api.merge("NodeNicState", name, {"status": {"bootID": f"floor-{turn}"}}, sub="status")
            else:
                api.merge("NodeNicState", name, {"spec": {"synced": bool(turn)}})

    with ThreadPoolExecutor(WORKERS) as executor:
        list(executor.map(write, states))
    return (time.monotonic() - began) * NODES / len(states)


def _remove(cluster: Cluster) -> None:
    api = cluster.api
    api.merge("SriovNetworkPool", POOL, {"metadata": {"finalizers": []}})
    api.delete("SriovNetworkPool", POOL)
    names = [f"bench{number:05}" for number in range(NODES)]
    with ThreadPoolExecutor(8) as executor:
        for kind in ("Node", "NodeNicState"):
            list(executor.map(lambda name, kind=kind: api.delete(kind, name), names))
    api.delete("ConfigMap", "vmnic-ledger", "vmnic-system")


class _Agent:
    """One node, whose host is a number of VFs."""

    def __init__(self) -> None:
        self.num_vfs = self.attempt = 0
        self.apply: Apply | None = None

    def observed(self) -> ObservedPf:
        vfs = [
            ObservedVf(index=index, pci_address=vf_address("0000:81:10.0", 2, index), driver="vfio-pci")
            for index in range(self.num_vfs)
        ]
        return ObservedPf(
            pci_address=ADDRESS, name="ens1f0", vendor="8086", device="1528", driver="ixgbe", mtu=1500, up=True, total_vfs=63,
            num_vfs=self.num_vfs, vfs=tuple(vfs), autoprobe=not self.num_vfs,
        )  # fmt: skip

    def status(self, state: NodeNicState) -> NodeStatus:
        spec = next(iter(state.spec.pfs), None)
        plan = self._plan(spec) if spec is not None else None
        pf = render_pf_status(
            self.observed(),
            holders={},
            owned=bool(self.num_vfs),
            attempt=self.attempt,
            plan=plan,
            problem=None,
            apply=self.apply,
        )
        return NodeStatus(observed_generation=state.metadata.generation, boot_id="b", host=HOST, pfs=(pf,))

    def _plan(self, spec: PfSpec) -> object:
        return plan_pf(spec, self.observed(), host=HOST, boot_id="b", attempt=self.attempt, holders={}).plan


async def _play(seconds: float) -> None:
    """Play all agents."""
    agents: dict[str, _Agent] = {}
    queue: asyncio.Queue[str] = asyncio.Queue()
    async with ApiClient(in_cluster_connection(), field_manager="bench-agent") as api:

        def changed(key: ObjectKey, _old: NodeNicState | None, new: NodeNicState | None) -> None:
            if new is not None and key.name.startswith("bench"):
                queue.put_nowait(key.name)

        reflector = Reflector(api, NODE_NIC_STATES, decode=decode_node_state, on_change=changed)

        async def publish(state: NodeNicState, status: NodeStatus) -> bool:
            operations = [
                {"op": "test", "path": "/metadata/resourceVersion", "value": state.metadata.resource_version},
                {"op": "add", "path": "/status", "value": wire(status)},
            ]
            try:
                answer = await api.patch_json(NODE_NIC_STATES, state.metadata.name, operations, subresource="status")
            except (ConflictError, InvalidError):
                return False
            reflector.items[ObjectKey("", state.metadata.name)] = msgspec.convert(answer, NodeNicState)
            return True

        async def work() -> None:
            while True:
                name = await queue.get()
                agent = agents.setdefault(name, _Agent())
                state = reflector.items.get(ObjectKey("", name))
                if state is not None:
                    await _step(agent, state, publish, lambda key: reflector.items[key])

        tasks = [asyncio.create_task(reflector.run()), *(asyncio.create_task(work()) for _ in range(WORKERS))]
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)


async def _step(agent: _Agent, state: NodeNicState, publish, read) -> None:  # type: ignore[no-untyped-def]
    status = agent.status(state)
    spec = next(iter(state.spec.pfs), None)
    plan = status.pfs[0].plan
    if spec is None or plan is None or spec.grant != plan.digest:
        if status != state.status:
            await publish(state, status)
        return
    agent.apply = Apply(digest=plan.digest, state=ApplyState.CLAIMED)
    if not await publish(state, agent.status(state)):
        agent.apply = None
        return
    agent.num_vfs, agent.attempt = spec.num_vfs, agent.attempt + 1
    agent.apply = Apply(digest=plan.digest, state=ApplyState.APPLIED)
    fresh = read(ObjectKey("", state.metadata.name))
    await publish(fresh, agent.status(fresh))


if __name__ == "__main__":
    asyncio.run(_play(float(sys.argv[1])))
