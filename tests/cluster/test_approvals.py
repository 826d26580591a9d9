"""Plans that only interrupt the links of VMs wait for a person, and then run beside the VMs."""

import json

import pytest

from tests.cluster.machines import instance_of, launcher_of, node_of
from tests.cluster.test_cli import run
from tests.cluster.test_drains import ask, vfs
from tests.harness.api import path_of, wait_for

PF = "0000:0b:00.0"
OTHER = {"n1": "n2", "n2": "n1"}


def mtu(cluster, node):
    return cluster.pf(node).get("mtu")


def plan(cluster, node):
    return cluster.pf(node).get("plan") or {}


def problem(cluster, node):
    """Return the message of the pool's problem on a node whose plan waits."""
    told = cluster.api.get("SriovNetworkPool", "fast").get("status", {}).get("problems", [])
    return next((one["message"] for one in told if one["node"] == node and one["reason"] == "WaitingForVMs"), "")


def would_interrupt(cluster, node, count):
    """Return whether the plan of a node interrupts the links of this many VMs and takes no device away."""
    found = plan(cluster, node)
    return found.get("softBlockers", 0) == count == len(found.get("blockedBy", []))


def is_untouched(cluster, node):
    """Return whether the node is as before, and nothing on it is granted."""
    (spec,) = cluster.api.get("NodeNicState", node)["spec"]["pfs"]
    return (mtu(cluster, node), vfs(cluster, node), spec.get("grant", "")) == (1500, [3], "")


def approve(cluster, node):
    code, out, err = run(cluster, "approve", node, PF)
    assert (code, err) == (0, "")
    return out


def look_again(cluster, node):
    looks = cluster.control(node, {"reads": None})
    wait_for("the agent has looked again", lambda: cluster.control(node, {"reads": None}) > looks + 300)


def history(cluster, kind, since):
    """Return every state of a kind's objects since a resource version, oldest first."""
    path = f"{path_of(kind)}?watch=1&resourceVersion={since}&timeoutSeconds=1"
    return [json.loads(line)["object"] for line in cluster.kubectl("get", "--raw", path).splitlines()]


@pytest.fixture
def wait(cluster, pool, start):
    """Starts a VM with a VF, asks for another MTU, and returns the VM's node, whose plan waits for a person."""

    def make(**rollout):
        pool(numVfs=3)
        wait_for("there are VFs", lambda: vfs(cluster) == [3, 3])
        home = start("db", evictionStrategy="LiveMigrate")
        ask(cluster, mtu=9000, rollout=rollout)
        wait_for("the plan is there", lambda: would_interrupt(cluster, home, 1))
        return home

    return make


@pytest.mark.parametrize("disruption", ["WhenFree", "Manual"])
def test_interruption_waits_for_a_person(cluster, wait, namespace, disruption):
    home = wait(disruption=disruption)
    wait_for("the free node goes on", lambda: mtu(cluster, OTHER[home]) == 9000)
    words = f"{launcher_of(cluster, namespace, 'db')['metadata']['name']} loses its link for seconds: accept that with "
    wait_for("it is said", lambda: f"{words}kubectl vmnic approve {home} {PF}, or stop it" in problem(cluster, home))
    look_again(cluster, home)
    assert is_untouched(cluster, home)


@pytest.mark.parametrize("disruption", ["WhenFree", "Drain", "Manual"])
def test_approved_interruption_runs_beside_the_vm(cluster, wait, namespace, disruption):
    since = cluster.api.request("GET", path_of("Node"))["metadata"]["resourceVersion"]
    home = wait(disruption=disruption, paused=True)
    pod = launcher_of(cluster, namespace, "db")["metadata"]
    words = f"set the MTU to 9000; pod {namespace}/{pod['name']} loses its link for seconds"
    assert approve(cluster, home) == f"approved on {home}: {PF} (ens1f0): {words}\n"
    look_again(cluster, home)
    assert is_untouched(cluster, home)
    ask(cluster, rollout={"paused": False})
    wait_for("both nodes are as asked", lambda: [mtu(cluster, node) for node in OTHER] == [9000, 9000])
    # The pod would have another UID after an eviction or a migration.
    assert launcher_of(cluster, namespace, "db")["metadata"]["uid"] == pod["uid"]
    assert (node_of(cluster, namespace, "db"), cluster.api.list("VirtualMachineInstanceMigration", namespace)) == (home, [])
    nodes = history(cluster, "Node", since)
    assert home in {node["metadata"]["name"] for node in nodes}
    assert not any(node["spec"].get("unschedulable") for node in nodes)


def test_approval_does_not_cover_a_later_vm(cluster, wait, start, namespace):
    home = wait(paused=True)
    approve(cluster, home)
    start("web", nodeSelector={"kubernetes.io/hostname": home})
    wait_for("the plan names both", lambda: would_interrupt(cluster, home, 2))
    ask(cluster, rollout={"paused": False})
    wait_for("the free node goes on", lambda: mtu(cluster, OTHER[home]) == 9000)
    wait_for("only the later VM is in the way", lambda: f"pod {namespace}/virt-launcher-web-" in problem(cluster, home))
    assert "virt-launcher-db-" not in problem(cluster, home)
    look_again(cluster, home)
    assert is_untouched(cluster, home)
    approve(cluster, home)
    wait_for("the new approval covers both", lambda: mtu(cluster, home) == 9000)
    assert all(instance_of(cluster, namespace, name) for name in ("db", "web"))


def test_approval_does_not_take_a_vf_away(cluster, wait, namespace):
    home = wait(paused=True)
    approve(cluster, home)
    ask(cluster, numVfs=2, rollout={"paused": False})
    (held,) = cluster.pf(home)["held"]
    words = f"{launcher_of(cluster, namespace, 'db')['metadata']['name']} holds {held['vf']}: stop or move it, then "
    wait_for("the VM is in the way", lambda: words in problem(cluster, home))
    approve(cluster, home)
    look_again(cluster, home)
    assert is_untouched(cluster, home)
    assert words in problem(cluster, home)
