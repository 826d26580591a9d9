"""Deletion of pools: nodes are restored or retained, and nodes that do not answer hold up no deletion."""

import pytest

from tests.builders.vm import nad, nic, vm
from tests.cluster.machines import wait_until_it_runs
from tests.harness.api import wait_for

NODES = ("n1", "n2")


def vfs(cluster, *nodes):
    return [cluster.pf(node).get("numVfs", 0) for node in nodes or NODES]


def there(cluster):
    return cluster.api.get("SriovNetworkPool", "fast")


def asked(cluster, node):
    return cluster.api.get("NodeNicState", node)["spec"].get("pfs", [])


@pytest.fixture
def fast(cluster, pool):
    pool(rollout={"maxConcurrent": 2})
    wait_for("there are VFs", lambda: vfs(cluster) == [7, 7])


def test_deleted_pool_leaves_nodes_as_they_were(cluster, fast):
    cluster.api.delete("SriovNetworkPool", "fast")
    wait_for("it is gone", lambda: there(cluster) is None)
    assert vfs(cluster) == [0, 0]
    assert not any(cluster.pf(node).get("owned") for node in NODES)
    wait_for("no node is asked for anything", lambda: not any(asked(cluster, node) for node in NODES))


def test_retain_leaves_the_vfs(cluster, fast, pool):
    cluster.api.merge("SriovNetworkPool", "fast", {"spec": {"removal": "Retain"}})
    cluster.api.delete("SriovNetworkPool", "fast")
    wait_for("it is gone", lambda: there(cluster) is None)
    assert vfs(cluster) == [7, 7]
    # For the next test: retained VFs count as the nodes' own.
    pool(numVfs=0, removal="Retain")
    wait_for("there are no VFs", lambda: vfs(cluster) == [0, 0])


def test_node_that_leaves_the_pool_is_reset(cluster, fast):
    cluster.api.merge("SriovNetworkPool", "fast", {"spec": {"nodeSelector": {"kubernetes.io/hostname": "n2"}}})
    wait_for("n1 is as it was", lambda: vfs(cluster) == [0, 7])
    wait_for("it is asked for nothing", lambda: not asked(cluster, "n1"))


def test_held_vf_keeps_its_pool_until_it_is_abandoned(cluster, fast, pool, namespace):
    cluster.api.create(nad("fast", namespace=namespace, cni="sriov", resource="vmnic.dev/fast"))
    cluster.api.create(vm("db", nic(), nic("fast", binding="sriov", network="fast"), namespace=namespace))
    wait_until_it_runs(cluster, namespace, "db")
    home = wait_for("its VF is seen", lambda: next((node for node in NODES if cluster.pf(node).get("held")), None))
    cluster.api.delete("SriovNetworkPool", "fast")
    wait_for("the free node is done", lambda: sorted(vfs(cluster)) == [0, 7])
    wait_for(
        "it is said who is in the way",
        lambda: f"pod {namespace}/virt-launcher-db-" in str(there(cluster)["status"]["problems"]),
    )
    ready = there(cluster)["status"]["conditions"][0]
    assert (ready["type"], ready["reason"], "vmnic.dev/abandon" in ready["message"]) == ("Ready", "Removing", True)
    cluster.api.merge("SriovNetworkPool", "fast", {"metadata": {"annotations": {"vmnic.dev/abandon": ""}}})
    wait_for("it is gone", lambda: there(cluster) is None)
    wait_for("nobody asks for the function", lambda: not asked(cluster, home))
    assert vfs(cluster, home) == [7]
    cluster.api.merge("VirtualMachine", "db", {"spec": {"runStrategy": "Halted"}}, namespace)
    # A pool that takes the function again knows its state before the first pool.
    pool()
    wait_for("it is taken again", lambda: vfs(cluster) == [7, 7] and not cluster.pf(home).get("held"))
    cluster.api.delete("SriovNetworkPool", "fast")
    wait_for("it is as it was", lambda: vfs(cluster) == [0, 0])


def test_pool_deleted_without_controller_is_cleaned_up(cluster, fast):
    cluster.kill("controller-1")
    cluster.api.delete("SriovNetworkPool", "fast")
    assert there(cluster)["metadata"]["deletionTimestamp"]
    cluster.start_controller()
    wait_for("it is gone", lambda: there(cluster) is None, 60)
    assert vfs(cluster) == [0, 0]


def test_only_pools_have_a_finalizer_of_vmnic(cluster, fast):
    for kind in ("NodeNicState", "VmNicPolicy", "VmNicState", "Node", "NetworkAttachmentDefinition", "VirtualMachine"):
        assert not [one for one in cluster.api.list(kind) if "vmnic.dev" in str(one["metadata"].get("finalizers"))]
    assert there(cluster)["metadata"]["finalizers"] == ["vmnic.dev/nodes"]
