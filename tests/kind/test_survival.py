"""Killed processes come back, and the requested changes are made nevertheless."""

import time

from tests.harness.api import wait_for
from tests.harness.cluster import AGENT_NAMESPACE, NAMESPACE

from .pods import allocatable, ask_for, wait_for_vfs


def _leader(cluster):
    return (cluster.api.get("Lease", "vmnic-controller", NAMESPACE) or {})["spec"]["holderIdentity"]


def _node_of(cluster, pod):
    return cluster.api.get("Pod", pod, NAMESPACE)["spec"]["nodeName"]


def test_an_agent_killed_during_a_change_finishes_it(cluster):
    ask_for(cluster, 3)
    for node in cluster.workers:
        wait_for(
            "it is granted", lambda node=node: cluster.pf(node).get("apply", {}).get("state") or cluster.pf(node)["numVfs"] == 3
        )
        cluster.kill_container(node, cluster.pod_on(node, AGENT_NAMESPACE, "vmnic-agent"))
    wait_for_vfs(cluster, 3)
    assert [len(cluster.vfs(node)) for node in cluster.workers] == [3, 3]
    ask_for(cluster, 7)
    wait_for_vfs(cluster, 7)


def test_another_replica_leads_when_the_leader_hangs(cluster, figures):
    leader = _leader(cluster)
    pod = leader.rsplit("-", 1)[0]
    node = _node_of(cluster, pod)
    cluster.freeze_container(node, pod)
    started = time.monotonic()
    try:
        ask_for(cluster, 5)
        wait_for("another one leads", lambda: _leader(cluster) != leader)
        led = time.monotonic() - started
        wait_for_vfs(cluster, 5)
    finally:
        cluster.resume_container(node, pod)
    figures["leader frozen: until another leads, until both nodes are changed"] = (
        f"{led:.1f} s, {time.monotonic() - started:.1f} s"
    )
    assert led < 15


def test_a_killed_leader_is_replaced(cluster, figures):
    pod = _leader(cluster).rsplit("-", 1)[0]
    cluster.kill_container(_node_of(cluster, pod), pod)
    started = time.monotonic()
    ask_for(cluster, 7)
    wait_for("a plan is granted", lambda: any(_grant(cluster, node) for node in cluster.workers))
    figures["leader killed: until the next grant"] = f"{time.monotonic() - started:.1f} s"
    assert time.monotonic() - started < 15
    wait_for_vfs(cluster, 7)


def _grant(cluster, node):
    functions = (cluster.api.get("NodeNicState", node) or {})["spec"].get("pfs") or []
    return cluster.pf(node).get("numVfs") == 7 or any(pf.get("grant") and pf.get("numVfs") == 7 for pf in functions)


def test_a_restarted_worker_has_its_vfs_again(cluster, figures):
    node = cluster.workers[1]
    cluster.switch_off(node)
    assert cluster.vfs(node) == [], "a host that boots has no VFs"
    started = time.monotonic()
    cluster.switch_on(node)
    wait_for("its VFs are back", lambda: len(cluster.vfs(node)) == 7, 120)
    wait_for("the scheduler counts on them", lambda: allocatable(cluster, node) == 7, 60)
    figures["worker restarted: until its VFs are allocatable again"] = f"{time.monotonic() - started:.1f} s"
    wait_for_vfs(cluster, 7)
