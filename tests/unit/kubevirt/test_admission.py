"""Admission: a review in, a review out, and never a refusal."""

import base64

import msgspec
import pytest

from tests.builders.vm import nic, policy, vm
from vmnic.api.policy import VmNicPolicy
from vmnic.kubevirt.admission import review_machine
from vmnic.kubevirt.gather import MachineInput
from vmnic.policy.facts import ClusterFacts
from vmnic.policy.rules import rules_of


def review(machine, *policies):
    raw = msgspec.json.encode({"request": {"uid": "u1", "namespace": "tenants", "object": machine}})
    rules = rules_of(VmNicPolicy.model_validate(one) for one in policies)
    answer = review_machine(
        raw, rules=rules, cluster=ClusterFacts(), complete=lambda one, namespace: MachineInput(machine=one, is_new=True)
    )
    return answer["response"]


def test_a_new_vm_is_patched_with_tests_before_each_change():
    answer = review(vm("v", nic(model="e1000e")), policy(existing="Leave"))
    entry = "/spec/template/spec/domain/devices/interfaces/0"
    assert msgspec.json.decode(base64.b64decode(answer["patch"])) == [
        {"op": "test", "path": f"{entry}/name", "value": "default"},
        {"op": "test", "path": f"{entry}/model", "value": "e1000e"},
        {"op": "add", "path": f"{entry}/model", "value": "virtio"},
    ]
    assert answer["patchType"] == "JSONPatch"


@pytest.mark.parametrize(
    ("machine", "policies"),
    [(vm(), [policy()]), (vm("v", nic(model="e1000e")), []), (vm("v", nic(model="e1000e")), [policy(action="Audit")])],
    ids=["a compliant VM", "no policy", "only Audit"],
)
def test_nothing_to_do_is_no_patch(machine, policies):
    assert review(machine, *policies) == {"uid": "u1", "allowed": True}


def test_a_vm_that_cannot_be_read_is_let_through_with_a_warning():
    answer = review({"metadata": {"name": "x"}, "spec": {"template": 5}}, policy())
    assert answer["allowed"]
    assert "$.spec.template" in answer["warnings"][0]


def test_what_is_no_review_is_an_error():
    with pytest.raises(msgspec.MsgspecError):
        review_machine(b"{}", rules=(), cluster=ClusterFacts(), complete=lambda one, namespace: MachineInput(machine=one))
