"""Admission reviews, which never refuse a VM."""

import base64
import copy

import jsonpatch
import msgspec
import pytest

from tests.builders.vm import nad, nic, policy, pool, vm, vmi
from vmnic.api.policy import VmNicPolicy
from vmnic.api.pool import SriovNetworkPool
from vmnic.kubevirt.admission import AdmissionReviewer
from vmnic.kubevirt.gather import MachineInput
from vmnic.kubevirt.networks import read_network
from vmnic.kubevirt.pools import gather_pools
from vmnic.kubevirt.vm import decode_machine
from vmnic.policy.decision import decide
from vmnic.policy.facts import ClusterFacts
from vmnic.policy.rules import rules_of

NETWORKS = {
    name: read_network(one)
    for name, one in {
        "br": nad("br", segment="blue"),
        "fast": nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue"),
    }.items()
}
POOLS = gather_pools([SriovNetworkPool.model_validate(pool())], [], known=False)
CLUSTER = ClusterFacts(pools=POOLS, resources={one.resource_name: one for one in POOLS.values()})


def complete(machine, _namespace):
    return MachineInput(
        machine=machine,
        is_new=True,
        find_network=lambda namespace, name: NETWORKS.get(name),
        find_segment=lambda namespace, segment: NETWORKS.values(),
    )


APPLIED = [{"manager": "argocd-controller", "operation": "Apply", "fieldsV1": {"f:spec": {"f:interfaces": {}}}}]


def send(document, *policies, old=None, kind="machine", stored=None, manager="argocd-controller"):
    document = copy.deepcopy(document)
    request = {"uid": "u1", "namespace": "tenants", "object": document, "operation": "CREATE"}
    if old is not None:
        document["metadata"]["managedFields"] = APPLIED
        request |= {"operation": "UPDATE", "oldObject": old, "options": {"fieldManager": manager}}
    known = decode_machine(msgspec.json.encode(stored)) if stored is not None else None
    reviewer = AdmissionReviewer(complete, lambda found: (decide(found, {}), {}), lambda namespace, name: known)
    rules = rules_of(VmNicPolicy.model_validate(one) for one in policies)
    review = reviewer.review_machine if kind == "machine" else reviewer.review_instance
    return review(msgspec.json.encode({"request": request}), rules, CLUSTER)["response"]


def patch_of(answer):
    return msgspec.json.decode(base64.b64decode(answer["patch"])) if "patch" in answer else []


def admitted(document, *policies, **changes):
    """Return the object as it is stored."""
    return jsonpatch.apply_patch(document, patch_of(send(document, *policies, **changes)))


def test_a_person_may_restore_the_original():
    stored = admitted(PLAIN, TO_VF)
    assert patch_of(send(PLAIN, TO_VF, old=stored, manager="kubectl-edit")) == []


def interfaces(machine):
    return machine["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"]


def test_a_new_vms_patch_tests_before_each_change():
    answer = send(vm("v", nic(model="e1000e")), policy(existing="Leave"))
    entry = "/spec/template/spec/domain/devices/interfaces/0"
    *changes, record = patch_of(answer)
    assert changes == [
        {"op": "test", "path": f"{entry}/name", "value": "default"},
        {"op": "test", "path": f"{entry}/model", "value": "e1000e"},
        {"op": "replace", "path": f"{entry}/model", "value": "virtio"},
    ]
    assert (record["path"], answer["patchType"]) == ("/metadata/annotations", "JSONPatch")


@pytest.mark.parametrize(
    ("machine", "policies"),
    [
        (vm(), [policy()]),
        (vm("v", nic(model="e1000e")), []),
        (vm("v", nic(model="e1000e")), [policy(action="Audit")]),
        (vm("v", nic(model="e1000e")), [policy(action="Admit")]),
    ],
    ids=["a compliant VM", "no policy", "only Audit", "only Admit"],
)
def test_a_vm_without_a_change_gets_no_patch(machine, policies):
    assert send(machine, *policies) == {"uid": "u1", "allowed": True}


def test_an_unreadable_vm_is_allowed_with_a_warning():
    answer = send({"metadata": {"name": "x"}, "spec": {"template": 5}}, policy())
    assert answer["allowed"]
    assert "$.spec.template" in answer["warnings"][0]


def test_a_malformed_review_is_an_error():
    with pytest.raises(msgspec.MsgspecError):
        AdmissionReviewer(complete, lambda found: (decide(found, {}), {}), lambda namespace, name: None).review_machine(
            b"{}", (), CLUSTER
        )


TO_VF = policy(datapaths=["sriov", "vhost"], existing="Leave")
PLAIN = vm("v", nic("data", binding="bridge", network="br", model="e1000e"))
MODEL = vm("v", nic(model="e1000e"))


@pytest.mark.parametrize(("machine", "rule"), [(PLAIN, TO_VF), (MODEL, policy(existing="Leave"))], ids=["a VF", "a model"])
def test_an_assignment_survives_a_reapply_from_git(machine, rule):
    stored = admitted(machine, rule)
    again = copy.deepcopy(machine)
    again["metadata"]["annotations"] = stored["metadata"]["annotations"]
    assert interfaces(stored) != interfaces(machine)
    assert admitted(again, rule, old=stored) == stored


def test_a_replace_from_git_gets_its_assignment_back():
    stored = admitted(PLAIN, TO_VF)
    assert interfaces(admitted(PLAIN, TO_VF, old=stored)) == interfaces(stored)


def test_a_persons_edit_ends_an_assignment():
    stored = admitted(PLAIN, TO_VF)
    edited = copy.deepcopy(stored)
    interfaces(edited)[0] = {"name": "data", "bridge": {}, "model": "rtl8139"}
    assert patch_of(send(edited, TO_VF, old=stored)) == []


def test_an_assignment_no_longer_wanted_is_not_restored():
    stored = admitted(PLAIN, TO_VF)
    assert patch_of(send(PLAIN, policy(datapaths=["emulated"]), old=stored)) == []


def test_an_update_of_a_vm_never_changed_is_not_patched():
    assert patch_of(send(PLAIN, TO_VF, old=PLAIN)) == []


def test_a_pinned_mac_address_stays_pinned():
    stored = admitted(MODEL, policy(existing="Leave"))
    interfaces(stored)[0]["macAddress"] = "02:00:00:00:00:01"
    again = copy.deepcopy(MODEL)
    assert interfaces(admitted(again, policy(existing="Leave"), old=stored))[0]["macAddress"] == "02:00:00:00:00:01"


def instance(model=None, owner="v"):
    made = vmi("v", models={"default": model} if model else {"default": "virtio"})
    made["metadata"]["ownerReferences"] = [{"kind": "VirtualMachine", "name": owner}] if owner else []
    return made


def test_a_vmi_gets_model_and_queues_with_action_admit():
    machine = vm("v", nic(model="e1000e"))
    machine["spec"]["template"]["spec"]["domain"]["memory"] = {"guest": "8Gi"}
    rule = policy(action="Admit", existing="Immediately", networkPressure="High")
    devices = admitted(instance("e1000e"), rule, kind="instance", stored=machine)["spec"]["domain"]["devices"]
    assert (devices["interfaces"][0]["model"], devices["networkInterfaceMultiqueue"]) == ("virtio", True)


@pytest.mark.parametrize(
    ("made", "rule"),
    [
        (instance("e1000e"), policy(existing="Immediately")),
        (instance("e1000e"), policy(action="Admit", existing="Leave")),
        (instance("e1000e", owner=""), policy(action="Admit", existing="Immediately")),
        (instance("virtio"), policy(action="Admit", existing="Immediately")),
    ],
    ids=["only Patch", "an older VM", "an instance of its own", "as wanted"],
)
def test_other_vmis_are_not_patched(made, rule):
    assert patch_of(send(made, rule, kind="instance", stored=vm("v", nic(model="e1000e")))) == []
