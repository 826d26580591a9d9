"""The controller with tens of thousands of VMs: its start, its memory, admission, and bringing VMs to compliance."""

from __future__ import annotations

import asyncio
import base64
import copy
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from rich.table import Table

from tests.builders.vm import nic, policy, vm
from tests.harness.api import Api, wait_for
from tests.harness.cluster import ROOT, Cluster
from tests.harness.processes import free_port

from .admission import RATE, Target, interleaved_ms, percentiles

MACHINES = int(os.environ.get("VMNIC_BENCH_MACHINES", "50000"))
CHANGED = int(os.environ.get("VMNIC_BENCH_CHANGED", "5000"))
ROUNDS = int(os.environ.get("VMNIC_BENCH_ROUNDS", "3"))
REST_S = 10.0

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


def create_all(cluster: Cluster) -> None:
    """Create the VMs of the parts that measure a large cluster, and the policy that selects them."""
    without_kubevirt(cluster)
    create_machines(cluster, "v", MACHINES, nic(model="virtio"))
    cluster.api.apply(policy("all", existing="WhenStopped"))


def without_kubevirt(cluster: Cluster) -> None:
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


def create_machines(cluster: Cluster, prefix: str, count: int, interface) -> None:
    """Create stopped VMs with one NIC."""
    pattern = vm("v", interface, run_strategy="Halted")
    api = Api(cluster.plane.server, cluster.plane.pki / "ca.crt", "admin-token")

    def create(number: int) -> None:
        body = copy.deepcopy(pattern)
        body["metadata"]["name"] = f"{prefix}{number:05}"
        api.create(body)

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(create, range(count)))


def pss_mb(pid: int) -> float:
    """Return the proportional set size of a process and all its descendants, in MB."""
    total = 0
    for one in [pid, *_descendants(pid)]:
        text = pathlib.Path(f"/proc/{one}/smaps_rollup").read_text()
        total += int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1])
    return total / 1024


def _descendants(pid: int) -> list[int]:
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [one for child in children for one in (int(child), *_descendants(int(child)))]


def versions(cluster: Cluster, *kinds: str) -> set[tuple[str, str]]:
    """Return versions that a write of vmnic would change.

    For VMs that is the spec alone, because KubeVirt writes the rest.
    """
    return {
        (one["metadata"]["name"], str(one["metadata"]["generation" if kind == "VirtualMachine" else "resourceVersion"]))
        for kind in kinds
        for one in cluster.api.list(kind)
    }


def measure_controller(cluster: Cluster, table: Table) -> None:
    """Measure the controller's start and its memory."""
    env = os.environ | cluster.plane.service_account("vmnic-system", "vmnic-controller")
    floors, starts, sums, memory = [], [], [], []
    for number in range(ROUNDS):
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", _FLOOR], env=env, capture_output=True, text=True, check=True, cwd=ROOT)
        floors.append(time.monotonic() - began)
        assert int(done.stdout) == MACHINES
        name = f"bench-{number}"
        _forget_status(cluster)
        began = time.monotonic()
        cluster.start_controller(name, lease_duration_s=15)
        wait_for("the caches are complete", lambda name=name: "the caches are complete" in cluster.processes.log(name), 120)
        starts.append(time.monotonic() - began)
        wait_for("every VM is counted", lambda: _counts(cluster).get("matched", 0) == MACHINES, 120)
        sums.append(time.monotonic() - began)
        if number == ROUNDS - 1:
            before = versions(cluster, "VirtualMachine", "VmNicPolicy")
            looks = cluster.control("n1", {"reads": None})
            wait_for("time has passed", lambda looks=looks: cluster.control("n1", {"reads": None}) > looks + 500, 60)
            changed = len(versions(cluster, "VirtualMachine", "VmNicPolicy") - before)
            table.add_row("API writes at rest, VMs and policies", f"{changed}", "", "aim 0")
        memory.append(pss_mb(cluster.processes.pid(name)))
        _stop(cluster, name)
    floor, start = statistics.median(floors), statistics.median(starts)
    table.add_row(
        f"controller: exec to all caches complete, {MACHINES} VMs",
        f"{start:.2f} s",
        f"bare list, same decoder {floor:.2f} s",
        f"{start / floor:.1f} times (aim ≤ 2)",
    )
    table.add_row(f"controller: exec to the policy's status, {MACHINES} VMs", f"{statistics.median(sums):.2f} s", "", "")
    table.add_row(f"controller's memory (PSS), {MACHINES} VMs", f"{statistics.median(memory):.0f} MB", "", "aim ≤ 200 MB")


def _stop(cluster: Cluster, name: str) -> None:
    os.kill(cluster.processes.pid(name), signal.SIGTERM)
    cluster.processes._started[name].wait(15)


def _forget_status(cluster: Cluster) -> None:
    """Create the policy again, so that its status belongs to this run."""
    cluster.api.delete("VmNicPolicy", "all")
    cluster.api.apply(policy("all", existing="WhenStopped"))


def _counts(cluster: Cluster) -> dict[str, int]:
    return (cluster.api.get("VmNicPolicy", "all") or {}).get("status", {}).get("vms", {})


def measure_admission(cluster: Cluster, table: Table) -> None:
    """Measure p50 and p99 at a steady rate, at rest and while every VM is decided again, beside a no-op webhook."""
    port = free_port()
    noop = subprocess.Popen([sys.executable, "-m", "tests.bench.admission", str(port), str(cluster.plane.pki)], cwd=ROOT)
    cluster.start_controller("bench-admission", lease_duration_s=15)
    try:
        wait_for("the caches are complete", lambda: "the caches are complete" in cluster.processes.log("bench-admission"), 120)
        wait_for("every VM is counted", lambda: _counts(cluster).get("matched", 0) == MACHINES, 120)
        secret = cluster.api.get("Secret", "vmnic-webhook-ca", "vmnic-system")
        ours = cluster.directory / "webhook-ca.crt"
        ours.write_bytes(base64.b64decode(secret["data"]["tls.crt"]))
        targets = (
            Target(f"https://127.0.0.1:{port}/", cluster.plane.pki / "ca.crt"),
            Target(f"https://127.0.0.1:{cluster.webhook_port}/mutate-virtualmachine", ours),
        )
        before = versions(cluster, "VirtualMachine")
        rounds: dict[str, list[list[tuple[float, float]]]] = {"at rest": [], f"during a pass over {MACHINES} VMs": []}
        rest, busy = rounds.values()
        for _ in range(ROUNDS):
            rest.append(_measure_round(cluster, targets, lambda began: time.monotonic() > began + REST_S))
            generation = _edit_policy(cluster)
            busy.append(_measure_round(cluster, targets, lambda _, seen=generation: _observed(cluster) == seen))
        changed = len(versions(cluster, "VirtualMachine") - before)
        for what, found in rounds.items():
            floor, figure = ([statistics.median(one[at][p] for one in found) for p in (0, 1)] for at in (0, 1))
            ratios = [statistics.median(ours[p] / noop[p] for noop, ours in found) for p in (0, 1)]
            table.add_row(
                f"admission at {RATE}/s {what}, p50 / p99",
                f"{figure[0]:.1f} / {figure[1]:.1f} ms",
                f"no-op webhook, in turns {floor[0]:.1f} / {floor[1]:.1f} ms",
                f"{ratios[0]:.1f} / {ratios[1]:.1f} times (aim ≤ 1.5), medians of {ROUNDS}",
            )
        table.add_row("VM writes after a policy edit that changes nobody", f"{changed}", "", "aim 0")
        _stop(cluster, "bench-admission")
    finally:
        noop.kill()
        noop.wait()


def _measure_round(
    cluster: Cluster, targets: tuple[Target, Target], is_over: Callable[[float], bool]
) -> list[tuple[float, float]]:
    """Return p50 and p99 of each target, measured until `is_over`, which gets the time of the start."""
    began = time.monotonic()
    return [percentiles(one) for one in asyncio.run(interleaved_ms(targets, cluster.plane.pki, lambda: is_over(began)))]


def _edit_policy(cluster: Cluster) -> int:
    """Cause a new decision of every VM."""
    spec = cluster.api.get("VmNicPolicy", "all")["spec"]
    queues = 15 if spec.get("multiqueue", {}).get("maxQueues") == 16 else 16
    answer = cluster.api.merge("VmNicPolicy", "all", {"spec": {"multiqueue": {"maxQueues": queues}}})
    return answer["metadata"]["generation"]


def _observed(cluster: Cluster) -> int:
    return cluster.api.get("VmNicPolicy", "all").get("status", {}).get("observedGeneration", 0)


def measure_compliance(cluster: Cluster, table: Table) -> None:
    """Change all VMs at once, compared with a loop that only patches."""
    without_kubevirt(cluster)
    for prefix in ("w", "x"):
        create_machines(cluster, prefix, CHANGED, nic(model="e1000e"))
    floor = _timed(lambda: _patch_loop(cluster))
    cluster.start_controller("bench-compliance", lease_duration_s=15)
    wait_for("the caches are complete", lambda: "the caches are complete" in cluster.processes.log("bench-compliance"), 120)
    before = _cpu_s(cluster.processes.pid("bench-compliance"))
    cluster.api.apply(policy("all", existing="WhenStopped"))
    ours = _timed(lambda: wait_for("all are changed", lambda: _counts(cluster).get("compliant") == 2 * CHANGED, 900))
    cpu_s = _cpu_s(cluster.processes.pid("bench-compliance")) - before
    _stop(cluster, "bench-compliance")
    generations = [one["metadata"]["generation"] for one in cluster.api.list("VirtualMachine")]
    told = [one["metadata"]["generation"] for one in cluster.api.list("VmNicState")]
    # The bare loop has written each of its VMs once.
    writes = sum(generations) - len(generations) - CHANGED + sum(told)
    table.add_row(
        f"{CHANGED} VMs brought to compliance",
        f"{ours:.0f} s, {writes / CHANGED:.2f} writes each, {cpu_s:.0f} s of CPU time",
        f"bare patch loop, 8 at a time {floor:.0f} s",
        f"{ours / floor:.1f} times (aim ≤ 3), aim ≤ 2 writes each",
    )


def _cpu_s(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _patch_loop(cluster: Cluster) -> None:
    api = Api(cluster.plane.server, cluster.plane.pki / "ca.crt", "admin-token")
    path = "/spec/template/spec/domain/devices/interfaces/0/model"

    def patch(number: int) -> None:
        operations = [{"op": "test", "path": path, "value": "e1000e"}, {"op": "replace", "path": path, "value": "virtio"}]
        api.patch("VirtualMachine", f"x{number:05}", operations, "tenants")

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(patch, range(CHANGED)))


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
