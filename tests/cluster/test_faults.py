"""Every process killed and frozen in the middle of its work.

Afterwards, everything matches the spec.

Each test changes the number of VFs, which takes every node through plan, grant, claim, apply and report, and injects the fault
meanwhile.
"""

import json
import threading

import pytest
from urllib3.exceptions import HTTPError

from tests.harness.api import ApiFailure, wait_for

NODES = ("n1", "n2")
LEASE_S = 4.0


def converged(cluster, count):
    return all(
        cluster.pf(node).get("numVfs") == count
        and "plan" not in cluster.pf(node)
        and {part["driver"] for part in cluster.pf(node).get("vfs", [])} == {"vfio-pci"}
        for node in NODES
    )


def ask(cluster, count):
    cluster.api.merge("SriovNetworkPool", "fast", {"spec": {"numVfs": count}})


def granted(cluster):
    """Return whether any grant is still valid.

    A spent grant stays until the spec is written again; a valid one names the current plan.
    """
    return any(
        pf.get("grant") == (cluster.pf(state["metadata"]["name"]).get("plan") or {}).get("digest", "none")
        for state in cluster.api.list("NodeNicState")
        for pf in state["spec"].get("pfs", [])
    )


@pytest.fixture
def rollout(cluster, pool):
    pool()
    wait_for("the first rollout is done", lambda: converged(cluster, 7))
    yield cluster
    for name, start in (("controller-1", cluster.start_controller), *((f"agent-{n}", None) for n in NODES)):
        if not cluster.processes.running(name):
            start() if start else cluster.start_agent(name.removeprefix("agent-"))


@pytest.fixture
def observer(cluster):
    """Counts from outside how many nodes change at a time, by the hosts' agents and not by the controller's ledger."""
    seen, stop = [], threading.Event()

    def look():
        while not stop.is_set():
            try:
                states = cluster.api.list("NodeNicState")
            except (ApiFailure, HTTPError):
                continue
            busy = [
                state["metadata"]["name"]
                for state in states
                for pf in state.get("status", {}).get("pfs", [])
                if pf.get("apply", {}).get("state") in ("Claimed", "Applying")
            ]
            seen.append(len(busy))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield seen
    stop.set()
    thread.join(10)


@pytest.mark.parametrize("name", ["agent-n1", "controller-1"])
def test_repeatedly_killed_process_converges(rollout, observer, name):
    for count in (3, 5, 2):
        ask(rollout, count)
        wait_for("work has begun", lambda count=count: granted(rollout) or converged(rollout, count))
        rollout.kill(name)
        rollout.start_controller() if name == "controller-1" else rollout.start_agent("n1")
    wait_for("all is as asked", lambda: converged(rollout, 2), 60)
    assert max(observer) == 1


def test_agent_killed_with_its_worker_in_the_kernel_converges(rollout):
    rollout.control("n1", {"hold": "0000:0b:10.0"})
    ask(rollout, 3)
    wait_for("n1 is blocked", lambda: (rollout.pf("n1").get("plan") or {}).get("blockedBy"))
    rollout.kill("agent-n1")
    rollout.control("n1", {"release": "0000:0b:10.0"})
    rollout.start_agent("n1")
    wait_for("all is as asked", lambda: converged(rollout, 3), 60)


def test_api_server_restart_in_the_middle_is_survived(rollout, observer):
    ask(rollout, 3)
    rollout.processes.kill("kube-apiserver")
    rollout.plane.start_api()
    wait_for("all is as asked", lambda: converged(rollout, 3), 60)
    assert max(observer) == 1


def test_api_server_frozen_beyond_the_lease_is_survived(rollout, observer):
    ask(rollout, 3)
    rollout.processes.freeze("kube-apiserver")
    wait_for("the controller has stopped leading", lambda: "the lease is lost" in rollout.processes.log("controller-1"))
    rollout.processes.resume("kube-apiserver")
    wait_for("all is as asked", lambda: converged(rollout, 3), 60)
    assert max(observer) == 1


def test_frozen_leader_is_replaced_and_writes_nothing_on_wakeup(rollout, observer):
    rollout.start_controller("controller-2")
    wait_for("controller-1 leads", lambda: holder(rollout) == "controller-1")
    ask(rollout, 3)
    rollout.processes.freeze("controller-1")
    wait_for("controller-2 leads", lambda: holder(rollout) == "controller-2", 30)
    ask(rollout, 5)
    before = rollout.processes.log("controller-1")
    rollout.processes.resume("controller-1")
    wait_for("controller-1 knows", lambda: "the lease is lost" in rollout.processes.log("controller-1")[len(before) :], 30)
    wait_for("all is as asked", lambda: converged(rollout, 5), 60)
    assert max(observer) == 1
    assert "may start" not in rollout.processes.log("controller-1")[len(before) :]
    assert holder(rollout) == "controller-2"
    rollout.kill("controller-2")
    wait_for("controller-1 takes over", lambda: holder(rollout) == "controller-1", 30)


def holder(cluster):
    return cluster.api.get("Lease", "vmnic-controller", "vmnic-system")["spec"]["holderIdentity"]


def test_ledger_is_empty_once_all_is_done(rollout):
    ask(rollout, 4)
    wait_for("all is as asked", lambda: converged(rollout, 4))

    def entries():
        data = rollout.api.get("ConfigMap", "vmnic-ledger", "vmnic-system")["data"]["ledger.json"]
        return json.loads(data)["pools"]["fast"]["entries"]

    wait_for("no grant is left", lambda: not entries())
