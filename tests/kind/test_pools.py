"""A pool in a cluster: its VFs, allocatable devices, and changes one worker at a time."""

import time

from tests.harness.api import wait_for
from tests.harness.cluster import ROOT

from .pods import POOL, allocatable, ask_for, wait_for_vfs

_POOLS = ROOT / "examples" / "pools"


def _vfs(cluster):
    return [cluster.pf(node).get("numVfs") for node in cluster.workers]


def test_the_vfs_of_a_pool_become_allocatable(cluster, figures):
    started = time.monotonic()
    cluster.kubectl("apply", "-f", _POOLS / f"{POOL}.yaml")
    wait_for("both workers have VFs", lambda: _vfs(cluster) == [7, 7])
    figures["`kubectl apply` of a pool to VFs on both workers"] = f"{time.monotonic() - started:.1f} s"
    wait_for("the scheduler counts on them", lambda: [allocatable(cluster, node) for node in cluster.workers] == [7, 7])
    figures["… to allocatable VFs on both workers"] = f"{time.monotonic() - started:.1f} s"
    assert time.monotonic() - started < 30


def test_a_finished_pool_is_ready(cluster):
    wait_for("the pool counts", lambda: cluster.api.get("SriovNetworkPool", POOL)["status"]["vfs"].get("configured") == 14)
    cluster.kubectl("wait", "--for=condition=Ready", f"snp/{POOL}", "--timeout=30s")


def test_workers_are_changed_one_at_a_time(cluster):
    seen = []

    def look():
        seen.append((_vfs(cluster), [cluster.pf(node).get("apply", {}).get("state") for node in cluster.workers]))
        return seen[-1][0] == [4, 4]

    ask_for(cluster, 4)
    wait_for("both workers have four", look)
    assert any(sorted(vfs) == [4, 7] for vfs, _ in seen)
    assert not any(set(states) <= {"Claimed", "Applying"} for _, states in seen)


def test_a_pf_with_the_nodes_address_is_refused(cluster):
    cluster.kubectl("apply", "-f", _POOLS / "uplinks.yaml")
    refused = "0000:0c:00.0"
    for node in cluster.workers:
        wait_for(f"{node} says so", lambda node=node: cluster.pf(node, refused).get("problem", {}).get("reason") == "HostUsed")
    assert [cluster.pf(node, refused).get("numVfs", 0) for node in cluster.workers] == [0, 0]
    cluster.api.delete("SriovNetworkPool", "uplinks")
    ask_for(cluster, 7)
    wait_for_vfs(cluster, 7)
