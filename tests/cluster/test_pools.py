"""Pools from the API server to the hosts: planned, granted, applied, protected."""

from tests.builders.vm import nic, vm
from tests.harness.api import wait_for


def ready(cluster, name):
    status = cluster.api.get("SriovNetworkPool", name).get("status", {})
    return {c["type"]: (c["status"], c["reason"]) for c in status.get("conditions", [])}.get("Ready")


def vfs(cluster, node):
    return cluster.pf(node).get("numVfs")


def test_pool_prepares_its_nodes_and_tells_the_others_apart(cluster, pool):
    pool(numVfs="max")
    wait_for("n1 and n2 have VFs", lambda: (vfs(cluster, "n1"), vfs(cluster, "n2")) == (7, 7))
    wait_for("n3 is told apart", lambda: ready(cluster, "fast") == ("False", "NodesFailed"))
    problems = cluster.api.get("SriovNetworkPool", "fast")["status"]["problems"]
    assert [(problem["node"], problem["reason"]) for problem in problems] == [("n3", "IommuOff")]
    assert "intel_iommu=on" in problems[0]["message"]


def test_function_with_the_nodes_address_is_refused(cluster, pool):
    pool("uplinks", nicSelector={"models": ["I350"]})
    wait_for("it is refused", lambda: cluster.pf("n1", "0000:0c:00.0").get("problem", {}).get("reason") == "HostUsed")
    assert cluster.pf("n1", "0000:0c:00.0").get("numVfs", 0) == 0
    cluster.api.delete("SriovNetworkPool", "uplinks")


def test_nothing_happens_while_a_rollout_is_paused(cluster, pool):
    pool(rollout={"paused": True})
    wait_for("the plans are there", lambda: cluster.pf("n1").get("plan") and cluster.pf("n2").get("plan"))
    wait_for("the pool says so", lambda: ready(cluster, "fast") in (("False", "Paused"), ("False", "NodesFailed")))
    assert not any(cluster.api.get("NodeNicState", node)["spec"]["pfs"][0].get("grant") for node in ("n1", "n2"))


def test_pool_without_nodes_is_ready(cluster, pool):
    pool(nodeSelector={"no-such": "label"})
    wait_for("it is ready", lambda: ready(cluster, "fast") == ("True", "NoNodesMatched"))


def test_younger_of_two_clashing_pools_reports_it(cluster, pool):
    pool()
    wait_for("the first has its way", lambda: vfs(cluster, "n1") == 7)
    pool("late", numVfs=2)
    wait_for("the second is told", lambda: (ready(cluster, "late") or ("", ""))[1] == "Conflict" or _conflict(cluster, "late"))
    assert vfs(cluster, "n1") == 7
    cluster.api.delete("SriovNetworkPool", "late")


def _conflict(cluster, name):
    status = cluster.api.get("SriovNetworkPool", name).get("status", {})
    return any(c["type"] == "Conflict" and c["status"] == "True" for c in status.get("conditions", []))


def test_running_vm_keeps_its_vf_until_it_stops(cluster, pool, namespace):
    pool()
    wait_for("VFs are there", lambda: (vfs(cluster, "n1"), vfs(cluster, "n2")) == (7, 7))
    note = {"annotations": {"k8s.v1.cni.cncf.io/resourceName": "vmnic.dev/fast"}, "name": "fast", "namespace": namespace}
    cluster.api.apply({"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": note})
    cluster.api.create(vm("db", nic(), nic("fast", binding="sriov", network="fast"), namespace=namespace))
    wait_for(
        "the VM runs",
        lambda: (cluster.api.get("VirtualMachineInstance", "db", namespace) or {}).get("status", {}).get("phase") == "Running",
    )
    held_by = wait_for("its VF is seen", lambda: next((n for n in ("n1", "n2") if cluster.pf(n).get("held")), None))
    cluster.api.merge("SriovNetworkPool", "fast", {"spec": {"numVfs": 3}})
    plan = wait_for("the plan names the VM's pod", lambda: (cluster.pf(held_by).get("plan") or {}).get("blockedBy"))
    assert plan[0].startswith(f"pod {namespace}/virt-launcher-db-")
    wait_for("the other node goes on", lambda: vfs(cluster, "n2" if held_by == "n1" else "n1") == 3)
    assert vfs(cluster, held_by) == 7
    cluster.api.merge("VirtualMachine", "db", {"spec": {"runStrategy": "Halted"}}, namespace)
    wait_for("the plan is carried out", lambda: vfs(cluster, held_by) == 3)


def test_hand_edited_node_state_is_corrected_and_grants_nothing(cluster, pool):
    pool(rollout={"paused": True})
    digest = wait_for("there is a plan", lambda: (cluster.pf("n1").get("plan") or {}).get("digest"))
    before = cluster.control("n1", {"writes": None})
    body = {"spec": {"synced": True, "pfs": [{"pciAddress": "0000:0b:00.0", "pool": "fast", "numVfs": 1, "grant": digest}]}}
    cluster.api.merge("NodeNicState", "n1", body)
    wait_for("it is put right", lambda: cluster.api.get("NodeNicState", "n1")["spec"]["pfs"][0]["numVfs"] == 7)
    wait_for("the agent has seen it", lambda: _observed(cluster, "n1"))
    assert cluster.control("n1", {"writes": None}) == before


def _observed(cluster, node):
    state = cluster.api.get("NodeNicState", node)
    return state["status"]["observedGeneration"] == state["metadata"]["generation"]


def test_no_process_writes_at_rest(cluster, pool):
    pool()
    wait_for("VFs are there", lambda: (vfs(cluster, "n1"), vfs(cluster, "n2")) == (7, 7))
    wait_for("the pool is settled", lambda: ready(cluster, "fast") == ("False", "NodesFailed") and _observed(cluster, "n1"))
    kinds = ("SriovNetworkPool", "NodeNicState")

    def versions():
        return {
            (kind, o["metadata"]["name"]): o["metadata"]["resourceVersion"] for kind in kinds for o in cluster.api.list(kind)
        }

    def still_after_three_looks():
        before = versions()
        looks = cluster.control("n1", {"reads": None})
        wait_for("the agent has looked again", lambda: cluster.control("n1", {"reads": None}) > looks + 300)
        return before == versions()

    wait_for("nothing changes between looks", still_after_three_looks)
