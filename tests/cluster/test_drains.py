"""Drains: KubeVirt migrates the VMs of affected functions, budgets and cordons are respected, and nodes return."""

import pytest

from tests.builders.vm import nic, vm
from tests.cluster.machines import instance_of, launcher_of, node_of, wait_until_it_runs
from tests.cluster.test_cli import run
from tests.cluster.test_faults import holder
from tests.harness.api import wait_for

DRAIN = {"disruption": "Drain", "drainTimeout": "60s"}
NODES = ("n1", "n2")


def ask(cluster, **spec):
    cluster.api.merge("SriovNetworkPool", "fast", {"spec": spec})


def vfs(cluster, *nodes):
    return [cluster.pf(node).get("numVfs", 0) for node in nodes or NODES]


def cordoned(cluster):
    nodes = cluster.api.list("Node")
    return {node["metadata"]["name"] for node in nodes if node["spec"].get("unschedulable")}


def reasons(cluster):
    return {one["reason"] for one in cluster.api.get("SriovNetworkPool", "fast")["status"].get("problems", [])}


@pytest.fixture
def fast(cluster, pool):
    pool(rollout=DRAIN)
    wait_for("there are VFs", lambda: vfs(cluster) == [7, 7])


def test_vms_are_migrated_away_and_the_node_returns(cluster, fast, start, namespace):
    home = start("db", evictionStrategy="LiveMigrate")
    other = "n2" if home == "n1" else "n1"
    bystander = vm("web", nic(), namespace=namespace)
    bystander["spec"]["template"]["spec"] |= {
        "evictionStrategy": "LiveMigrate",
        "nodeSelector": {"kubernetes.io/hostname": home},
    }
    cluster.api.create(bystander)
    wait_until_it_runs(cluster, namespace, "web")
    instance = instance_of(cluster, namespace, "db")["metadata"]["uid"]
    ask(cluster, numVfs=3)
    # The other node is free and goes first. Then the VM finds a VF there.
    wait_for("the VM has moved", lambda: node_of(cluster, namespace, "db") == other, 60)
    wait_for("both nodes are as asked", lambda: vfs(cluster) == [3, 3], 60)
    wait_for("nothing is cordoned", lambda: not cordoned(cluster))
    assert instance_of(cluster, namespace, "db")["metadata"]["uid"] == instance
    assert node_of(cluster, namespace, "web") == home
    moved = {one["spec"]["vmiName"] for one in cluster.api.list("VirtualMachineInstanceMigration", namespace)}
    assert moved == {"db"}


def test_vm_without_a_free_vf_elsewhere_is_not_moved(cluster, fast, start, namespace):
    home = start("db", evictionStrategy="LiveMigrate", nodeSelector={"kubernetes.io/hostname": "n1"})
    ask(cluster, numVfs=3)
    wait_for("it is said", lambda: "NoVfsForDrain" in reasons(cluster))
    wait_for("the other node goes on", lambda: vfs(cluster, "n2") == [3])
    assert (vfs(cluster, home), cordoned(cluster), node_of(cluster, namespace, "db")) == ([7], set(), home)


def keep(cluster, namespace, name):
    """Create a PodDisruptionBudget that permits no eviction of the VM's pod."""
    meta = {"name": "keep", "namespace": namespace}
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"vm.kubevirt.io/name": name}}}
    cluster.api.create({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta, "spec": spec})
    wait_for(
        "it counts", lambda: cluster.api.get("PodDisruptionBudget", "keep", namespace).get("status", {}).get("currentHealthy")
    )


def test_budget_is_respected_and_the_node_is_restored_in_time(cluster, fast, start, namespace):
    home = start("db")
    keep(cluster, namespace, "db")
    pod = launcher_of(cluster, namespace, "db")["metadata"]["uid"]
    ask(cluster, numVfs=3, rollout={"drainTimeout": "6s"})
    wait_for("the node is cordoned", lambda: cordoned(cluster) == {home})
    wait_for("it is told who is in the way", lambda: "Draining" in reasons(cluster))
    wait_for("the node is as it was found", lambda: not cordoned(cluster))
    assert launcher_of(cluster, namespace, "db")["metadata"]["uid"] == pod
    assert vfs(cluster, home) == [7]


def test_successor_finishes_the_drain_of_a_killed_leader(cluster, fast, start, namespace):
    home = start("db")
    keep(cluster, namespace, "db")
    cluster.start_controller("controller-2")
    try:
        ask(cluster, numVfs=3)
        wait_for("the node is cordoned", lambda: cordoned(cluster) == {home})
        cluster.kill("controller-1")
        wait_for("another leads", lambda: holder(cluster) == "controller-2")
        assert cordoned(cluster) == {home}
        cluster.api.delete("PodDisruptionBudget", "keep", namespace)
        wait_for("the drain is brought to its end", lambda: vfs(cluster) == [3, 3], 60)
        wait_for("nothing is cordoned", lambda: not cordoned(cluster))
    finally:
        cluster.start_controller()
        cluster.kill("controller-2")
        wait_for("the first leads again", lambda: holder(cluster) == "controller-1")


def test_administrators_cordon_stays(cluster, fast, start, namespace):
    home = start("db", evictionStrategy="LiveMigrate")
    cluster.kubectl("cordon", home)
    try:
        ask(cluster, numVfs=3)
        wait_for("both nodes are as asked", lambda: vfs(cluster) == [3, 3], 60)
        wait_for("all is over", lambda: not cluster.pf(home).get("plan") and "Draining" not in reasons(cluster))
        assert cordoned(cluster) == {home}
    finally:
        cluster.kubectl("uncordon", home)


def test_administrator_approves_if_the_pool_requires_it(cluster, fast, start, namespace):
    home = start("db", evictionStrategy="LiveMigrate")
    ask(cluster, numVfs=3, rollout={"disruption": "Manual"})
    wait_for("the free node is done", lambda: sorted(vfs(cluster)) == [3, 7])
    wait_for("it waits for a person", lambda: "WaitingForVMs" in reasons(cluster))
    assert not cordoned(cluster)
    code, out, err = run(cluster, "approve", home, "0000:0b:00.0")
    assert (code, err, f"approved on {home}: 0000:0b:00.0 (ens1f0): remove all VFs, create 3 VFs" in out) == (0, "", True)
    wait_for("both nodes are as asked", lambda: vfs(cluster) == [3, 3], 60)
    wait_for("nothing is cordoned", lambda: not cordoned(cluster))
    assert run(cluster, "approve", home)[0] == 2
