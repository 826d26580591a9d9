"""Device plugins from pool to node resources.

The agents register with the node player's kubelet doubles.
"""

from tests.harness.api import wait_for


def offered(cluster, node, name="fast"):
    """Return a resource's capacity and allocatable on a node, or None if the node lacks the resource."""
    status = cluster.api.get("Node", node)["status"]
    resource = f"vmnic.dev/{name}"
    return (status["capacity"][resource], status["allocatable"][resource]) if resource in status["capacity"] else None


def test_node_resources_follow_the_pool(cluster, pool):
    pool(numVfs=2)
    wait_for("both nodes offer their VFs", lambda: [offered(cluster, node) for node in ("n1", "n2")] == [("2", "2")] * 2)
    cluster.api.merge("SriovNetworkPool", "fast", {"spec": {"numVfs": 5}})
    wait_for("they offer the new ones", lambda: [offered(cluster, node) for node in ("n1", "n2")] == [("5", "5")] * 2)
    assert offered(cluster, "n3") is None


def test_node_without_its_agent_offers_nothing_until_it_is_back(cluster, pool):
    pool()
    wait_for("n1 offers its VFs", lambda: offered(cluster, "n1") == ("7", "7"))
    cluster.kill("agent-n1")
    try:
        wait_for("n1 offers nothing", lambda: offered(cluster, "n1") == ("7", "0"))
    finally:
        cluster.start_agent("n1")
    wait_for("n1 offers its VFs again", lambda: offered(cluster, "n1") == ("7", "7"))


def test_each_function_is_its_own_resource_if_the_pool_says_so(cluster, pool):
    pool(resourcePerPF=True)
    wait_for("the function's name is in the resource's", lambda: offered(cluster, "n1", "fast-ens1f0") == ("7", "7"))
    assert offered(cluster, "n1") in (None, ("0", "0"))


def test_device_of_another_plugin_is_not_registered(cluster, pool):
    pool(devicePlugin="None")
    wait_for("VFs are there", lambda: cluster.pf("n1").get("numVfs") == 7)
    looks = cluster.control("n1", {"reads": None})
    wait_for("the agent has looked again", lambda: cluster.control("n1", {"reads": None}) > looks + 300)
    assert offered(cluster, "n1") in (None, ("0", "0"))
