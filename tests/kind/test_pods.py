"""Real pods with VFs. Each pod has and keeps its own, and blocks plans that would take them."""

from tests.harness.api import wait_for

from .pods import ask_for, wait_for_vfs


def _blockers(cluster, node):
    return cluster.pf(node).get("plan", {}).get("blockedBy") or []


def test_pods_get_their_own_vfs_with_device_files(cluster, pods):
    node = cluster.workers[0]
    wanted = {"one": 1, "two": 2, "four": 4}
    for name, vfs in wanted.items():
        pods.start(name, vfs=vfs, node=node)
    found = {}
    for name, vfs in wanted.items():
        assert pods.running(name) == node
        addresses, files = pods.look(name)
        assert len(addresses) == vfs
        groups = [path for path in files if path.rsplit("/", 1)[1].isdigit()]
        assert "/dev/vfio/vfio" in files
        assert len(groups) == vfs
        found[name] = set(addresses)
    assert len(set.union(*found.values())) == 7


def test_a_pod_without_a_free_vf_waits(cluster, pods):
    node = cluster.workers[0]
    pods.start("all", vfs=7, node=node)
    pods.running("all")
    pods.start("late", node=node)
    wait_for("it is told why", lambda: _scheduled(cluster, "late").get("reason") == "Unschedulable")
    pods.end("all")
    pods.running("late")


def _scheduled(cluster, name):
    pod = cluster.api.get("Pod", name, "default")
    return next((one for one in pod["status"].get("conditions", []) if one["type"] == "PodScheduled"), {})


def test_a_plan_that_would_take_a_pods_vf_waits_for_the_pod(cluster, pods):
    busy, free = cluster.workers
    pods.start("holder", node=busy)
    pods.running("holder")
    held = pods.vfs("holder")
    ask_for(cluster, 3)
    wait_for("the pod is named", lambda: _blockers(cluster, busy) == [f"pod default/holder holds {held[0]}"])
    wait_for("the free worker has three", lambda: cluster.pf(free).get("numVfs") == 3)
    assert cluster.pf(busy)["numVfs"] == 7
    assert pods.vfs("holder") == held
    pods.end("holder")
    wait_for("the plan goes on by itself", lambda: cluster.pf(busy).get("numVfs") == 3)
    ask_for(cluster, 7)
    wait_for_vfs(cluster, 7)
