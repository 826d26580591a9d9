"""Pools with one resource for each function, and VMs whose NICs are on different functions."""

import dataclasses
import json

import pytest

from tests.builders.vm import nad, nic, vm
from tests.cluster.machines import (
    datapaths,
    interfaces,
    launcher_of,
    machine_of,
    networks_of,
    requests_of,
    state_of,
    wait_until_it_runs,
)
from tests.cluster.test_cli import run
from tests.harness.api import wait_for

PORTS = {"0000:0b:00.0": "ens1f0", "0000:0b:00.1": "ens1f1"}
RESOURCES = [f"vmnic.dev/fast-{name}" for name in PORTS.values()]
NETWORKS = [f"tenant-{name}" for name in PORTS.values()]


@pytest.fixture(scope="module", autouse=True)
def ports(cluster):
    """Gives n1 two ports. n2 keeps its single one."""
    node = cluster.nodes[0]
    cluster.replace_host(dataclasses.replace(node, second_port=True))
    wait_for("both ports are reported", lambda: all(cluster.pf("n1", address) for address in PORTS))
    yield
    cluster.replace_host(node)
    wait_for("the second port is gone", lambda: cluster.pf("n1") and not cluster.pf("n1", "0000:0b:00.1"))


@pytest.fixture
def fast(cluster, pool, namespace):
    """Creates a pool with VFs on both ports, whose networks are in the namespace. Its number of VFs is given."""
    labels = {"kubernetes.io/metadata.name": namespace}
    for name in ("left", "right"):
        cluster.api.create(nad(name, namespace=namespace, segment="blue"))

    def make(count):
        wanted = {"name": "tenant", "namespaceSelector": {"matchLabels": labels}, "segment": "blue"}
        pool(resourcePerPF=True, numVfs=count, networks=[wanted])
        wait_for("the free VFs are counted", lambda: status(cluster).get("vfs", {}).get("free") == 3 * count)
        for name in NETWORKS:
            wait_for(f"the network {name} is there", lambda name=name: network(cluster, namespace, name))

    return make


@pytest.fixture
def spread(policy, namespace):
    """Creates a policy that gives the NICs of one VM VFs of different functions."""
    options = {"sriov": {"pool": "fast", "spread": "PerPf"}, "liveMigration": "NotNeeded"}
    return lambda: policy(f"p-{namespace}", namespace, datapaths=["sriov", "vhost"], **options)


def status(cluster):
    return cluster.api.get("SriovNetworkPool", "fast").get("status", {})


def network(cluster, namespace, name):
    return cluster.api.get("NetworkAttachmentDefinition", name, namespace)


def bonded(namespace, name="v", node=""):
    """Return a VM with a NIC on the pod network and two that are to be VFs."""
    pair = [nic(one, binding="bridge", network=one, model="e1000e") for one in ("left", "right")]
    machine = vm(name, nic(), *pair, namespace=namespace)
    if node:
        machine["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node}
    return machine


def networks_in_spec(machine):
    return [one["multus"]["networkName"] for one in machine["spec"]["template"]["spec"]["networks"] if "multus" in one]


def excluded(cluster, namespace, name="v"):
    """Return why NICs of a VM do not get a VF, by NIC."""
    code, out, err = run(cluster, "explain", "vm", name, "-n", namespace, "-o", "json")
    assert (code, err) == (0, "")
    return {
        one["name"]: (candidate["reason"], candidate["message"])
        for one in json.loads(out)["nics"]
        for candidate in one["candidates"]
        if candidate["datapath"] == "sriov" and candidate.get("reason")
    }


def test_each_function_has_its_own_resource_and_network(cluster, fast, namespace):
    fast(2)
    assert status(cluster)["resourceNames"] == RESOURCES
    found = [network(cluster, namespace, name)["metadata"] for name in NETWORKS]
    assert [one["annotations"]["k8s.v1.cni.cncf.io/resourceName"] for one in found] == RESOURCES
    assert {one["labels"]["vmnic.dev/segment"] for one in found} == {"blue"}
    assert network(cluster, namespace, "tenant") is None


def test_nics_of_one_vm_get_vfs_of_different_functions(cluster, fast, spread, namespace):
    fast(2)
    spread()
    cluster.api.create(bonded(namespace))
    machine = machine_of(cluster, namespace)
    assert (datapaths(cluster, namespace), networks_in_spec(machine)) == ([None, "sriov", "sriov"], NETWORKS)
    assert [one["name"] for one in interfaces(machine)] == ["default", "left", "right"]
    pod = wait_for("its pod is there", lambda: launcher_of(cluster, namespace))
    assert networks_of(pod) == NETWORKS
    assert {name: count for name, count in requests_of(pod).items() if name.startswith("vmnic.dev/")} == dict.fromkeys(
        RESOURCES, "1"
    )
    assert wait_until_it_runs(cluster, namespace)["status"]["nodeName"] == "n1"
    for address in PORTS:
        wait_for(f"a VF of {address} is in use", lambda address=address: len(cluster.pf("n1", address).get("held", [])) == 1)
    wait_for("the pool counts them", lambda: status(cluster)["vfs"].get("assigned") == 2)
    wait_for(
        "the VM's status names them",
        lambda: [one["now"].get("resource") for one in state_of(cluster, namespace).get("nics", [])][1:] == RESOURCES,
    )


def test_node_with_one_function_has_no_vf_for_the_second_nic(cluster, fast, spread, namespace):
    fast(2)
    spread()
    cluster.api.create(bonded(namespace, node="n2"))
    assert (datapaths(cluster, namespace), wait_until_it_runs(cluster, namespace)["status"]["nodeName"]) == (
        [None, "sriov", "virtio"],
        "n2",
    )
    text = "no node that the VM can run on has free VFs on 2 functions of pool fast"
    wait_for("it is explained", lambda: text in excluded(cluster, namespace).get("right", ("", ""))[1])
    assert {name: reason for name, (reason, _) in excluded(cluster, namespace).items() if name != "default"} == {
        "right": "NoFreeVf"
    }
    told = wait_for("the tenant is told", lambda: state_of(cluster, namespace).get("nics"))
    assert told[2]["candidates"] == [{"datapath": "sriov", "reason": "NoFreeVf"}]


def test_second_vm_does_not_bond_where_functions_are_full(cluster, fast, spread, namespace):
    fast(1)
    spread()
    for name in ("first", "second"):
        cluster.api.create(bonded(namespace, name))
        wait_until_it_runs(cluster, namespace, name)
    assert datapaths(cluster, namespace, "first") == [None, "sriov", "sriov"]
    # The VF of n2 is left for one NIC.
    assert datapaths(cluster, namespace, "second") == [None, "sriov", "virtio"]
    assert networks_in_spec(machine_of(cluster, namespace, "second")) == ["tenant-ens1f0", "right"]
