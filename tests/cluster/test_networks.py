"""Networks of pools are maintained where they are requested, never adopted, and not taken from VMs."""

import json

import pytest

from tests.builders.vm import nad, nic, vm
from tests.harness.api import ApiFailure, wait_for

UID = "vmnic.dev/pool-uid"


def network(cluster, namespace, name="fast"):
    return cluster.api.get("NetworkAttachmentDefinition", name, namespace)


def problems(cluster):
    return {
        one["reason"]: one["message"]
        for one in cluster.api.get("SriovNetworkPool", "fast").get("status", {}).get("problems", [])
    }


@pytest.fixture
def tenants(cluster, namespace):
    cluster.api.merge("Namespace", namespace, {"metadata": {"labels": {"tenants": "yes"}}})
    return namespace


@pytest.fixture
def fast(cluster, pool, tenants):
    wanted = {"name": "fast", "namespaceSelector": {"matchLabels": {"tenants": "yes"}}, "segment": "blue", "vlan": 100}
    pool(networks=[wanted], rollout={"paused": True})
    return wanted


def test_network_is_maintained_where_it_is_requested(cluster, fast, tenants):
    found = wait_for("it is there", lambda: network(cluster, tenants))
    assert found["metadata"]["labels"]["vmnic.dev/segment"] == "blue"
    uid = cluster.api.get("SriovNetworkPool", "fast")["metadata"]["uid"]
    assert found["metadata"]["annotations"] == {"k8s.v1.cni.cncf.io/resourceName": "vmnic.dev/fast", UID: uid}
    assert json.loads(found["spec"]["config"])["vlan"] == 100
    assert network(cluster, "default") is None
    cluster.api.delete("NetworkAttachmentDefinition", "fast", tenants)
    wait_for("it is made again", lambda: network(cluster, tenants))
    cluster.api.merge("NetworkAttachmentDefinition", "fast", {"spec": {"config": "{}"}}, tenants)
    wait_for("it is put right", lambda: json.loads(network(cluster, tenants)["spec"]["config"]).get("vlan") == 100)


def test_network_follows_the_namespace_selector(cluster, fast, tenants):
    cluster.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "late", "labels": {"tenants": "yes"}}})
    wait_for("it is there", lambda: network(cluster, "late"))
    cluster.api.merge("Namespace", "late", {"metadata": {"labels": {"tenants": None}}})
    wait_for("it is gone", lambda: network(cluster, "late") is None)
    cluster.api.delete("Namespace", "late")


def test_foreign_network_is_never_adopted(cluster, fast, tenants):
    cluster.api.create(nad("mine", namespace=tenants, cni="bridge"))
    before = network(cluster, tenants, "mine")["metadata"]["resourceVersion"]
    cluster.api.merge("SriovNetworkPool", "fast", {"spec": {"networks": [fast | {"name": "mine"}]}})
    wait_for("it is said", lambda: f"{tenants}/mine" in problems(cluster).get("NadExists", ""))
    cluster.api.delete("SriovNetworkPool", "fast")
    wait_for("the pool is gone", lambda: cluster.api.get("SriovNetworkPool", "fast") is None)
    assert network(cluster, tenants, "mine")["metadata"]["resourceVersion"] == before


def test_label_does_not_make_a_network_the_pools(cluster, fast, tenants):
    for number in range(12):
        labelled = nad(f"mine-{number}", namespace=tenants, cni="bridge")
        labelled["metadata"]["labels"]["vmnic.dev/pool"] = "fast"
        cluster.api.create(labelled)
    nics = [nic(f"n{number}", binding="bridge", network=f"mine-{number}") for number in range(12)]
    cluster.api.create(vm("db", *nics, namespace=tenants, run_strategy="Halted"))
    wait_for("the pool's own is there", lambda: network(cluster, tenants))
    cluster.api.delete("SriovNetworkPool", "fast")
    wait_for("the pool is gone", lambda: cluster.api.get("SriovNetworkPool", "fast") is None)
    assert network(cluster, tenants) is None
    assert all(network(cluster, tenants, f"mine-{number}") for number in range(12))


def test_other_clients_cannot_create_a_network_as_the_pools(cluster, fast, tenants):
    mine = nad("mine", namespace=tenants, cni="bridge")
    mine["metadata"]["annotations"][UID] = cluster.api.get("SriovNetworkPool", "fast")["metadata"]["uid"]
    with pytest.raises(ApiFailure, match="ValidatingAdmissionPolicy 'vmnic-networks'"):
        cluster.api.create(mine)


@pytest.mark.parametrize("name", ["mine", "fast"], ids=["added", "changed"])
def test_other_clients_cannot_make_a_network_the_pools(cluster, fast, tenants, name):
    wait_for("it is there", lambda: network(cluster, tenants))
    cluster.api.create(nad("mine", namespace=tenants, cni="bridge"))
    with pytest.raises(ApiFailure, match="ValidatingAdmissionPolicy 'vmnic-networks'"):
        cluster.api.merge("NetworkAttachmentDefinition", name, {"metadata": {"annotations": {UID: "another"}}}, tenants)


def test_network_can_be_taken_over_by_removing_the_annotation(cluster, fast, tenants):
    wait_for("it is there", lambda: network(cluster, tenants))
    cluster.api.merge("NetworkAttachmentDefinition", "fast", {"metadata": {"annotations": {UID: None}}}, tenants)
    wait_for("it is said", lambda: f"{tenants}/fast" in problems(cluster).get("NadExists", ""))
    cluster.api.delete("SriovNetworkPool", "fast")
    wait_for("the pool is gone", lambda: cluster.api.get("SriovNetworkPool", "fast") is None)
    assert network(cluster, tenants)


def test_network_of_a_vm_stays_and_the_vm_is_named(cluster, fast, tenants):
    wait_for("it is there", lambda: network(cluster, tenants))
    machine = vm("db", nic("data", binding="sriov", network="fast"), namespace=tenants, run_strategy="Halted")
    cluster.api.create(machine)
    cluster.api.merge("SriovNetworkPool", "fast", {"spec": {"networks": []}})
    wait_for("it is said", lambda: f"{tenants}/db" in problems(cluster).get("NadInUse", ""))
    assert network(cluster, tenants)
    cluster.api.delete("VirtualMachine", "db", tenants)
    wait_for("it is gone", lambda: network(cluster, tenants) is None, 60)
