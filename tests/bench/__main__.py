"""`make bench`: speed and memory, each beside its floor in the same run.

Nothing is asserted, because machines are noisy.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import msgspec
from rich.console import Console
from rich.table import Table

from tests.builders.vm import nic, policy, vm
from tests.harness.api import wait_for
from tests.harness.cluster import Cluster
from tests.harness.debian import CannotRun
from tests.harness.programs import ensure
from tests.kernel.lab import prepare
from vmnic.api.policy import VmNicPolicy
from vmnic.kubevirt.gather import MachineInput, gather_vm_facts
from vmnic.kubevirt.vm import VirtualMachine
from vmnic.policy.decision import decide
from vmnic.policy.evaluate import evaluate_vm
from vmnic.policy.facts import ClusterFacts
from vmnic.policy.rules import rules_of

from . import hostile, kernel, machines, nodes
from .agent import large_node

ROUNDS = machines.ROUNDS


def main(parts: list[str]) -> None:
    for part in parts or PARTS:
        _say(f"measuring: {part}")
        table = Table("what", "figure", "floor, in the same run", "ratio or aim", box=None, header_style="bold")
        PARTS[part](table)
        Console(width=150).print(table)


def _cluster(table: Table) -> None:
    with _started_cluster() as cluster:
        _agent_memory(cluster, table)


def _nodes(table: Table) -> None:
    with _started_cluster() as cluster:
        _say(f"rolling a pool out over {nodes.NODES} simulated nodes")
        nodes.measure(cluster, table)


def _controller(table: Table) -> None:
    with _started_cluster() as cluster:
        _say(f"creating {machines.MACHINES} VMs")
        machines.create_all(cluster)
        _say("starting the controller")
        # The simulated host counts the agent's reads, which tell how much time has passed.
        cluster.start_agent("n1")
        machines.measure_controller(cluster, table)


def _admission(table: Table) -> None:
    with _started_cluster() as cluster:
        _say(f"creating {machines.MACHINES} VMs")
        machines.create_all(cluster)
        _say("admission")
        machines.measure_admission(cluster, table)


def _compliance(table: Table) -> None:
    with _started_cluster() as cluster:
        _say(f"bringing {machines.CHANGED} VMs to compliance")
        machines.measure_compliance(cluster, table)


@contextlib.contextmanager
def _started_cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(pathlib.Path(directory), ensure())
        try:
            _say("starting a control plane")
            cluster.start_plane()
            cluster.start_nodes()
            cluster.install()
            yield cluster
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
        wait_for("the bare process is up", lambda: machines.pss_mb(bare.pid) > 5)
        agent = machines.pss_mb(cluster.processes.pid("agent-n1"))
        table.add_row(
            "agent, all its processes (PSS)",
            f"{agent:.1f} MB",
            f"bare asyncio {machines.pss_mb(bare.pid):.1f} MB",
            "aim ≤ 64 MB",
        )
    finally:
        bare.kill()
        bare.wait()
    wait_for("the pool is settled", lambda: _summary(cluster) == "2/3")
    before = machines.versions(cluster, "NodeNicState", "SriovNetworkPool")
    reads = cluster.control("n1", {"reads": None})
    wait_for("the agent has looked five times more", lambda: cluster.control("n1", {"reads": None}) > reads + 500, 60)
    changed = len(machines.versions(cluster, "NodeNicState", "SriovNetworkPool") - before)
    table.add_row("API writes at rest, agents and pools", f"{changed}", "", "aim 0")
    cluster.kill("controller-1")


def _summary(cluster: Cluster) -> str:
    pool = cluster.api.get("SriovNetworkPool", "fast") or {}
    nodes_now = pool.get("status", {}).get("nodes", {})
    return "" if nodes_now.get("updating") else nodes_now.get("summary", "")


def _decisions(table: Table) -> None:
    _say("deciding")
    rules = rules_of(
        VmNicPolicy.model_validate(policy(f"p{i}", priority=i, selector={"guestOS": ["windows"]})) for i in range(9)
    )
    rules = (*rules, *rules_of([VmNicPolicy.model_validate(policy("all"))]))
    read = [
        msgspec.convert(vm(f"v{i}", nic(model="e1000e"), nic("b", binding="bridge", network="n")), VirtualMachine)
        for i in range(2000)
    ]
    facts = [gather_vm_facts(MachineInput(machine=machine)) for machine in read]
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
    "nodes": _nodes,
    "controller": _controller,
    "admission": _admission,
    "compliance": _compliance,
    "hostile": _hostile,
    "decisions": _decisions,
    "cli": _command_line,
}
"""The parts that can be measured alone: `python -m tests.bench agent cli`."""

if __name__ == "__main__":
    main(sys.argv[1:])
