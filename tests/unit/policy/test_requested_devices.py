"""Devices that VMs ask for by `resources`, host devices and GPUs, and what a VM needs to stay migratable."""

import copy
import pathlib

import pytest
import yaml

from tests.builders.decide import decide, told
from tests.builders.vm import kubevirt, nad, nic, node_state, policy, pool, vm, vmi
from vmnic.policy.reasons import Reason

RESOURCE = "vmnic.dev/fast"
CASE = pathlib.Path(__file__).parents[2] / "cases" / "29-vf-by-resources"
FAST = nad("fast", cni="sriov", resource=RESOURCE, segment="blue")
SCENE = (nad("br", segment="blue"), FAST, pool(), kubevirt(gates=["HostDevices"]))


def rule(*, migration="Preferred", detach=False):
    sriov = {"pool": "fast", "acceptDetach": detach}
    return policy("fast", datapaths=["sriov", "vhost"], existing="Immediately", sriov=sriov, liveMigration=migration)


def bridge(name="data"):
    return nic(name, binding="bridge", network="br", model="virtio", macAddress="02:00:00:00:00:01")


def vf(name="vf"):
    return nic(name, binding="sriov", network="fast", macAddress="02:00:00:00:00:02")


def asking(name, *nics, created="2026-01-01T00:00:00Z", limits=None, requests=None, run_strategy="Always", **devices):
    """Return a VM with NICs, `resources` and lists of devices."""
    machine = vm(name, *(nics or (nic(model="virtio"),)), run_strategy=run_strategy)
    machine["metadata"]["creationTimestamp"] = created
    domain = machine["spec"]["template"]["spec"]["domain"]
    domain["resources"] = {"limits": limits or {}, "requests": requests or {}}
    domain["devices"] |= {
        kind: [{"name": f"d{number}", "deviceName": one} for number, one in enumerate(names)] for kind, names in devices.items()
    }
    return machine


def running(machine, node="n1"):
    """Return the VM's instance on a node."""
    instance = vmi(machine["metadata"]["name"])
    instance["spec"] = copy.deepcopy(machine["spec"]["template"]["spec"])
    instance["status"]["nodeName"] = node
    return instance


def first(name, *documents, rules=None):
    """Return the candidates of the first NIC of a VM."""
    found = decide(*SCENE, *(rules or [rule()]), *documents).vms
    return told(next(one for one in found if one.vm.name == name).nics[0])[0]


def nics(name, *documents, rules=None):
    found = decide(*SCENE, *(rules or [rule()]), *documents).vms
    return [told(one)[0] for one in next(one for one in found if one.vm.name == name).nics]


@pytest.mark.parametrize(("beside", "free"), [(None, True), ("by-resources.yaml", False), ("by-hostdevice.yaml", False)])
def test_vfs_asked_for_in_other_ways_are_not_given_away(beside, free):
    files = [CASE / "base.yaml", *([CASE / beside] if beside else [])]
    documents = [one for file in files for one in yaml.safe_load_all(file.read_text())]
    (wants,) = [one for one in decide(*documents, offline=True).vms if one.vm.name == "wants"]
    assert told(wants.nics[1])[0] == ("sriov", None if free else "NoFreeVf")


WANTS = asking("wants", bridge(), created="2026-06-01T00:00:00Z")


@pytest.mark.parametrize(
    ("other", "vfs", "reason"),
    [
        (asking("a", limits={RESOURCE: "2"}, requests={RESOURCE: "2"}), 3, None),
        (asking("a", limits={RESOURCE: "2"}), 2, "NoFreeVf"),
        (asking("a", requests={RESOURCE: 2}), 2, "NoFreeVf"),
        (asking("a", vf(), limits={RESOURCE: "2"}), 2, "NoFreeVf"),
        (asking("a", vf(), vf("w"), limits={RESOURCE: "1"}), 2, None),
        (asking("a", vf(), hostDevices=[RESOURCE]), 2, "NoFreeVf"),
        (asking("a", gpus=[RESOURCE]), 1, "NoFreeVf"),
        (asking("a", hostDevices=["vendor.example/gpu"], limits={"vendor.example/gpu": "1"}), 1, None),
        (asking("a", hostDevices=[RESOURCE], run_strategy="Halted"), 1, None),
    ],
    ids=[
        "one is left", "limits", "requests", "resources replace the number of NICs", "also a smaller number", "a host device beside a NIC",
        "a GPU", "another device", "a stopped VM holds none",
    ],
)  # fmt: skip
def test_a_pod_gets_what_resources_or_devices_ask_for(other, vfs, reason):
    assert first("wants", WANTS, other, node_state(vfs=vfs)) == ("sriov", reason)


def test_devices_of_a_running_vm_are_counted_on_its_node():
    other = asking("a", limits={RESOURCE: "2"})
    stopped = copy.deepcopy(other)
    del stopped["spec"]["template"]["spec"]["domain"]["resources"]
    # The devices leave at the VM's next start, and until then the kubelet has none to give.
    assert first("wants", WANTS, stopped, running(other), node_state(vfs=2)) == ("sriov", "NoFreeVf")
    assert first("wants", WANTS, other, running(other), node_state(vfs=2), node_state("n2", vfs=1)) == ("sriov", None)


def test_an_instancetypes_devices_are_counted():
    kind = {"kind": "VirtualMachineClusterInstancetype", "metadata": {"name": "t"}}
    kind |= {"spec": {"cpu": {"guest": 2}, "hostDevices": [{"name": "x", "deviceName": RESOURCE}]}}
    machine = asking("a")
    machine["spec"]["instancetype"] = {"name": "t"}
    assert first("wants", WANTS, machine, kind, node_state(vfs=1)) == ("sriov", "NoFreeVf")


@pytest.mark.parametrize(
    ("machine", "found"),
    [
        (asking("a", bridge(), limits={RESOURCE: "1"}), [("sriov", None)]),
        (asking("a", bridge(), limits={RESOURCE: "0"}), [("sriov", "PropertyNotCarried")]),
        (asking("a", bridge(), vf(), limits={RESOURCE: "1"}), [("sriov", "PropertyNotCarried"), ("sriov", None)]),
        (asking("a", bridge(), bridge("more"), limits={RESOURCE: "1"}), [("sriov", None), ("sriov", "PropertyNotCarried")]),
        (asking("a", bridge(), limits={RESOURCE: "1"}, hostDevices=[RESOURCE]), [("sriov", "PropertyNotCarried")]),
        (asking("a", bridge(), limits={"vendor.example/gpu": "0"}), [("sriov", None)]),
        (asking("a", bridge(), limits={RESOURCE: "many"}), []),
        (asking("a", bridge(), limits={RESOURCE: "1"}, requests={RESOURCE: "2"}), [("sriov", None)]),
    ],
    ids=["within", "none", "beside a VF", "the second NIC", "beside a host device", "of another resource", "no quantity", "the limit counts"],
)  # fmt: skip
def test_a_nic_beyond_the_quantity_in_resources_falls_out(machine, found):
    if found:
        assert nics("a", machine, node_state(), node_state("n2")) == found
    else:
        (one,) = decide(*SCENE, rule(), machine, node_state()).vms
        assert (one.nics[0].reason, RESOURCE in one.nics[0].message) == (Reason.INPUT_UNREADABLE, True)


def test_the_message_about_resources_names_field_and_number():
    (one,) = decide(*SCENE, rule(), asking("a", bridge(), limits={RESOURCE: "1"}, hostDevices=[RESOURCE]), node_state()).vms
    text = one.nics[0].candidates[0].finding.message
    assert "resources name 1 vmnic.dev/fast" in text
    assert "beside 1 host device" in text


def test_a_vf_within_the_quantity_needs_no_free_vf():
    # The VM's pod gets both VFs with or without its second NIC.
    machine = asking("a", bridge(), limits={RESOURCE: "2"})
    assert first("a", machine, running(machine), node_state(vfs=2, held=(0, 1))) == ("sriov", None)


REQUIRED = rule(migration="Required", detach=True)


@pytest.mark.parametrize(
    ("machine", "counts", "found"),
    [
        (asking("a", bridge()), (1, 1), [("sriov", None)]),
        (asking("a", bridge()), (7, 0), [("sriov", "BlocksMigration")]),
        (asking("a", bridge(), bridge("more")), (2, 2), [("sriov", None), ("sriov", None)]),
        (asking("a", bridge(), bridge("more")), (7, 1), [("sriov", None), ("sriov", "BlocksMigration")]),
        (asking("a", bridge(), bridge("more")), (1, 1), [("sriov", None), ("sriov", "NoFreeVf")]),
        (asking("a", bridge(), limits={RESOURCE: "3"}), (3, 2), [("sriov", "BlocksMigration")]),
        (asking("a", bridge(), hostDevices=[RESOURCE]), (2, 1), [("sriov", "BlocksMigration")]),
    ],
    ids=["one each", "none elsewhere", "two each", "one elsewhere", "two on no node", "by resources", "beside a host device"],
)
def test_a_migration_needs_all_vfs_at_once_on_another_node(machine, counts, found):
    states = [node_state(f"n{number}", vfs=count) for number, count in enumerate(counts, start=1)]
    stopped = copy.deepcopy(machine)
    stopped["spec"]["runStrategy"] = "Halted"
    assert nics("a", stopped, *states, rules=[REQUIRED]) == found


def test_a_vm_keeps_its_vfs_for_the_count_of_a_migration():
    machine = asking("a", bridge(), vf())
    one = ("sriov", "BlocksMigration")
    assert first("a", machine, running(machine), node_state(), node_state("n2", vfs=1), rules=[REQUIRED]) == one
    assert first("a", machine, running(machine), node_state(), node_state("n2", vfs=2), rules=[REQUIRED]) == ("sriov", None)


@pytest.mark.parametrize(
    ("high", "low", "reason"),
    [("Required", "NotNeeded", "BlocksMigration"), ("NotNeeded", "Required", None)],
    ids=["the VM's policy requires it", "the policy of the NIC requires it"],
)
def test_the_rule_of_the_vm_decides_about_migration(high, low, reason):
    vm_wide = policy("high", datapaths=["vhost"], priority=200, selector={"networks": ["pod"]}, liveMigration=high)
    machine = asking("a", bridge(), nic("pod", model="virtio", macAddress="02:00:00:00:00:03"))
    assert first("a", machine, node_state(), rules=[vm_wide, rule(migration=low, detach=True)]) == ("sriov", reason)


def assigned(name, *nics_, created):
    machine = asking(name, *nics_, created=created)
    record = '{"nics": {"vf": {"datapath": "sriov", "resource": "vmnic.dev/fast", "of": 1, "was": {"interface": {"name": "vf", "bridge": {}, "model": "virtio"}, "network": {"name": "vf", "multus": {"networkName": "br"}}}}}}'  # fmt: skip
    machine["metadata"]["annotations"] = {"vmnic.dev/assigned": record}
    return machine


def test_a_vm_gives_back_a_vf_before_it_gets_another():
    old = assigned("old", vf(), created="2026-01-01T00:00:00Z")
    young = assigned("young", vf(), bridge(), created="2026-01-02T00:00:00Z")
    assert nics("young", old, young, node_state(vfs=1)) == [("sriov", "NoFreeVf"), ("sriov", "NoFreeVf")]
    assert nics("old", old, young, node_state(vfs=1)) == [("sriov", None)]


def test_a_quantity_in_resources_is_never_given_back():
    old = assigned("old", vf(), created="2026-01-01T00:00:00Z")
    young = assigned("young", vf(), created="2026-01-02T00:00:00Z")
    young["spec"]["template"]["spec"]["domain"]["resources"] = {"limits": {RESOURCE: "1"}}
    assert nics("young", old, young, node_state(vfs=1)) == [("sriov", None)]


@pytest.mark.parametrize(
    ("run", "counts", "reason"),
    [("Halted", (1, 1), "NoFreeVf"), ("Halted", (2, 1), None), ("Running", (1, 1), "NoFreeVf"), ("Running", (2, 1), None)],
)
def test_all_vfs_of_a_vm_are_on_one_node(run, counts, reason):
    machine = asking("a", bridge(), vf(), run_strategy="Halted" if run == "Halted" else "Always")
    instances = [running(machine)] if run == "Running" else []
    states = [node_state(f"n{number}", vfs=count) for number, count in enumerate(counts, start=1)]
    assert first("a", machine, *instances, *states) == ("sriov", reason)
