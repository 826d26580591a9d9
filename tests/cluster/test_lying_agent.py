"""A lying agent publishes every false status that the schema permits, with its real token.

Only its own node suffers.
"""

import threading
import time

import pytest

from tests.builders.vm import nad, nic, vm
from tests.cluster.machines import datapaths, instance_of, wait_until_it_runs
from tests.cluster.test_authority import agent
from tests.cluster.test_drains import cordoned, keep
from tests.cluster.test_faults import holder
from tests.harness.api import wait_for
from tests.harness.liar import Liar, lies, read_schema

LIAR, HONEST = "n1", "n2"
SHORT = {"disruption": "Drain", "drainTimeout": "2s"}


@pytest.fixture
def take_over(cluster, pool):
    """Takes over a node's agent.

    Afterwards, the real one works again before the pool is removed.
    """
    taken = []

    def take(node=LIAR):
        truth = cluster.api.get("NodeNicState", node)["status"]
        cluster.kill(f"agent-{node}")
        taken.append(node)
        return Liar(agent(cluster, node), node, truth)

    yield take
    for node in taken:
        cluster.start_agent(node)
        wait_for("the real agent reports", lambda node=node: cluster.pf(node).get("firstVf", "").startswith("0000:0b:10"))


@pytest.fixture
def fast(cluster, pool):
    def make(**spec):
        pool(rollout=SHORT, **spec)
        wait_for("there are VFs", lambda: [cluster.pf(node).get("numVfs") for node in (LIAR, HONEST)] == [7, 7])

    return make


def foreign_pod(cluster, name, namespace, node):
    """Create a foreign pod on a node."""
    spec = {"nodeName": node, "containers": [{"name": "c", "image": "none"}]}
    meta = {"name": name, "namespace": namespace}
    pod = cluster.api.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    return (namespace, name, pod["metadata"]["uid"])


def is_untouched(cluster, pod):
    namespace, name, uid = pod
    found = cluster.api.get("Pod", name, namespace)
    return found is not None and found["metadata"]["uid"] == uid and "deletionTimestamp" not in found["metadata"]


def elsewhere(cluster, namespace):
    """Return what must not change: the other nodes, their specs, and the VM on one of them."""
    nodes = {one["metadata"]["name"]: one["spec"].get("unschedulable", False) for one in cluster.api.list("Node")}
    specs = {one["metadata"]["name"]: one["spec"] for one in cluster.api.list("NodeNicState")}
    machine = cluster.api.get("VirtualMachine", "db", namespace)
    instance = instance_of(cluster, namespace, "db")
    migrations = cluster.api.list("VirtualMachineInstanceMigration", namespace)
    for named in (nodes, specs):
        named.pop(LIAR)
    return nodes, specs, machine["spec"], machine["metadata"]["uid"], instance["metadata"]["uid"], migrations


def test_no_lie_reaches_beyond_its_node(cluster, fast, take_over, policy, namespace):
    fast()
    cluster.api.create(nad("fast", namespace=namespace, cni="sriov", resource="vmnic.dev/fast"))
    machine = vm("db", nic(), nic("fast", binding="sriov", network="fast"), namespace=namespace)
    machine["spec"]["template"]["spec"] |= {
        "evictionStrategy": "LiveMigrate", "nodeSelector": {"kubernetes.io/hostname": HONEST},
    }  # fmt: skip
    cluster.api.create(machine)
    wait_until_it_runs(cluster, namespace, "db")
    policy(f"p-{namespace}", namespace)
    pods = [foreign_pod(cluster, f"dns-{namespace}", "kube-system", LIAR)]
    pods += [foreign_pod(cluster, f"data-{node}", namespace, node) for node in (LIAR, HONEST)]
    before, process = elsewhere(cluster, namespace), cluster.processes.pid("controller-1")
    liar = take_over()
    told = list(lies(read_schema(), liar.truth))
    telling = threading.Thread(target=lambda: [liar.tell(status) or time.sleep(0.02) for _, status in told])
    telling.start()
    try:
        decided = decide(cluster, namespace, telling)
    finally:
        telling.join()
    print(f"\n{len(told)} lies: {liar.told['stored']} stored, {liar.told['refused']} refused; {decided} VMs decided meanwhile")
    assert (elsewhere(cluster, namespace), cluster.processes.pid("controller-1")) == (before, process)
    assert (cluster.processes.running("controller-1"), holder(cluster)) == (True, "controller-1")
    assert all(is_untouched(cluster, pod) for pod in pods)
    assert liar.told["stored"] > 200
    cluster.api.delete("Pod", pods[0][1], "kube-system", "?gracePeriodSeconds=0")


def decide(cluster, namespace, telling):
    """Create VMs while lies are published, each of which the webhook has to decide.

    Return their number.
    """
    count = 0
    while telling.is_alive() or not count:
        name = f"v-{count}"
        cluster.api.create(vm(name, nic(model="e1000e"), namespace=namespace, run_strategy="Halted"))
        assert datapaths(cluster, namespace, name) == ["virtio"]
        count += 1
        time.sleep(0.2)
    return count


def test_no_more_vfs_are_assigned_than_the_kubelet_advertises(cluster, fast, take_over):
    fast()
    liar = take_over()
    first = liar.truth["pfs"][0]
    vfs = [{"range": "0-255", "driver": "vfio-pci"}]
    liar.tell(liar.truth | {"pfs": [first | {"numVfs": 256, "totalVfs": 256, "vfs": vfs, "held": []}, *liar.truth["pfs"][1:]]})

    def free():
        return cluster.api.get("SriovNetworkPool", "fast")["status"]["vfs"]["free"]

    nodes = [cluster.api.get("Node", name)["status"]["allocatable"].get("vmnic.dev/fast", "0") for name in (LIAR, HONEST)]
    wait_for("the pool counts what the kubelets offer", lambda: 0 < free() <= sum(map(int, nodes)))
    with pytest.raises(AssertionError):
        wait_for("the pool counts more", lambda: free() > sum(map(int, nodes)), 3)


def test_foreign_holders_are_named_and_not_evicted(cluster, fast, start, take_over, namespace):
    fast()
    home = start("db")
    keep(cluster, namespace, "db")
    cluster.api.merge("SriovNetworkPool", "fast", {"spec": {"numVfs": 3, "rollout": {"drainTimeout": "90s"}}})
    wait_for("the drain begins", lambda: cordoned(cluster) == {home})
    pods = [foreign_pod(cluster, f"data-{node}", namespace, node) for node in (LIAR, HONEST)]
    liar = take_over(home)
    first, rest = liar.truth["pfs"][0], liar.truth["pfs"][1:]
    names = [f"pod {namespace}/data-{node}" for node in (LIAR, HONEST)] + ["pod a/../../../../apis/x"]
    held = [{"vf": f"0000:0b:10.{2 * number}", "by": by} for number, by in enumerate(names)]
    words = [f"{one['by']} holds {one['vf']}" for one in held]
    liar.tell(liar.truth | {"pfs": [first | {"held": held, "plan": first["plan"] | {"blockedBy": words}}, *rest]})

    def named():
        problems = cluster.api.get("SriovNetworkPool", "fast")["status"].get("problems", [])
        told = next((one["message"] for one in problems if (one["node"], one["reason"]) == (home, "Draining")), "")
        return told.startswith("not evicted: ") and all(name in told for name in names)

    wait_for("they are named", named)
    assert all(is_untouched(cluster, pod) for pod in pods)
    cluster.api.delete("PodDisruptionBudget", "keep", namespace)


def test_rollout_continues_once_the_lying_node_is_excluded(cluster, fast, take_over):
    for name in (LIAR, HONEST):
        cluster.kubectl("label", "node", name, "vmnic-test/in=yes", "--overwrite")
    fast(nodeSelector={"vmnic-test/in": "yes"}, safety={"rollbackTimeout": "2s"})
    liar = take_over()
    first, rest = liar.truth["pfs"][0], liar.truth["pfs"][1:]
    plan = {"digest": "d" * 32, "text": "nothing"}

    def claim():
        """Plan something harmless, and claim every grant forever."""
        run = {"apply": {"digest": grant, "state": "Claimed"}} if (grant := liar.grants().get(first["pciAddress"])) else {}
        liar.tell(liar.truth | {"pfs": [first | run | {"plan": plan}, *rest]})

    def named():
        claim()
        problems = cluster.api.get("SriovNetworkPool", "fast")["status"].get("problems", [])
        return any((one["node"], one["reason"]) == (LIAR, "ChangeTimedOut") for one in problems)

    def done():
        claim()
        return cluster.pf(HONEST).get("numVfs") == 3

    try:
        cluster.api.merge("SriovNetworkPool", "fast", {"spec": {"numVfs": 3}})
        wait_for("the lying node is named", named, 60)
        assert cluster.pf(HONEST)["numVfs"] == 7
        cluster.kubectl("label", "node", LIAR, "vmnic-test/in-")
        wait_for("the other node goes on", done, 60)
    finally:
        for name in (LIAR, HONEST):
            cluster.kubectl("label", "node", name, "vmnic-test/in-", check=False)
