"""What KubeVirt's version and configuration mean for VMs that keep their NICs."""

import pytest

from tests.builders.decide import decide, decision, patches, told
from tests.builders.vm import kubevirt, nad, nic, node_state, policy, pool, vm, vmi
from vmnic.policy.facts import Datapath
from vmnic.policy.types import Verdict

FAST = nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue")
TAP = nad("tap", cni="macvtap", resource="macvtap.network.kubevirt.io/ens1f0", segment="blue")
BRIDGE = nad("br", segment="blue")
INJECTOR = {"kind": "MutatingWebhookConfiguration", "metadata": {"name": "network-resources-injector-config"}}
INJECTION = "ExternalNetResourceInjection"


def on_vf(os="linux", **changes):
    return vm("web", nic("data", binding="sriov", network="fast"), run_strategy="Halted", os=os, **changes)


def on_macvtap():
    entry, network = nic("data", network="tap", model="virtio")
    del entry["masquerade"]
    return vm("web", (entry | {"binding": {"name": "macvtap"}}, network), run_strategy="Halted")


def on_whole_nic():
    machine = vm("web", nic(), run_strategy="Halted")
    devices = machine["spec"]["template"]["spec"]["domain"]["devices"]
    devices["hostDevices"] = [{"name": "data", "deviceName": "vmnic.dev/whole"}]
    return machine


VF = [on_vf(), policy(datapaths=["sriov"]), FAST, BRIDGE, pool(), node_state()]
MACVTAP = [on_macvtap(), policy(datapaths=["macvtap"]), TAP, BRIDGE, node_state()]
WHOLE = [
    on_whole_nic(), policy(datapaths=["passthrough", "vhost"], passthrough={"pool": "whole"}), pool("whole", function="Physical"),
    node_state(pool="whole", vfs=0, function="Physical"),
]  # fmt: skip


def version(observed="", target=""):
    body = kubevirt(version=observed)
    body["status"]["targetKubeVirtVersion"] = target
    return body


@pytest.mark.parametrize(
    ("documents", "cluster", "reasons"),
    [
        (VF, [kubevirt(version="v1.9.0")], ["NetResourceInjectorMissing"]),
        (VF, [kubevirt(gates=[INJECTION])], ["NetResourceInjectorMissing"]),
        (VF, [kubevirt(version="v1.9.0"), INJECTOR], []),
        (VF, [kubevirt(version="v1.9.0", disabled=[INJECTION])], []),
        (VF, [kubevirt(version="v1.8.2")], []),
        (MACVTAP, [kubevirt(version="v1.9.0")], ["NetResourceInjectorMissing"]),
        (MACVTAP, [kubevirt(version="v1.9.0", plugins=())], ["PluginNotRegistered", "NetResourceInjectorMissing"]),
        (MACVTAP, [kubevirt(plugins=())], ["PluginNotRegistered"]),
        (MACVTAP, [kubevirt()], []),
        (MACVTAP, [], []),
        (WHOLE, [kubevirt(gates=(), permitted=["vmnic.dev/whole"])], ["FeatureGateOff"]),
        (WHOLE, [kubevirt()], ["HostDeviceNotPermitted"]),
        (WHOLE, [kubevirt(permitted=[("vmnic.dev/whole", False)])], ["HostDeviceProviderConflict"]),
        (WHOLE, [kubevirt(version="v1.9.0", permitted=["vmnic.dev/whole"])], []),
    ],
)  # fmt: skip
def test_a_kept_nic_warns_of_what_fails_at_the_next_start(documents, cluster, reasons):
    found = next(one for one in decision(*documents, *cluster).nics if one.nic.name == "data")
    assert (found.verdict, found.reason, [one.reason for one in found.warnings]) == (Verdict.COMPLIANT, None, reasons)


def test_a_nic_that_is_patched_away_has_no_warning():
    documents = [on_vf(), policy(datapaths=["vhost"]), FAST, BRIDGE, pool(), node_state(), kubevirt(version="v1.9.0")]
    assert [one.reason for one in decision(*documents).nics[0].warnings] == []
    audited = policy(datapaths=["vhost"], action="Audit")
    found = decision(*documents, audited | {"metadata": {"name": "a"}}).nics[0]
    assert (found.verdict, [one.reason for one in found.warnings]) == ("Change", ["NetResourceInjectorMissing"])


@pytest.mark.parametrize(
    ("observed", "target", "chosen"),
    [
        ("v1.8.2", "v1.9.0", "vhost"),
        ("v1.9.0", "v1.8.2", "vhost"),
        ("v1.9.0", "v1.9.0", "vhost"),
        ("", "v1.9.0-rc.1", "vhost"),
        ("v1.10.1", "", "vhost"),
        ("v1.8.2", "v1.8.3", "sriov"),
        ("v1.8.2", "", "sriov"),
        ("", "", "sriov"),
        ("devel", "devel", "sriov"),
    ],
)
def test_the_higher_version_decides_what_gates_take_away(observed, target, chosen):
    machine = vm("web", nic("data", binding="bridge", network="br", model="virtio"), run_strategy="Halted")
    found = decide(
        machine, policy(datapaths=["sriov", "vhost"]), FAST, BRIDGE, pool(), node_state(), version(observed, target)
    ).vms[0]
    assert found.nics[0].wanted.datapath == chosen


@pytest.mark.parametrize(
    ("observed", "target", "passt"), [("v1.8.2", "v1.9.0", False), ("v1.9.0", "v1.9.0", True), ("", "v1.9.0", False)]
)
def test_a_gate_that_gives_something_waits_for_the_new_version(observed, target, passt):
    assert ("PasstBinding" in decide(version(observed, target)).cluster.kubevirt.gates) is passt


UNBOUND = ({"name": "data", "model": "e1000e"}, {"name": "data", "multus": {"networkName": "br"}})
BOUND = nic("second", model="e1000e")


@pytest.mark.parametrize(
    ("cluster", "reasons"),
    [
        ([kubevirt(version="v1.9.0")], ["BindingMissing", "BindingMissing"]),
        ([version("v1.8.2", "v1.9.0")], ["BindingMissing", "BindingMissing"]),
        ([], ["BindingMissing", "BindingMissing"]),
        ([version()], ["BindingMissing", "BindingMissing"]),
        ([kubevirt(version="v1.8.2")], [None, None]),
    ],
    ids=["1.9", "an upgrade to 1.9", "no KubeVirt resource", "no version", "1.8"],
)
def test_a_vm_without_a_binding_is_blocked_from_1_9_on(cluster, reasons):
    documents = [vm("web", UNBOUND, BOUND, run_strategy="Halted"), policy(datapaths=["vhost"]), BRIDGE, *cluster]
    found = decision(*documents).nics
    assert [one.reason for one in found] == reasons
    assert [one.verdict for one in found] == ["Blocked" if reason else "Change" for reason in reasons]
    assert bool(patches(*documents)["web"]) is (reasons == [None, None])
    assert all("NIC data has no binding" in one.message and "masquerade: {}" in one.message for one in found if one.reason)


def test_a_compliant_nic_beside_one_without_a_binding_stays_so():
    machine = vm("web", nic("first", model="virtio"), UNBOUND, run_strategy="Halted")
    found = decision(machine, policy(datapaths=["vhost"]), BRIDGE, kubevirt(version="v1.9.0")).nics
    assert [one.verdict for one in found] == ["Compliant", "Blocked"]


def test_a_vm_that_cannot_be_changed_claims_no_vf():
    first = vm("a", UNBOUND, nic("vf", binding="bridge", network="br"), run_strategy="Halted")
    second = vm("b", nic("vf", binding="bridge", network="br"), run_strategy="Halted")
    documents = [first, second, policy(datapaths=["sriov", "vhost"]), FAST, BRIDGE, pool(), node_state(vfs=1)]
    found = decide(*documents, kubevirt(version="v1.9.0"), INJECTOR).vms
    assert [one.nics[-1].wanted.datapath for one in found] == ["sriov", "sriov"]
    assert [one.nics[-1].verdict for one in found] == ["Blocked", "Change"]


def test_a_whole_nic_needs_no_binding():
    assert decision(*WHOLE, kubevirt(version="v1.9.0", permitted=["vmnic.dev/whole"])).nics[1].verdict == "Compliant"


def on_claim():
    entry, _ = nic("data", binding="sriov")
    return vm(
        "web", (entry, {"name": "data", "resourceClaim": {"claimName": "nics", "requestName": "vf"}}), run_strategy="Halted"
    )


@pytest.mark.parametrize("datapaths", [["sriov"], ["sriov", "vhost"], ["auto"], ["passthrough"]], ids=str)
def test_a_dra_network_is_left_alone_as_what_it_is(datapaths):
    rule = policy(datapaths=datapaths, sriov={"pool": "fast"}, passthrough={"pool": "whole"})
    found = decision(on_claim(), rule, FAST, pool(), node_state(), kubevirt(version="v1.9.0"), INJECTOR).nics[0]
    assert (found.nic.present.datapath, found.verdict, found.reason) == (Datapath.OTHER, "Blocked", "NoEquivalentNetwork")
    assert "does not change (resourceClaim, a device of DRA)" in found.message


@pytest.mark.parametrize("field", ["passtBinding", "slirp", "macvtap", "passt"])
def test_an_old_binding_is_told_by_its_name_in_kubevirt(field):
    found = decision(vm("web", nic("data", binding=field, network="br")), policy(datapaths=["vhost"]), BRIDGE).nics[0]
    assert f"does not change ({field})" in found.message


OLD = [pool(models=["82576"]), node_state(model="82576"), FAST]


@pytest.mark.parametrize(
    ("rule", "more", "verdict", "reason", "wanted"),
    [
        (policy(networkPressure="High"), [], "Blocked", "GuestLacksVfDriver", "sriov"),
        (policy(datapaths=["sriov"]), [], "Blocked", "GuestLacksVfDriver", "sriov"),
        (policy(datapaths=["vhost"]), [], "Blocked", "GuestLacksVfDriver", "sriov"),
        (policy(networkPressure="Low"), [], "Blocked", "GuestLacksVfDriver", "sriov"),
        (policy(datapaths=["sriov", "vhost"]), [BRIDGE], "Change", None, "vhost"),
        (policy(networkPressure="Low"), [BRIDGE], "Change", None, "emulated"),
        (policy(networkPressure="High", sriov={"pool": "other"}), [pool("other", models=["I350"])], "Blocked", "GuestLacksVfDriver", "sriov"),
    ],
)  # fmt: skip
def test_windows_on_a_vf_without_a_driver_is_not_compliant(rule, more, verdict, reason, wanted):
    found = decision(on_vf("windows"), rule, *OLD, *more).nics[0]
    assert (found.verdict, found.reason, found.wanted.datapath) == (verdict, reason, wanted)
    assert reason is None or "Windows has no driver for VFs of 82576" in found.message


@pytest.mark.parametrize(
    ("machine", "rule", "reason"),
    [
        (on_vf("windows"), policy(networkPressure="High", liveMigration="Required"), "BlocksMigration"),
        (on_vf("windows"), policy(networkPressure="High"), None),
    ],
    ids=["a VF that cannot migrate", "a VF that fits"],
)
def test_auto_judges_what_it_leaves_as_it_is(machine, rule, reason):
    found = decision(machine, rule, FAST, pool(), node_state()).nics[0]
    assert (found.verdict, found.reason) == ("Blocked" if reason else "Compliant", reason)


def test_linux_keeps_a_vf_that_windows_could_not_drive():
    found = decision(on_vf(), policy(datapaths=["sriov"]), *OLD).nics[0]
    assert (found.verdict, told(found)) == ("Compliant", [("sriov", None)])


def test_the_queue_count_of_the_running_vm_is_read():
    instance = vmi("web", macs={"default": "02:00:00:00:00:01"})
    for count, read in ((4, 4), (0, None), (-1, None), (257, None)):
        instance["status"]["interfaces"][0]["queueCount"] = count
        assert decision(vm("web"), policy(), instance).nics[0].nic.live_queues == read
