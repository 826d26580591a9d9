"""An agent's process killed during a write in the kernel: a sample of the sweep, with real processes.

The simulated host holds the n-th write of the run. The agent dies there together with its worker. The child that issued the
write cannot be killed, as if it were in the kernel, and ends while the next agent runs.
"""

import pytest

from tests.harness.api import wait_for

PF = "0000:0b:00.0"
POINTS = {"the first write": 1, "the second": 2, "the third": 3, "in the middle": 8, "near the end": 14}


@pytest.fixture
def one_node(cluster, pool):
    """A pool on n1 alone, so that only its agent has work."""
    cluster.api.merge("Node", "n1", {"metadata": {"labels": {"kills": "here"}}})
    pool("killed", nodeSelector={"kills": "here"}, numVfs=0)
    wait_for("n1 is asked for nothing", lambda: asked(cluster) == 0 and "plan" not in cluster.pf("n1"))
    yield cluster
    cluster.control("n1", {"go_on": None})
    if not cluster.processes.running("agent-n1"):
        cluster.start_agent("n1")


def asked(cluster):
    return next((pf["numVfs"] for pf in cluster.api.get("NodeNicState", "n1")["spec"].get("pfs", []) if "numVfs" in pf), 0)


def is_ready(cluster):
    conditions = cluster.api.get("NodeNicState", "n1")["status"]["conditions"]
    return next(one["status"] for one in conditions if one["type"] == "Ready") == "True"


def done(cluster):
    pf = cluster.pf("n1")
    return pf.get("numVfs") == 7 and pf.get("vfs") == [{"range": "0-6", "driver": "vfio-pci"}] and "plan" not in pf


@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS)
def test_process_killed_in_a_write_is_followed_by_convergence(one_node, point):
    cluster = one_node
    cluster.control("n1", {"pause_at": point})
    cluster.api.merge("SriovNetworkPool", "killed", {"spec": {"numVfs": 7}})
    wait_for("the write is in the kernel", lambda: cluster.control("n1", {"paused": None}), 60)
    cluster.processes.kill("agent-n1")
    before = cluster.control("n1", {"writes": None})
    cluster.start_agent("n1")
    wait_for("the next agent waits", lambda: cluster.pf("n1").get("problem", {}).get("reason") == "WriteStillInFlight")
    assert not is_ready(cluster)
    assert cluster.control("n1", {"writes": None}) == before
    cluster.control("n1", {"go_on": None})
    wait_for("all is as asked", lambda: done(cluster) and is_ready(cluster))
    assert cluster.pf("n1")["apply"]["state"] == "Applied"
