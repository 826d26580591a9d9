"""Admission at 100 reviews a second, beside 10 hostile objects a second and without them.

Creating objects also costs the API server and the controller time, so the same number of ordinary VMs is measured in
comparison.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import socket
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from rich.table import Table

from tests.builders.vm import nad, nic, policy, vm
from tests.harness.api import ApiFailure, wait_for
from tests.harness.cluster import ROOT, Cluster
from tests.harness.processes import free_port

from .admission import RATE, latencies_ms, percentiles

NAMESPACE = "hostile"
PER_S = 10
SECONDS = 10
ROUNDS = 3
DEEP = '{"x": {"a": ' + '{"a": ' * 2000 + "1" + "}" * 2002


def hostile_objects(number: int) -> dict[str, Any]:
    """Return the next hostile object: a quantity, a record, a CNI configuration, and a large VM in turn."""
    name = f"h-{number}"
    if number % 4 == 2:
        return nad(name, namespace=NAMESPACE) | {"spec": {"config": "[" * 5000}}
    body = vm(name, nic(model="e1000e"), namespace=NAMESPACE, run_strategy="Halted")
    if number % 4 == 0:
        body["spec"]["template"]["spec"]["domain"]["memory"]["guest"] = "1e3000000"
    elif number % 4 == 1:
        body["metadata"]["annotations"] = {"vmnic.dev/assigned": DEEP}
    else:
        body["metadata"]["annotations"] = {f"note-{one}": "x" * 2000 for one in range(100)}
    return body


def ordinary_objects(number: int) -> dict[str, Any]:
    """Return the next ordinary VM."""
    return vm(f"o-{number}", nic(model="e1000e"), namespace=NAMESPACE, run_strategy="Halted")


@contextlib.contextmanager
def _creating(
    cluster: Cluster, render: Callable[[int], dict[str, Any]], numbers: Iterator[int], refused: list[int]
) -> Iterator[None]:
    stop = threading.Event()

    def create() -> None:
        while not stop.wait(1 / PER_S):
            try:
                cluster.api.create(render(next(numbers)))
            except ApiFailure as error:
                refused.append(error.status)

    attacker = threading.Thread(target=create)
    attacker.start()
    try:
        yield
    finally:
        stop.set()
        attacker.join()


def measure(cluster: Cluster, table: Table) -> None:
    """Measure with and without hostile objects in turn, beside a no-op webhook, and return the medians of the rounds."""
    cluster.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    cluster.api.apply(policy("all", existing="WhenStopped"))
    cluster.start_controller("bench-hostile")
    cluster.wait_for_webhook()
    pki, port = cluster.plane.pki, free_port()
    secret = cluster.api.get("Secret", "vmnic-webhook-ca", "vmnic-system")
    ours = cluster.directory / "webhook-ca.crt"
    ours.write_bytes(base64.b64decode(secret["data"]["tls.crt"]))
    url = f"https://127.0.0.1:{cluster.webhook_port}/mutate-virtualmachine"
    noop = subprocess.Popen([sys.executable, "-m", "tests.bench.admission", str(port), str(pki)], cwd=ROOT)
    wait_for("the no-op webhook answers", lambda: _answers(port))
    numbers, refused = itertools.count(), list[int]()
    rounds: dict[str, list[tuple[float, float]]] = {"no-op": [], "without": [], "ordinary": [], "with": [], "no-op with": []}
    ordinary = itertools.count()
    try:
        for _ in range(ROUNDS):
            rounds["no-op"].append(_percentiles(f"https://127.0.0.1:{port}/", pki / "ca.crt", pki))
            rounds["without"].append(_percentiles(url, ours, pki))
            with _creating(cluster, ordinary_objects, ordinary, refused):
                rounds["ordinary"].append(_percentiles(url, ours, pki))
            with _creating(cluster, hostile_objects, numbers, refused):
                rounds["with"].append(_percentiles(url, ours, pki))
                rounds["no-op with"].append(_percentiles(f"https://127.0.0.1:{port}/", pki / "ca.crt", pki))
    finally:
        noop.kill()
        noop.wait()
    floor, without, usual, beside, busy_floor = (_medians(rounds[name]) for name in rounds)
    created = next(numbers)
    told = (
        f"beside {PER_S} ordinary VMs/s {usual[0]:.1f} / {usual[1]:.1f} ms; "
        f"beside none {without[0]:.1f} / {without[1]:.1f} ms; no-op {floor[0]:.1f} / {floor[1]:.1f} ms, "
        f"beside hostile objects {busy_floor[0]:.1f} / {busy_floor[1]:.1f} ms"
    )
    aim = f"{beside[1] / usual[1]:.2f} and {beside[1] / without[1]:.2f} times in p99 (aim 1)"
    what = f"admission at {RATE}/s beside {PER_S} hostile objects/s, p50 / p99"
    table.add_row(what, f"{beside[0]:.1f} / {beside[1]:.1f} ms", told, aim)
    alive = cluster.processes.running("bench-hostile")
    table.add_row("hostile objects created", f"{created}, {len(refused)} refused", "", f"controller runs: {alive}")
    table.add_row(
        "of each round, p99", json.dumps({name: [round(one[1], 1) for one in found] for name, found in rounds.items()})
    )


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _percentiles(url: str, ca: Any, pki: Any) -> tuple[float, float]:
    return percentiles(asyncio.run(latencies_ms(url, ca, SECONDS, pki)))


def _medians(found: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(one[0] for one in found), statistics.median(one[1] for one in found)
