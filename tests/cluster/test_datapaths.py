"""Every datapath of a running VM.

KubeVirt's launcher pod requests the devices that were decided.
"""

import functools
import threading

import pytest

from tests.builders.vm import nic, vm
from tests.cluster.machines import (
    datapaths,
    in_namespace,
    instance_of,
    interfaces,
    launcher_of,
    machine_of,
    make_networks,
    networks_of,
    requests_of,
    state_of,
    wait_until_it_runs,
)
from tests.harness.api import wait_for


@pytest.fixture
def networks(cluster, namespace):
    make_networks(cluster, namespace)


def two_nics(namespace, name="v", **options):
    return vm(name, nic(), nic("data", binding="bridge", network="br", model="e1000e"), namespace=namespace, **options)


def with_vfs(cluster, count, *nodes):
    wait_for(f"there are {count} VFs", lambda: all(cluster.pf(node).get("numVfs") == count for node in nodes))
    wait_for(
        "they are counted",
        lambda: cluster.api.get("SriovNetworkPool", "fast").get("status", {}).get("vfs", {}).get("free") == count * len(nodes),
    )


def prefer(policy, namespace, *datapaths_, **spec):
    return policy(f"p-{namespace}", namespace, datapaths=list(dict.fromkeys(datapaths_)), **spec)


@pytest.mark.parametrize(
    ("datapath", "spec", "network", "resource"),
    [
        ("sriov", "sriov", "fast", "vmnic.dev/fast"),
        ("macvtap", "macvtap", "tap", "macvtap.network.kubevirt.io/ens1f0"),
        ("vhost", "virtio", "br", "devices.kubevirt.io/vhost-net"),
    ],
)
def test_launcher_pod_requests_what_was_decided(cluster, pool, policy, namespace, networks, datapath, spec, network, resource):
    pool()
    with_vfs(cluster, 7, "n1", "n2")
    prefer(policy, namespace, datapath, "vhost", liveMigration="NotNeeded")
    cluster.api.create(two_nics(namespace))
    assert datapaths(cluster, namespace) == [None, spec]
    pod = wait_for("its pod is there", lambda: launcher_of(cluster, namespace))
    assert (networks_of(pod), requests_of(pod)[resource]) == ([network], "1")
    wait_until_it_runs(cluster, namespace)


def test_whole_nic_is_requested_by_the_pools_resource(cluster, pool, policy, namespace, networks):
    pool("whole", function="Physical", numVfs=None)
    wait_for("n1 and n2 have a whole NIC", lambda: all(cluster.pf(node).get("driver") == "vfio-pci" for node in ("n1", "n2")))
    wait_for("they are counted", lambda: cluster.api.get("SriovNetworkPool", "whole")["status"]["vfs"].get("free") == 2)
    prefer(policy, namespace, "passthrough", passthrough={"pool": "whole"})
    cluster.api.create(two_nics(namespace))
    devices = machine_of(cluster, namespace)["spec"]["template"]["spec"]["domain"]["devices"]
    assert devices["hostDevices"] == [{"name": "data", "deviceName": "vmnic.dev/whole"}]
    pod = wait_for("its pod is there", lambda: launcher_of(cluster, namespace))
    assert requests_of(pod)["vmnic.dev/whole"] == "1"
    cluster.api.delete("VirtualMachine", "v", namespace)


def test_vfs_are_assigned_while_free_and_the_vm_reports_it(cluster, pool, policy, namespace, networks):
    pool(numVfs=1)
    with_vfs(cluster, 1, "n1", "n2")
    prefer(policy, namespace, "sriov", "vhost")
    for number in range(3):
        name = f"v{number}"
        cluster.api.create(two_nics(namespace, name))
        wait_until_it_runs(cluster, namespace, name)
    assert [datapaths(cluster, namespace, f"v{number}")[1] for number in range(3)] == ["sriov", "sriov", "virtio"]
    wait_for("the pool counts them", lambda: cluster.api.get("SriovNetworkPool", "fast")["status"]["vfs"]["assigned"] == 2)
    found = wait_for("the first is told", lambda: state_of(cluster, namespace, "v0"))
    (data,) = (one for one in found["nics"] if one["name"] == "data")
    assert (data["now"]["resource"], data["original"]) == ("vmnic.dev/fast", "bridge e1000e on br")
    owner = cluster.api.get("VmNicState", "v0", namespace)["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["uid"]) == ("VirtualMachine", machine_of(cluster, namespace, "v0")["metadata"]["uid"])


def test_vf_assigned_twice_is_taken_back_before_the_vm_starts(cluster, pool, policy, namespace, networks):
    pool(numVfs=1)
    with_vfs(cluster, 1, "n1", "n2")
    prefer(policy, namespace, "sriov", "vhost")
    cluster.start_controller("controller-2")
    try:
        wait_for("two replicas answer", lambda: "the webhook serves" in cluster.processes.log("controller-2"))
        names = [f"v{number}" for number in range(6)]
        threads = [threading.Thread(target=cluster.api.create, args=(two_nics(namespace, name),)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # KubeVirt waits a while before it restarts a VM that has never run.
        for name in names:
            wait_for(f"{name} runs", functools.partial(instance_of, cluster, namespace, name), 90)
        held = [name for name in names if datapaths(cluster, namespace, name)[1] == "sriov"]
        assert len(held) == 2
    finally:
        cluster.kill("controller-2")


def test_deleted_policy_leaves_vms_unchanged(cluster, pool, policy, namespace, networks):
    pool()
    with_vfs(cluster, 7, "n1", "n2")
    name = prefer(policy, namespace, "sriov", "vhost")
    cluster.api.create(two_nics(namespace))
    before = wait_until_it_runs(cluster, namespace)["metadata"]["uid"]
    cluster.api.delete("VmNicPolicy", name)
    wait_for("it is no longer decided", lambda: state_of(cluster, namespace).get("summary") == "2 NotSelected")
    assert (datapaths(cluster, namespace), instance_of(cluster, namespace)["metadata"]["uid"]) == ([None, "sriov"], before)


def test_running_vm_keeps_its_mac_address_when_moved_to_a_vf(cluster, pool, policy, namespace, networks):
    pool()
    with_vfs(cluster, 7, "n1", "n2")
    cluster.api.create(two_nics(namespace))
    live = wait_until_it_runs(cluster, namespace)
    prefer(policy, namespace, "sriov", "vhost", existing="Immediately")
    wait_for(
        "its spec is changed",
        lambda: datapaths(cluster, namespace) == ["virtio", "sriov"] or datapaths(cluster, namespace)[1] == "sriov",
    )
    macs = {one["name"]: one["mac"] for one in live["status"]["interfaces"]}
    assert interfaces(machine_of(cluster, namespace))[1]["macAddress"] == macs["data"]


def is_asked(cluster, machine, webhook):
    """Return whether the API server calls a webhook, which it does only after a moment."""
    cluster.api.create(machine, "?dryRun=All")
    return webhook.seen


def test_other_webhooks_may_run_before_and_after(cluster, policy, namespace):
    from tests.harness.webhook import TestWebhook

    def prepend(machine):
        """Insert another NIC before the others, once."""
        if any(one["name"] == "first" for one in interfaces(machine)):
            return []
        spec = "/spec/template/spec"
        return [
            {
                "op": "add",
                "path": f"{spec}/domain/devices/interfaces/0",
                "value": {"name": "first", "bridge": {}, "model": "e1000"},
            },
            {"op": "add", "path": f"{spec}/networks/0", "value": {"name": "first", "multus": {"networkName": "other"}}},
        ]

    policy(f"p-{namespace}", namespace)
    for name in ("aaa", "zzz"):
        webhook = TestWebhook(cluster, name, prepend)
        try:
            machine = in_namespace(vm(name, nic(model="e1000e"), run_strategy="Halted"), namespace)
            wait_for("it is asked", functools.partial(is_asked, cluster, machine, webhook))
            cluster.api.create(machine)
            assert datapaths(cluster, namespace, name) == ["virtio", "virtio"]
        finally:
            webhook.close()
