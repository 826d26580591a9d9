"""VMs in a cluster.

They are patched at admission through the Service and validated by KubeVirt, and their pods ask for the VF.
"""

import pytest

from tests.builders.vm import nic, vm
from tests.cluster.machines import instance_of, interfaces, launcher_of, machine_of, requests_of
from tests.harness.api import ApiFailure, wait_for
from tests.harness.cluster import ROOT

from .pods import RESOURCE

_EXAMPLES = ROOT / "examples"


def _apply(cluster, *names):
    cluster.kubectl("apply", *(word for name in names for word in ("-f", _EXAMPLES / f"{name}.yaml")))


@pytest.fixture(scope="module", autouse=True)
def tenants(cluster):
    _apply(cluster, "namespace", "networks/fast", "networks/segment", "policies/tenants", "policies/databases")
    for policy in ("tenants", "databases"):
        wait_for(f"the policy {policy} is known", lambda policy=policy: cluster.api.get("VmNicPolicy", policy).get("status"))
    yield
    cluster.kubectl("delete", "vnp", "--all")
    for machine in cluster.api.list("VirtualMachine", "tenants"):
        cluster.api.delete("VirtualMachine", machine["metadata"]["name"], "tenants")
    wait_for("the VMs are gone", lambda: cluster.api.list("VirtualMachine", "tenants") == [], 60)


def test_a_new_vm_is_patched_at_creation(cluster):
    _apply(cluster, "vms/web")
    assert interfaces(machine_of(cluster, "tenants", "web"))[0]["model"] == "virtio"


def test_kubevirt_validates_the_vm(cluster):
    with pytest.raises(ApiFailure) as refused:
        cluster.api.patch(
            "VirtualMachine", "web",
            [{"op": "replace", "path": "/spec/template/spec/domain/devices/interfaces/0/model", "value": "vmxnet3"}], "tenants",
        )  # fmt: skip
    assert refused.value.status == 422


def test_the_pod_of_a_vm_on_the_pools_network_asks_for_a_vf(cluster):
    _apply(cluster, "vms/db")
    launcher = wait_for("its pod is made", lambda: launcher_of(cluster, "tenants", "db"))
    assert requests_of(launcher)[RESOURCE] == "1"
    assert not instance_of(cluster, "tenants", "db"), "no node here runs virtual machines"


def test_a_vm_with_a_vf_has_it_in_its_spec_and_its_pod(cluster):
    labels = {"tier": "database"}
    cluster.api.create(vm("ledger", nic("data", binding="bridge", network="blue", model="virtio"), labels=labels))
    machine = machine_of(cluster, "tenants", "ledger")
    assert "sriov" in interfaces(machine)[0]
    assert machine["spec"]["template"]["spec"]["networks"][0]["multus"]["networkName"] == "blue-vf"
    launcher = wait_for("its pod is made", lambda: launcher_of(cluster, "tenants", "ledger"))
    assert requests_of(launcher)[RESOURCE] == "1"
