"""Hostile objects of a tenant against the real API server.

Each is stored, and affects no other object.
"""

import pytest

from tests.builders.vm import nad, nic, vm
from tests.cluster.machines import datapaths
from tests.cluster.test_time_budget import lease
from tests.harness.api import wait_for

DEEP = '{"x": {"a": ' + '{"a": ' * 2000 + "1" + "}" * 2002


def with_memory(namespace):
    body = vm("bad", nic(model="e1000e"), namespace=namespace, run_strategy="Halted")
    body["spec"]["template"]["spec"]["domain"]["memory"]["guest"] = "1e3000000"
    return body


def with_record(namespace):
    body = vm("bad", nic("fast", binding="sriov", network="fast"), namespace=namespace, run_strategy="Halted")
    body["metadata"]["annotations"] = {"vmnic.dev/assigned": DEEP}
    return body


def with_config(namespace):
    return nad("bad", namespace=namespace) | {"spec": {"config": "[" * 5000}}


@pytest.fixture
def ready(cluster, pool, policy, namespace):
    """A pool with VFs, a segment over bridge and VFs, and a policy that prefers VFs."""
    pool()
    wait_for("there are VFs", lambda: all(cluster.pf(node).get("numVfs") == 7 for node in ("n1", "n2")))
    cluster.api.create(nad("fast", namespace=namespace, cni="sriov", resource="vmnic.dev/fast", segment="blue"))
    cluster.api.create(nad("br", namespace=namespace, segment="blue"))
    return policy(f"p-{namespace}", namespace, datapaths=["sriov", "vhost"])


@pytest.mark.parametrize("make", [with_memory, with_record, with_config], ids=["a quantity", "a record", "a CNI configuration"])
def test_hostile_objects_affect_no_other(cluster, ready, namespace, make):
    held = lease(cluster)
    bad = make(namespace)
    cluster.api.create(bad, "?dryRun=All")
    cluster.api.create(bad)

    def gets_a_vf(name):
        """Return whether a new VM gets a VF at admission."""
        cluster.api.create(vm(name, nic("br", binding="bridge", network="br"), namespace=namespace, run_strategy="Halted"))
        found = cluster.api.get("VirtualMachine", name, namespace)["spec"]["template"]["spec"]["domain"]["devices"]
        return "sriov" in found["interfaces"][0]

    def decided():
        """Return the number of NICs on VFs in the leader's decisions."""
        return cluster.api.get("VmNicPolicy", ready)["status"].get("nicsByDatapath", {}).get("sriov", 0)

    before = decided()
    assert gets_a_vf("good")
    wait_for("the leader has decided about it", lambda: decided() > before)
    assert gets_a_vf("other")
    assert (lease(cluster), cluster.processes.running("controller-1")) == (held, True)
    assert datapaths(cluster, namespace, "good") == datapaths(cluster, namespace, "other")


def test_controller_starts_with_hostile_objects_present(cluster, ready, namespace):
    for make in (with_memory, with_config):
        cluster.api.create(make(namespace))
    cluster.kill("controller-1")
    cluster.start_controller()
    wait_for("it leads again", lambda: "controller-1" in lease(cluster)[0])
    cluster.wait_for_webhook()
    cluster.api.create(vm("good", nic("br", binding="bridge", network="br"), namespace=namespace, run_strategy="Halted"))
    wait_for("the VM is decided", lambda: cluster.api.get("VmNicPolicy", ready)["status"]["vms"].get("matched", 0) >= 1)
    assert cluster.processes.running("controller-1")
