"""The device plugin with a real kubelet.

Sizes of a pool, unhealthy devices, restarts of both sides, and pods that race with a change.
"""

import time

from tests.harness.api import wait_for
from tests.harness.cluster import AGENT_NAMESPACE

from .lab import worker_spec
from .pods import allocatable, ask_for, wait_for_vfs

_STATUS_S = 10
"""Interval in which the kubelet reports its status to the API server."""


def test_the_scheduler_follows_a_pools_size(cluster, figures):
    node = cluster.workers[0]
    for size in (2, 7):
        ask_for(cluster, size)
        wait_for("the VFs are there", lambda size=size: cluster.pf(node).get("numVfs") == size)
        started = time.monotonic()
        wait_for("the scheduler follows", lambda size=size: allocatable(cluster, node) == size)
        figures[f"{size} VFs to allocatable {size}"] = f"{time.monotonic() - started:.1f} s"
        assert time.monotonic() - started < _STATUS_S + 2
    wait_for_vfs(cluster, 7)


def test_a_removed_nic_is_withdrawn(cluster, figures):
    node = cluster.workers[1]
    cluster.hosts.control(node, {"remove_device": "0000:0b:00.0"})
    started = time.monotonic()
    wait_for("the agent sees it", lambda: cluster.pf(node).get("numVfs") != 7)
    seen = time.monotonic()
    wait_for("no pod can be sent there", lambda: allocatable(cluster, node) <= 0)
    figures["a lost NIC: until the agent says so, until nothing is allocatable"] = (
        f"{seen - started:.1f} s, {time.monotonic() - started:.1f} s"
    )
    assert time.monotonic() - seen < _STATUS_S + 1
    cluster.hosts.start(node, worker_spec(2))
    wait_for_vfs(cluster, 7)


def test_a_restarted_kubelet_finds_the_plugin(cluster, pods, figures):
    node = cluster.workers[0]
    pods.start("through", node=node)
    pods.running("through")
    held = pods.vfs("through")
    cluster.run_in(node, "systemctl", "restart", "kubelet")
    started = time.monotonic()
    pods.run("after", node=node)
    figures["kubelet restarted: until a new pod has its VF"] = f"{time.monotonic() - started:.1f} s"
    assert pods.vfs("through") == held
    assert not set(held) & set(pods.vfs("after"))
    wait_for_vfs(cluster, 7)


def test_a_restarted_agent_advertises_its_devices_again(cluster, pods, figures):
    node = cluster.workers[0]
    pods.start("before", node=node)
    pods.running("before")
    held = pods.vfs("before")
    cluster.kill_container(node, cluster.pod_on(node, AGENT_NAMESPACE, "vmnic-agent"))
    started = time.monotonic()
    pods.run("next", node=node)
    figures["agent killed: until a new pod has its VF"] = f"{time.monotonic() - started:.1f} s"
    assert pods.vfs("before") == held
    assert not set(held) & set(pods.vfs("next"))
    wait_for_vfs(cluster, 7)


def test_a_pod_that_races_with_a_change_keeps_its_vf(cluster, pods, figures):
    node = cluster.workers[0]
    outcomes = []
    for number, size in enumerate((3, 7, 4, 7)):
        names = [f"race-{number}-{letter}" for letter in "abc"]
        ask_for(cluster, size)
        for name in names:
            pods.start(name, node=node)
        outcomes += [pods.settled(name) for name in names]
        held = [vf for name in names if pods.settled(name) == "Running" for vf in pods.vfs(name)]
        assert len(set(held)) == len(held)
        assert set(held) <= set(cluster.vfs(node)), "what a running pod has is there"
        pods.end()
        wait_for_vfs(cluster, size)
    # The kubelet refuses a pod that the scheduler sends before it knows of the fence. Nothing else fails.
    assert set(outcomes) <= {"Running", "Failed UnexpectedAdmissionError"}
    figures["pods that raced with a change: ran, turned down by the kubelet"] = (
        f"{outcomes.count('Running')}, {len(outcomes) - outcomes.count('Running')}"
    )
