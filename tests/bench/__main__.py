"""`make bench`: speed and memory, each beside its floor in the same run.

Nothing is asserted, because machines are noisy.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec
from rich.console import Console
from rich.table import Table

from tests.builders.vm import nic, policy, vm
from tests.harness.api import Api, wait_for
from tests.harness.cluster import ROOT, Cluster
from tests.harness.debian import CannotRun
from tests.harness.processes import free_port
from tests.harness.programs import ensure
from tests.kernel.lab import prepare
from vmnic.api.policy import VmNicPolicy
from vmnic.kubevirt.gather import MachineInput, gather_vm_facts
from vmnic.kubevirt.vm import VirtualMachine
from vmnic.policy.decision import decide
from vmnic.policy.evaluate import evaluate_vm
from vmnic.policy.facts import ClusterFacts
from vmnic.policy.rules import rules_of

from . import hostile, kernel, nodes
from .admission import RATE, latencies_ms, percentiles
from .agent import large_node

MACHINES = int(os.environ.get("VMNIC_BENCH_MACHINES", "50000"))
CHANGED = int(os.environ.get("VMNIC_BENCH_CHANGED", "5000"))
ROUNDS = int(os.environ.get("VMNIC_BENCH_ROUNDS", "3"))


def main(parts: list[str]) -> None:
    for part in parts or PARTS:
        _say(f"measuring: {part}")
        table = Table("what", "figure", "floor, in the same run", "ratio or aim", box=None, header_style="bold")
        PARTS[part](table)
        Console(width=150).print(table)


def _cluster(table: Table) -> None:
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(pathlib.Path(directory), ensure())
        try:
            _say("starting a control plane")
            cluster.start_plane()
            cluster.start_nodes()
            cluster.install()
            _agent_memory(cluster, table)
            _without_kubevirt(cluster)
            _say(f"rolling a pool out over {nodes.NODES} simulated nodes")
            nodes.measure(cluster, table)
            _say(f"creating {MACHINES} VMs")
            _create_machines(cluster, "v", MACHINES, nic(model="virtio"))
            cluster.api.apply(policy("all", existing="WhenStopped"))
            _controller(cluster, table)
            _say("admission")
            _admission(cluster, table)
            _say(f"bringing {CHANGED} VMs to compliance")
            _compliance(cluster, table)
        finally:
            cluster.stop()


def _hostile(table: Table) -> None:
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(pathlib.Path(directory), ensure())
        try:
            cluster.start_plane()
            cluster.install()
            hostile.measure(cluster, table)
        finally:
            cluster.stop()


def _kernel(table: Table) -> None:
    """Run the parts that need QEMU.

    A machine that cannot run it gets a message.
    """
    try:
        prepare()
    except CannotRun as error:
        _say(f"no figures of a kernel: {error}")
        return
    kernel.measure(table, _say)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _pss_mb(pid: int) -> float:
    """Return the proportional set size of a process and all its descendants, in MB."""
    total = 0
    for one in [pid, *_descendants(pid)]:
        text = pathlib.Path(f"/proc/{one}/smaps_rollup").read_text()
        total += int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1])
    return total / 1024


def _descendants(pid: int) -> list[int]:
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [one for child in children for one in (int(child), *_descendants(int(child)))]


def _agent_memory(cluster: Cluster, table: Table) -> None:
    cluster.start_controller()
    cluster.start_agents()
    wait_for("the agents have reported", lambda: all(cluster.pf(node.name) for node in cluster.nodes))
    meta = {"name": "fast"}
    spec = {"nicSelector": {"models": ["82576"]}, "numVfs": 7}
    cluster.api.apply({"apiVersion": "vmnic.dev/v1alpha1", "kind": "SriovNetworkPool", "metadata": meta, "spec": spec})
    wait_for("VFs are there", lambda: cluster.pf("n1").get("numVfs") == 7 and cluster.pf("n2").get("numVfs") == 7)
    bare = subprocess.Popen([sys.executable, "-c", "import asyncio, time; time.sleep(60)"])
    try:
        wait_for("the bare process is up", lambda: _pss_mb(bare.pid) > 5)
        agent = _pss_mb(cluster.processes.pid("agent-n1"))
        table.add_row(
            "agent, all its processes (PSS)", f"{agent:.1f} MB", f"bare asyncio {_pss_mb(bare.pid):.1f} MB", "aim ≤ 64 MB"
        )
    finally:
        bare.kill()
        bare.wait()
    wait_for("the pool is settled", lambda: _summary(cluster) == "2/3")
    before = _versions(cluster, "NodeNicState", "SriovNetworkPool")
    reads = cluster.control("n1", {"reads": None})
    wait_for("the agent has looked five times more", lambda: cluster.control("n1", {"reads": None}) > reads + 500, 60)
    changed = len(_versions(cluster, "NodeNicState", "SriovNetworkPool") - before)
    table.add_row("API writes at rest, agents and pools", f"{changed}", "", "aim 0")
    cluster.kill("controller-1")


def _summary(cluster: Cluster) -> str:
    pool = cluster.api.get("SriovNetworkPool", "fast") or {}
    nodes_now = pool.get("status", {}).get("nodes", {})
    return "" if nodes_now.get("updating") else nodes_now.get("summary", "")


def _versions(cluster: Cluster, *kinds: str) -> set[tuple[str, str]]:
    """Return versions that a write of vmnic would change.

    For VMs that is the spec alone, because KubeVirt writes the rest.
    """
    return {
        (one["metadata"]["name"], str(one["metadata"]["generation" if kind == "VirtualMachine" else "resourceVersion"]))
        for kind in kinds
        for one in cluster.api.list(kind)
    }


def _without_kubevirt(cluster: Cluster) -> None:
    """Remove KubeVirt's validation.

    For tens of thousands of VMs, it would take longer than everything else.
    """
    for name in ("virt-api", "virt-controller"):
        cluster.processes.kill(name)
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        for one in cluster.api.list(kind):
            if "vmnic" not in one["metadata"]["name"]:
                cluster.api.delete(kind, one["metadata"]["name"])
    cluster.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tenants"}})


def _create_machines(cluster: Cluster, prefix: str, count: int, interface) -> None:
    pattern = vm("v", interface, run_strategy="Halted")
    api = Api(cluster.plane.server, cluster.plane.pki / "ca.crt", "admin-token")

    def create(number: int) -> None:
        body = copy.deepcopy(pattern)
        body["metadata"]["name"] = f"{prefix}{number:05}"
        api.create(body)

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(create, range(count)))


_FLOOR = """
import asyncio, sys, time
from vmnic.kube.client import ApiClient
from vmnic.kube.connection import in_cluster_connection
from vmnic.kube.resources import VIRTUAL_MACHINES
from vmnic.kubevirt.vm import decode_machine
async def main():
    async with ApiClient(in_cluster_connection(), field_manager="floor") as api:
        kept = []
        async for page, _ in api.list_pages(VIRTUAL_MACHINES):
            kept += [decode_machine(raw) for raw in page]
    print(len(kept))
asyncio.run(main())
"""


def _controller(cluster: Cluster, table: Table) -> None:
    env = os.environ | cluster.plane.service_account("vmnic-system", "vmnic-controller")
    floors, starts, sums, memory = [], [], [], 0.0
    for number in range(ROUNDS):
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", _FLOOR], env=env, capture_output=True, text=True, check=True, cwd=ROOT)
        floors.append(time.monotonic() - began)
        assert int(done.stdout) == MACHINES
        name = f"bench-{number}"
        _forget_status(cluster)
        began = time.monotonic()
        cluster.start_controller(name, lease_duration_s=2)
        wait_for("the caches are complete", lambda name=name: "the caches are complete" in cluster.processes.log(name), 120)
        starts.append(time.monotonic() - began)
        wait_for("every VM is counted", lambda: _matched(cluster) == MACHINES, 120)
        sums.append(time.monotonic() - began)
        memory = _pss_mb(cluster.processes.pid(name))
        if number == ROUNDS - 1:
            before = _versions(cluster, "VirtualMachine", "VmNicPolicy")
            looks = cluster.control("n1", {"reads": None})
            wait_for("time has passed", lambda looks=looks: cluster.control("n1", {"reads": None}) > looks + 500, 60)
            changed = len(_versions(cluster, "VirtualMachine", "VmNicPolicy") - before)
            table.add_row("API writes at rest, VMs and policies", f"{changed}", "", "aim 0")
        os.kill(cluster.processes.pid(name), signal.SIGTERM)
        cluster.processes._started[name].wait(15)
    floor, start = statistics.median(floors), statistics.median(starts)
    table.add_row(
        f"controller: exec to all caches complete, {MACHINES} VMs",
        f"{start:.2f} s",
        f"bare list, same decoder {floor:.2f} s",
        f"{start / floor:.1f} times (aim ≤ 2)",
    )
    table.add_row(f"controller: exec to the policy's status, {MACHINES} VMs", f"{statistics.median(sums):.2f} s", "", "")
    table.add_row(f"controller's memory (PSS), {MACHINES} VMs", f"{memory:.0f} MB", "", "")


def _forget_status(cluster: Cluster) -> None:
    """Create the policy again, so that its status belongs to this run."""
    cluster.api.delete("VmNicPolicy", "all")
    cluster.api.apply(policy("all", existing="WhenStopped"))


def _matched(cluster: Cluster) -> int:
    return (cluster.api.get("VmNicPolicy", "all") or {}).get("status", {}).get("vms", {}).get("matched", 0)


def _admission(cluster: Cluster, table: Table) -> None:
    """Measure p50 and p99 at a steady rate, at rest and while every VM is decided again."""
    port = free_port()
    noop = subprocess.Popen([sys.executable, "-m", "tests.bench.admission", str(port), str(cluster.plane.pki)], cwd=ROOT)
    cluster.start_controller("bench-admission", lease_duration_s=2)
    try:
        wait_for("the caches are complete", lambda: "the caches are complete" in cluster.processes.log("bench-admission"), 120)
        wait_for("every VM is counted", lambda: _matched(cluster) == MACHINES, 120)
        secret = cluster.api.get("Secret", "vmnic-webhook-ca", "vmnic-system")
        ours = cluster.directory / "webhook-ca.crt"
        ours.write_bytes(base64.b64decode(secret["data"]["tls.crt"]))
        url = f"https://127.0.0.1:{cluster.webhook_port}/mutate-virtualmachine"
        floor = percentiles(
            asyncio.run(latencies_ms(f"https://127.0.0.1:{port}/", cluster.plane.pki / "ca.crt", 10, cluster.plane.pki))
        )
        rest = percentiles(asyncio.run(latencies_ms(url, ours, 10, cluster.plane.pki)))
        before = _versions(cluster, "VirtualMachine")
        generation = _edit_policy(cluster)
        busy = percentiles(asyncio.run(latencies_ms(url, ours, 10, cluster.plane.pki)))
        wait_for("the policy was evaluated anew", lambda: _observed(cluster) == generation, 120)
        changed = len(_versions(cluster, "VirtualMachine") - before)
        told = f"no-op webhook {floor[0]:.1f} / {floor[1]:.1f} ms"
        for what, (p50, p99) in (("at rest", rest), (f"during a pass over {MACHINES} VMs", busy)):
            ratio = f"{p50 / floor[0]:.1f} / {p99 / floor[1]:.1f} times (aim ≤ 1.5)"
            table.add_row(f"admission at {RATE}/s {what}, p50 / p99", f"{p50:.1f} / {p99:.1f} ms", told, ratio)
        table.add_row("VM writes after a policy edit that changes nobody", f"{changed}", "", "aim 0")
    finally:
        noop.kill()
        noop.wait()


def _edit_policy(cluster: Cluster) -> int:
    """Cause a new decision of every VM."""
    answer = cluster.api.merge("VmNicPolicy", "all", {"spec": {"multiqueue": {"maxQueues": 16}}})
    return answer["metadata"]["generation"]


def _observed(cluster: Cluster) -> int:
    return cluster.api.get("VmNicPolicy", "all").get("status", {}).get("observedGeneration", 0)


def _compliance(cluster: Cluster, table: Table) -> None:
    """Change all VMs at once, compared with a loop that only patches."""
    for prefix in ("w", "x"):
        cluster.api.merge("MutatingWebhookConfiguration", "vmnic", {"webhooks": []})
        _create_machines(cluster, prefix, CHANGED, nic(model="e1000e"))
        if prefix == "w":
            began = time.monotonic()
            wait_for("all are changed", lambda: _compliant(cluster) == MACHINES + CHANGED, 900)
            ours = time.monotonic() - began
            generations = [
                one["metadata"]["generation"]
                for one in cluster.api.list("VirtualMachine")
                if one["metadata"]["name"].startswith("w")
            ]
            told = [one for one in cluster.api.list("VmNicState") if one["metadata"]["name"].startswith("w")]
            writes = sum(generations) - CHANGED + sum(one["metadata"]["generation"] for one in told)
            os.kill(cluster.processes.pid("bench-admission"), signal.SIGTERM)
            cluster.processes._started["bench-admission"].wait(15)
    floor = _timed(lambda: _patch_loop(cluster))
    table.add_row(
        f"{CHANGED} VMs brought to compliance, at most 50 writes/s", f"{ours:.0f} s, {writes / CHANGED:.2f} writes each",
        f"bare patch loop, 8 at a time, no bound {floor:.0f} s", "aim ≤ 2 writes each",
    )  # fmt: skip


def _compliant(cluster: Cluster) -> int:
    return (cluster.api.get("VmNicPolicy", "all") or {}).get("status", {}).get("vms", {}).get("compliant", 0)


def _patch_loop(cluster: Cluster) -> None:
    api = Api(cluster.plane.server, cluster.plane.pki / "ca.crt", "admin-token")
    path = "/spec/template/spec/domain/devices/interfaces/0/model"

    def patch(number: int) -> None:
        operations = [{"op": "test", "path": path, "value": "e1000e"}, {"op": "replace", "path": path, "value": "virtio"}]
        api.patch("VirtualMachine", f"x{number:05}", operations, "tenants")

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(patch, range(CHANGED)))


def _decisions(table: Table) -> None:
    _say("deciding")
    rules = rules_of(
        VmNicPolicy.model_validate(policy(f"p{i}", priority=i, selector={"guestOS": ["windows"]})) for i in range(9)
    )
    rules = (*rules, *rules_of([VmNicPolicy.model_validate(policy("all"))]))
    machines = [
        msgspec.convert(vm(f"v{i}", nic(model="e1000e"), nic("b", binding="bridge", network="n")), VirtualMachine)
        for i in range(2000)
    ]
    facts = [gather_vm_facts(MachineInput(machine=machine)) for machine in machines]
    cluster = ClusterFacts()

    def rate(work) -> float:
        best = min(_timed(work) for _ in range(ROUNDS))
        return 2 * len(facts) / best

    def decide_all() -> None:
        for one in facts:
            found = evaluate_vm(one, rules, cluster)
            decide(found, {})

    def walk() -> None:
        for one in facts:
            for interface in one.nics:
                assert interface.name

    table.add_row("NIC decisions, 10 policies", f"{rate(decide_all):,.0f}/s", f"only walking the NICs {rate(walk):,.0f}/s", "")


def _timed(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _command_line(table: Table) -> None:
    program = str(pathlib.Path(sys.executable).with_name("kubectl-vmnic"))
    with tempfile.TemporaryDirectory() as directory:
        documents = [vm(f"v{i}", nic(model="e1000e")) for i in range(1000)]
        (pathlib.Path(directory) / "vms.json").write_text(json.dumps({"kind": "List", "items": [*documents, policy()]}))
        plain = pathlib.Path(directory) / "vms.yaml"
        import yaml

        plain.write_text(yaml.safe_dump_all([*documents, policy()]))
        python = [sys.executable, "-c", f"import yaml; list(yaml.load_all(open({str(plain)!r}), yaml.CSafeLoader))"]
        rows = {
            "kubectl vmnic --help": ([program, "--help"], [sys.executable, "-c", "pass"], "python -c pass"),
            "kubectl vmnic plan -f, 1,000 VMs in YAML": (
                [program, "plan", "-f", str(plain), "-o", "json"],
                python,
                "reading the YAML",
            ),
        }
        for what, (command, bare, word) in rows.items():
            figure, floor = (
                statistics.median(
                    _timed(lambda one=one: subprocess.run(one, capture_output=True, check=False)) for _ in range(5)
                )
                for one in (command, bare)
            )
            table.add_row(what, f"{figure:.2f} s", f"{word} {floor:.2f} s", f"{figure / floor:.1f} times")


PARTS = {
    "agent": large_node,
    "kernel": _kernel,
    "cluster": _cluster,
    "hostile": _hostile,
    "decisions": _decisions,
    "cli": _command_line,
}
"""The parts that can be measured alone: `python -m tests.bench agent cli`."""

if __name__ == "__main__":
    main(sys.argv[1:])
