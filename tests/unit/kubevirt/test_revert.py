"""A VM that policies have changed gets its original NICs back."""

import copy

import jsonpatch
import msgspec
import pytest

from tests.builders.decide import apply_patches
from tests.builders.vm import kubevirt, nad, nic, node_state, policy, pool, vm
from vmnic.kubevirt.revert import EXCLUDE, render_revert
from vmnic.kubevirt.vm import decode_machine


def two_functions():
    """Return a node with two whole NICs."""
    node = node_state("n2", pool="whole", vfs=0, function="Physical")
    for half in (node["spec"], node["status"]):
        half["pfs"].append(half["pfs"][0] | {"pciAddress": "0000:0c:00.0"})
    return node


CLUSTER = [
    nad("br", segment="blue"),
    nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue"),
    nad("tap", cni="macvtap", resource="macvtap.network.kubevirt.io/x", segment="blue"),
    kubevirt(permitted=["vmnic.dev/whole"]),
    pool(),
    pool("whole", function="Physical"),
    node_state(),
    two_functions(),
]


def web(*nics, devices=None):
    machine = vm("web", *nics, run_strategy="Halted")
    machine["spec"]["template"]["spec"]["domain"]["devices"] |= devices or {}
    return machine


def changed(machine, datapath):
    accepted = ["PropertyNotCarried/bootOrder"]
    wanted = policy(datapaths=[datapath], passthrough={"pool": "whole"}, accept=accepted)
    return next(one for one in apply_patches([machine, wanted, *CLUSTER]) if one["kind"] == "VirtualMachine")


def reverted(machine):
    return jsonpatch.apply_patch(machine, render_revert(decode_machine(msgspec.json.encode(machine))))


def bridge(name, **fields):
    return nic(name, binding="bridge", network="br", model="e1000e", **fields)


@pytest.mark.parametrize("datapath", ["vhost", "macvtap", "sriov", "passthrough"])
def test_a_nic_is_restored_and_its_vm_is_excluded(datapath):
    original = web(nic("a", model="virtio"), bridge("data", bootOrder=2))
    back = reverted(changed(original, datapath))
    assert not back["spec"]["template"]["spec"]["domain"]["devices"].pop("hostDevices", [])
    assert back["spec"]["template"] == original["spec"]["template"]
    assert back["metadata"]["annotations"] == {EXCLUDE: "true"}


@pytest.mark.parametrize("others", [(), (nic("z", model="virtio"),)], ids=["alone", "beside another"])
def test_two_whole_nics_are_both_restored(others):
    original = web(bridge("a"), bridge("b", bootOrder=1), *others)
    given = changed(original, "passthrough")
    assert len(given["spec"]["template"]["spec"]["domain"]["devices"]["hostDevices"]) == 2
    spec = reverted(given)["spec"]["template"]["spec"]
    before = original["spec"]["template"]["spec"]
    assert spec["domain"]["devices"]["hostDevices"] == []
    for now, then in (
        (spec["domain"]["devices"]["interfaces"], before["domain"]["devices"]["interfaces"]),
        (spec["networks"], before["networks"]),
    ):
        assert sorted(now, key=lambda one: one["name"]) == sorted(then, key=lambda one: one["name"])


def test_a_foreign_host_device_stays():
    original = web(bridge("data"), devices={"hostDevices": [{"name": "gpu", "deviceName": "x/gpu"}]})
    back = reverted(changed(original, "passthrough"))
    assert back["spec"]["template"]["spec"]["domain"]["devices"]["hostDevices"] == [{"name": "gpu", "deviceName": "x/gpu"}]


def test_a_nic_edited_since_its_change_is_not_restored():
    edited = copy.deepcopy(changed(web(bridge("data")), "vhost"))
    edited["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0]["model"] = "rtl8139"
    assert reverted(edited)["spec"] == edited["spec"]


def test_a_vm_that_was_never_changed_gets_no_patch():
    assert render_revert(decode_machine(msgspec.json.encode(web(bridge("data"))))) == []


def edited(machine, **fields):
    """Return a VM whose first NIC a person has edited. A value of None removes a field."""
    found = copy.deepcopy(machine)
    entry = found["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0]
    found["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0] = {
        key: value for key, value in (entry | fields).items() if value is not None
    }
    return found


@pytest.mark.parametrize(
    ("datapath", "fields"),
    [
        ("sriov", {"sriov": None, "bridge": {}}),
        ("sriov", {"sriov": None, "binding": {"name": "l2bridge"}}),
        ("macvtap", {"binding": {"name": "passt"}}),
        ("macvtap", {"binding": None, "sriov": {}, "model": None}),
        ("macvtap", {"binding": None, "bridge": {}}),
        ("macvtap", {"model": "e1000e"}),
    ],
    ids=["a bridge", "a plugin", "another plugin", "a VF", "bridge for macvtap", "a model"],
)
def test_a_later_binding_of_a_person_stays(datapath, fields):
    given = edited(changed(web(bridge("data")), datapath), **fields)
    assert reverted(given)["spec"] == given["spec"]


@pytest.mark.parametrize("datapath", ["sriov", "macvtap"])
def test_a_later_network_of_a_person_stays(datapath):
    given = copy.deepcopy(changed(web(bridge("data")), datapath))
    given["spec"]["template"]["spec"]["networks"][0]["multus"]["networkName"] = "other"
    assert reverted(given)["spec"] == given["spec"]


@pytest.mark.parametrize("datapath", ["sriov", "macvtap", "vhost"])
def test_later_settings_of_a_person_stay(datapath):
    later = {"bootOrder": 3, "macAddress": "02:00:00:00:00:09", "tag": "t", "fieldOfTomorrow": {"a": 1}}
    back = reverted(edited(changed(web(bridge("data", bootOrder=2, acpiIndex=4)), datapath), acpiIndex=None, **later))
    (entry,) = back["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"]
    assert entry == {"name": "data", "bridge": {}, "model": "e1000e", **later}


@pytest.mark.parametrize("state", ["up", None])
def test_a_state_that_a_vf_cannot_have_comes_back(state):
    original = web(bridge("data", **({"state": state} if state else {})))
    assert reverted(changed(original, "sriov"))["spec"]["template"] == original["spec"]["template"]


@pytest.mark.parametrize("generation", [0, 7])
def test_a_revert_of_a_vm_that_changed_meanwhile_is_refused(generation):
    given = changed(web(bridge("data")), "passthrough")
    given["metadata"] |= {"generation": generation} if generation else {}
    patch = render_revert(decode_machine(msgspec.json.encode(given)))
    assert ({"op": "test", "path": "/metadata/generation", "value": 7} in patch) is bool(generation)
