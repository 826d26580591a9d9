"""Patches for every change of datapath and back, next to other fields of the entries."""

import json

import jsonpatch
import pytest

from tests.builders.decide import apply_patches, decision, patches
from tests.builders.vm import kubevirt, nad, nic, node_state, policy, pool, vm, vmi

NETWORKS = [
    nad("br", segment="blue"),
    nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue"),
    nad("tap", cni="macvtap", resource="macvtap.network.kubevirt.io/x", segment="blue"),
]
CLUSTER = [*NETWORKS, kubevirt(permitted=["vmnic.dev/whole"]), pool(), pool("whole", function="Physical"), node_state()]
CLUSTER += [node_state("n2", pool="whole", vfs=0, function="Physical")]

SWITCH = "/spec/template/spec/domain/devices/networkInterfaceMultiqueue"


def wanting(datapath):
    accepted = ["PropertyNotCarried/bootOrder", "PropertyNotCarried/dhcpOptions"]
    return policy(datapaths=[datapath], existing="Immediately", passthrough={"pool": "whole"}, accept=accepted)


def web(**fields):
    first, second = nic("a"), nic("data", binding="bridge", network="br", model="e1000e", **fields)
    return vm("web", first, second, run_strategy="Halted")


def made(documents):
    return next(one for one in documents if one["kind"] == "VirtualMachine")


def entries(machine):
    spec = machine["spec"]["template"]["spec"]
    return spec["domain"]["devices"], spec["networks"]


def run(machine, datapath, *more):
    return made(apply_patches([machine, wanting(datapath), *CLUSTER, *more]))


@pytest.mark.parametrize(
    ("datapath", "entry", "network"),
    [
        ("vhost", {"bridge": {}, "model": "virtio"}, "br"),
        ("sriov", {"sriov": {}}, "fast"),
        ("macvtap", {"binding": {"name": "macvtap"}, "model": "virtio"}, "tap"),
    ],
)
def test_an_entry_is_changed_in_place_and_keeps_other_fields(datapath, entry, network):
    rest = {"bootOrder": 2, "macAddress": "02:00:00:00:00:01", "tag": "t"}
    devices, networks = entries(run(web(**rest), datapath))
    assert devices["interfaces"][1] == {"name": "data", **entry, **rest}
    assert networks[1] == {"name": "data", "multus": {"networkName": network}}


@pytest.mark.parametrize("default", ["masquerade", "bridge", None])
def test_the_default_nic_is_written_with_kubevirts_binding(default):
    network = {"binding": {}} | ({"defaultNetworkInterface": default} if default else {})
    machine = vm("web", os="windows", run_strategy="Halted")
    machine["spec"]["template"]["spec"] = {"domain": {"devices": {}}}
    devices, networks = entries(made(apply_patches([machine, wanting("emulated"), kubevirt(network=network)])))
    assert devices["interfaces"] == [{"name": "default", default or "bridge": {}, "model": "e1000e"}]
    assert networks == [{"name": "default", "pod": {}}]


def test_a_whole_nic_replaces_interface_and_network():
    devices, networks = entries(run(web(), "passthrough"))
    assert devices["hostDevices"] == [{"name": "data", "deviceName": "vmnic.dev/whole"}]
    assert ([one["name"] for one in devices["interfaces"]], [one["name"] for one in networks]) == (["a"], ["a"])


def test_the_default_nic_is_disabled_if_no_interface_is_left():
    machine = vm("web", nic("data", binding="bridge", network="br"), run_strategy="Halted")
    devices, _ = entries(run(machine, "passthrough"))
    assert (devices["interfaces"], devices["autoattachPodInterface"]) == ([], False)


@pytest.mark.parametrize("there", ["sriov", "macvtap", "passthrough", "vhost"])
@pytest.mark.parametrize("then", ["sriov", "macvtap", "passthrough", "vhost"])
def test_two_changes_in_any_order_keep_the_first_original(there, then):
    machine = run(run(web(bootOrder=2), there), then)
    found = decision(machine, wanting(then), *CLUSTER).nics[-1]
    assert (found.nic.name, found.verdict, found.nic.present.datapath) == ("data", "Compliant", then)
    record = json.loads(machine["metadata"]["annotations"]["vmnic.dev/assigned"])["nics"]["data"]
    assert (record["datapath"], record["was"].get("model") or record["was"]["interface"]["model"]) == (then, "e1000e")


def test_a_nic_back_in_its_original_state_is_not_recorded():
    back = run(run(web(), "sriov"), "emulated")
    assert entries(back)[0]["interfaces"][1] == {"name": "data", "bridge": {}, "model": "e1000e"}
    assert '"data"' not in back["metadata"]["annotations"].get("vmnic.dev/assigned", "")


def test_a_running_nic_keeps_its_mac_address():
    machine = web()
    machine["spec"]["runStrategy"] = "Always"
    devices, _ = entries(run(machine, "sriov", vmi("web", macs={"data": "02:00:00:00:00:07"})))
    assert devices["interfaces"][1] == {"name": "data", "sriov": {}, "macAddress": "02:00:00:00:00:07"}


def test_a_network_of_another_namespace_is_qualified():
    networks = [
        nad("br", namespace="nets", segment="blue"),
        nad("afast", namespace="nets", cni="sriov", resource="vmnic.dev/fast", segment="blue"),
    ]
    machine = vm("web", nic("data", binding="bridge", network="nets/br"), run_strategy="Halted")
    _, found = entries(run(machine, "sriov", *networks))
    assert found[0]["multus"] == {"networkName": "nets/afast"}


def test_multiqueue_is_disabled_if_no_nic_can_use_it():
    machine = vm("web", nic("data", binding="bridge", network="br", model="virtio"), run_strategy="Halted")
    machine["spec"]["template"]["spec"]["domain"]["devices"]["networkInterfaceMultiqueue"] = True
    devices, _ = entries(run(machine, "sriov"))
    assert devices["networkInterfaceMultiqueue"] is False


def test_the_first_annotation_is_guarded_by_the_resource_version():
    machine = web()
    machine["metadata"]["resourceVersion"] = "7"
    guard = {"op": "test", "path": "/metadata/resourceVersion", "value": "7"}
    assert guard in patches(machine, wanting("vhost"), *CLUSTER)["web"]
    machine["metadata"]["annotations"] = {"a": "b"}
    assert guard not in patches(machine, wanting("vhost"), *CLUSTER)["web"]


@pytest.mark.parametrize("datapath", ["vhost", "sriov", "macvtap", "passthrough"])
def test_a_change_of_the_spec_meanwhile_refuses_the_patch(datapath):
    machine = web()
    machine["metadata"]["generation"] = 7
    patch = patches(machine, wanting(datapath), *CLUSTER)["web"]
    assert patch[0] == {"op": "test", "path": "/metadata/generation", "value": 7}
    jsonpatch.apply_patch(machine, patch)
    machine["metadata"]["generation"] = 8
    with pytest.raises(jsonpatch.JsonPatchTestFailed):
        jsonpatch.apply_patch(machine, patch)


def test_a_switch_that_nobody_has_set_is_guarded_too():
    machine = vm("web", run_strategy="Halted")
    machine["metadata"]["generation"] = 7
    patch = patches(machine, policy(networkPressure="High"), *CLUSTER)["web"]
    assert patch[0] == {"op": "test", "path": "/metadata/generation", "value": 7}
    assert {"op": "add", "path": SWITCH, "value": True} in patch


def whole(original, *accepted, datapath="passthrough"):
    """Return a VM with a whole NIC that replaced an interface."""
    wanted = policy(
        datapaths=[datapath], passthrough={"pool": "whole"}, accept=[f"PropertyNotCarried/{one}" for one in accepted]
    )
    return made(apply_patches([original, wanted, *CLUSTER]))


def decide_back(machine, datapath, *accepted):
    wanted = policy(datapaths=[datapath], accept=[f"PropertyNotCarried/{one}" for one in accepted])
    return decision(machine, wanted, *CLUSTER).nics[-1]


@pytest.mark.parametrize(
    ("setting", "value", "datapath", "reason"),
    [
        ("state", "down", "sriov", "PropertyNotCarried"),
        ("state", "down", "vhost", None),
        ("state", "down", "macvtap", None),
        ("state", "up", "sriov", None),
        ("dhcpOptions", {"tftpServerName": "t"}, "sriov", "PropertyNotCarried"),
        ("dhcpOptions", {"tftpServerName": "t"}, "vhost", None),
        ("bootOrder", 1, "sriov", None),
    ],
)
def test_a_whole_nic_keeps_what_its_interface_had(setting, value, datapath, reason):
    machine = whole(web(**{setting: value}), setting)
    found = decide_back(machine, datapath)
    assert (found.reason, setting in found.message) == (reason, reason is not None)
    assert decide_back(machine, datapath, setting).verdict == "Change"


@pytest.mark.parametrize("datapath", ["vhost", "sriov", "macvtap"])
@pytest.mark.parametrize("mac", [None, "02:00:00:00:00:07"])
def test_the_address_of_a_whole_nic_is_the_one_that_is_written(datapath, mac):
    machine = whole(web(**({"macAddress": mac} if mac else {})))
    devices, _ = entries(whole(machine, datapath=datapath))
    assert decide_back(machine, datapath).nic.spec_mac == devices["interfaces"][-1].get("macAddress") == mac


@pytest.mark.parametrize("where", ["interfaces", "networks"])
@pytest.mark.parametrize(("datapath", "reason"), [("passthrough", "PropertyNotCarried"), ("sriov", None), ("vhost", None)])
def test_a_field_of_a_newer_kubevirt_is_not_dropped(where, datapath, reason):
    machine = web()
    devices, networks = entries(machine)
    {"interfaces": devices["interfaces"], "networks": networks}[where][1]["fieldOfTomorrow"] = {"a": 1}
    found = decision(machine, wanting(datapath), *CLUSTER).nics[-1]
    assert (found.reason, "fieldOfTomorrow" in found.message) == (reason, reason is not None)
    after = entries(run(machine, datapath))
    assert {"interfaces": after[0]["interfaces"], "networks": after[1]}[where][1]["fieldOfTomorrow"] == {"a": 1}
