"""Each reason of a candidate, alone, in a cluster where every other check passes."""

import copy

import pytest

from tests.builders.decide import decide, decision, told
from tests.builders.vm import kubevirt, nad, nic, node, node_state, policy, pool, quota, vm, vmi
from vmnic.policy.reasons import Reason

SRIOV = policy(datapaths=["sriov", "vhost"], existing="Immediately")
MACVTAP = policy(datapaths=["macvtap"], existing="Immediately")
WHOLE = policy(datapaths=["passthrough"], existing="Immediately", passthrough={"pool": "whole"})
BRIDGE = nad("br", segment="blue")
FAST = nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue")
TAP = nad("tap", cni="macvtap", resource="macvtap.network.kubevirt.io/ens1f0", segment="blue")
CLUSTER = kubevirt(permitted=["vmnic.dev/whole"])


def web(*, os="linux", halted=True, network="br", spec=None, **changes):
    """Return a VM with one NIC on a secondary network."""
    one = nic("data", binding="bridge", network=network, model="virtio") if network else nic("data", model="virtio")
    machine = vm("web", one, os=os, run_strategy="Halted" if halted else "Always", **changes)
    machine["spec"]["template"]["spec"] |= spec or {}
    return machine


def sriov(machine=None, *more, rule=SRIOV, bridge=BRIDGE, fast=FAST, pools=None, states=None, cluster=CLUSTER):
    return [
        machine or web(), rule, bridge, *([fast] if fast else []), cluster,
        *(pools or [pool()]), *(states if states is not None else [node_state(), node_state("n2")]), *more,
    ]  # fmt: skip


def macvtap(machine=None, *more, rule=MACVTAP, cluster=CLUSTER):
    return [machine or web(), rule, BRIDGE, TAP, cluster, node_state(), *more]


def whole(machine=None, *more, rule=WHOLE, cluster=CLUSTER):
    states = node_state(pool="whole", vfs=0, function="Physical")
    return [machine or web(), rule, BRIDGE, cluster, pool("whole", function="Physical"), states, *more]


def changed(rule, **spec):
    rule = copy.deepcopy(rule)
    rule["spec"] |= spec
    return rule


def admitting(rule):
    return changed(rule, enforcement={"action": "Admit", "existingVMs": "Immediately"})


def with_domain(machine, **domain):
    machine["spec"]["template"]["spec"]["domain"] |= domain
    return machine


def instancetype(**spec):
    return {
        "kind": "VirtualMachineInstancetype",
        "metadata": {"name": "t", "namespace": "tenants"},
        "spec": {"cpu": {"guest": 2}, **spec},
    }


TYPED = {"instancetype": {"name": "t", "kind": "VirtualMachineInstancetype"}}
EVICTING = {"evictionStrategy": "LiveMigrate"}
CASES = [
    ("GuestOsUnknown", macvtap(web(os=None))),
    ("GuestOsUnknown", sriov(web(os=None), pools=[pool(models=["82576"])], states=[node_state(model="82576")])),
    ("NotOnArchitecture", [web(os="windows", spec={"architecture": "arm64"}), BRIDGE, policy(datapaths=["emulated"])]),
    ("PodNetwork", sriov(web(network=None))),
    ("PodNetwork", macvtap(web(network=None))),
    ("PodNetwork", whole(web(network=None))),
    ("NoEquivalentNetwork", sriov(fast=None)),
    ("NoEquivalentNetwork", sriov(fast=nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="green"))),
    ("NoEquivalentNetwork", sriov(bridge=nad("br"))),
    ("NoEquivalentNetwork", sriov(fast=nad("fast", namespace="other", cni="sriov", resource="vmnic.dev/fast", segment="blue"))),
    ("PropertyNotCarried", sriov(vm("web", nic("data", binding="bridge", network="br", state="down"), run_strategy="Halted"))),
    ("PropertyNotCarried", whole(vm("web", nic("data", binding="bridge", network="br", state="down"), run_strategy="Halted"))),
    ("GuestMtuChanges", sriov(bridge=nad("br", segment="blue", mtu=9000), pools=[pool(mtu=9000)])),
    ("HotplugVolumeBlocksMacvtap", macvtap(web(spec={"volumes": [{"name": "d", "dataVolume": {"name": "d", "hotpluggable": True}}]}))),
    ("IpamNotCarried", sriov(bridge=nad("br", segment="blue", ipam={"type": "host-local"}))),
    ("MtuDiffers", sriov(bridge=nad("br", segment="blue", mtu=9000))),
    ("MtuDiffers", sriov(fast=nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue", mtu=9000))),
    ("GuestLacksVfDriver", sriov(web(os="windows"), pools=[pool(models=["82576"])], states=[node_state(model="82576")])),
    ("GuestLacksVfDriver", sriov(web(os="windows"), pools=[pool(models=["82576"])], states=[])),
    ("PoorOnWindows", macvtap(web(os="windows"))),
    ("BlocksMigration", sriov(rule=changed(SRIOV, liveMigration="Required"))),
    ("BlocksMigration", sriov(rule=changed(SRIOV, liveMigration="Required", sriov={"acceptDetach": True}), states=[node_state()])),
    ("BlocksMigration", macvtap(rule=changed(MACVTAP, liveMigration="Required"))),
    ("BlocksMigration", whole(rule=changed(WHOLE, liveMigration="Required"))),
    ("EvictionStrategyBlocksDrain", macvtap(web(spec=EVICTING))),
    ("EvictionStrategyBlocksDrain", whole(web(spec=EVICTING))),
    ("EvictionStrategyBlocksDrain", macvtap(cluster=kubevirt(evictionStrategy="LiveMigrate"))),
    ("PluginNotRegistered", macvtap(cluster=kubevirt(plugins=()))),
    ("FeatureGateOff", whole(cluster=kubevirt(gates=(), permitted=["vmnic.dev/whole"]))),
    ("FeatureGateOff", whole(cluster=kubevirt(disabled=["HostDevices"], permitted=["vmnic.dev/whole"]))),
    ("HostDeviceNotPermitted", whole(cluster=kubevirt())),
    ("HostDeviceProviderConflict", whole(cluster=kubevirt(permitted=[("vmnic.dev/whole", False)]))),
    ("NetResourceInjectorMissing", sriov(cluster=kubevirt(version="v1.9.0"))),
    ("NetResourceInjectorMissing", macvtap(cluster=kubevirt(version="v1.9.0"))),
    ("NetResourceInjectorMissing", sriov(cluster=kubevirt(gates=["ExternalNetResourceInjection"]))),
    ("InstancetypeOwnsField", whole(web(**TYPED), instancetype(hostDevices=[{"name": "x", "deviceName": "a/b"}]))),
    ("MemoryOvercommit", sriov(cluster=kubevirt(developer={"memoryOvercommit": 150}))),
    ("MemoryOvercommit", whole(cluster=kubevirt(permitted=["vmnic.dev/whole"], developer={"memoryOvercommit": 150}))),
    ("MemoryOvercommit", sriov(with_domain(web(), resources={"overcommitGuestOverhead": True}))),
    ("MemoryOvercommit", sriov(with_domain(web(), resources={"requests": {"memory": "512Mi"}}))),
    ("MemoryOvercommit", sriov(web(**TYPED), instancetype(memory={"guest": "1Gi", "overcommitPercent": 10}))),
    ("QuotaExceeded", sriov(None, quota(hard={"requests.memory": "4Gi"}, used={"requests.memory": "3500Mi"}))),
    ("QuotaExceeded", sriov(None, quota(hard={"memory": "4Gi"}, used={"memory": "3500Mi"}))),
    ("QuotaExceeded", sriov(None, quota(hard={"requests.vmnic.dev/fast": 2}, used={"requests.vmnic.dev/fast": 2}))),
    ("NoVhostNet", [vm("web", nic("data", binding="bridge", network="br", model="e1000e")), policy(datapaths=["vhost"]), node_state(modules=[])]),
    ("AdmitCannotChangeNetwork", sriov(rule=admitting(SRIOV))),
    ("AdmitCannotChangeNetwork", macvtap(rule=admitting(MACVTAP))),
    ("AdmitCannotChangeNetwork", whole(rule=admitting(WHOLE))),
    ("PoolNotReady", sriov(states=[node_state(vfs=0)])),
    ("PoolNotReady", sriov(states=[])),
    ("PoolNotReady", sriov(pools=[pool(vfDriver="kernel")])),
    ("PoolNotReady", [one for one in whole() if one["kind"] != "SriovNetworkPool"]),
    ("PoolNotReady", [*whole(rule=changed(WHOLE, passthrough={"pool": "fast"}), cluster=kubevirt(permitted=["vmnic.dev/fast"])), pool(), node_state("n2")]),
    ("NoFreeVf", sriov(states=[node_state(held=range(7))])),
    ("NoFreeVf", sriov(web(spec={"nodeSelector": {"rack": "1"}}), node("n1"), node("n2", labels={"rack": "2"}))),
    ("NoFreeVf", sriov(None, node("n1", unschedulable=True), states=[node_state()])),
    ("NoFreeVf", sriov(rule=changed(SRIOV, sriov={"resourceName": "intel.com/x"}), fast=nad("fast", cni="sriov", resource="intel.com/x", segment="blue"))),
    ("NoMigrationReserve", sriov(pools=[pool(reserveForMigration=7)], states=[node_state()])),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "documents"), CASES, ids=[f"{reason}-{number}" for number, (reason, _) in enumerate(CASES)])
def test_a_candidate_is_excluded_for_this_reason(reason, documents):
    assert told(decision(*documents).nics[0])[0][1] == reason


@pytest.mark.parametrize("documents", [sriov(), macvtap(), whole()], ids=["sriov", "macvtap", "passthrough"])
def test_a_candidate_without_a_finding_is_chosen(documents):
    found = decision(*documents).nics[0]
    assert (told(found)[0][1], found.verdict, found.action) == (None, "Change", "Patch")


def test_every_reason_is_tested():
    reached = {
        *(reason for reason, _ in CASES),
        *("VirtioNotChosenForWindows", "NotPreferred", "OwnedByGit", "QueueCapNeedsHook", "GuestMemoryTooSmall"),
        # Tested in tests/unit/policy/test_kubevirt_versions.py.
        "BindingMissing",
        # Tested in tests/unit/controller/caches/test_unreadable.py.
        *("PreferenceUnknown", "InputUnreadable"),
        # Tested in tests/unit/libvirt/test_addresses.py.
        *("FailoverPair", "AddressTwice", "CannotBeWritten"),
        # Tested in test_requested_devices.py.
        "PropertyNotCarried",
        *("Excluded", "MacUnknown", "ExistingVm", "WaitsForStop", "WaitsForWindow", "RecordUnreadable", "PatchRefused"),
    }
    assert reached == {str(reason) for reason in Reason}


@pytest.mark.parametrize(
    "bridge",
    [
        nad("br", segment="blue", ipam={"type": "host-local"}, accept="IpamNotCarried"),
        nad("br", segment="blue", mtu=1500),
    ],
    ids=["accepted by annotation", "an MTU that is the default"],
)
def test_an_equivalent_network_may_differ_harmlessly(bridge):
    assert told(decision(*sriov(bridge=bridge)).nics[0])[0] == ("sriov", None)


def test_a_pool_with_jumbo_frames_serves_a_jumbo_network():
    jumbo = nad("br", segment="blue", mtu=9000, accept="GuestMtuChanges")
    documents = sriov(bridge=jumbo, pools=[pool(mtu=9000)])
    assert told(decision(*documents).nics[0])[0] == ("sriov", None)


def test_the_first_equivalent_network_by_name_is_used():
    second = nad("another", cni="sriov", resource="vmnic.dev/fast", segment="blue")
    assert decision(*sriov(), second).nics[0].network.name == "another"


def test_a_network_in_the_same_namespace_is_equivalent():
    networks = [
        nad("br", namespace="nets", segment="blue"),
        nad("fast", namespace="nets", cni="sriov", resource="vmnic.dev/fast", segment="blue"),
    ]
    found = decision(*sriov(web(network="nets/br"), *networks)).nics[0]
    assert (found.network.namespace, found.network.name) == ("nets", "fast")


def test_a_resource_of_another_operator_is_used_by_name():
    rule = changed(SRIOV, sriov={"resourceName": "intel.com/x"})
    network = nad("fast", cni="sriov", resource="intel.com/x", segment="blue")
    found = decision(
        *sriov(None, node("n1", allocatable={"intel.com/x": "1"}), rule=rule, fast=network, pools=[pool("none")])
    ).nics[0]
    assert (told(found)[0], found.wanted.resource) == (("sriov", None), "intel.com/x")


@pytest.mark.parametrize(
    ("os", "pressure", "migration", "whole_pool", "expected"),
    [
        ("windows", "Low", "Preferred", False, ["emulated", "vhost"]),
        ("windows", "High", "Preferred", False, ["sriov", "vhost"]),
        ("windows", "High", "Preferred", True, ["sriov", "passthrough", "vhost"]),
        ("linux", "Low", "Preferred", False, ["vhost"]),
        ("linux", "High", "Preferred", False, ["sriov", "vhost"]),
        ("linux", "High", "NotNeeded", False, ["sriov", "macvtap", "vhost"]),
        (None, "High", "NotNeeded", True, []),
    ],
    ids=str,
)
def test_auto_has_a_chain_for_each_guest_os(os, pressure, migration, whole_pool, expected):
    rule = policy(
        networkPressure=pressure, liveMigration=migration, **({"passthrough": {"pool": "whole"}} if whole_pool else {})
    )
    assert [datapath for datapath, _ in told(decision(web(os=os), rule, BRIDGE).nics[0])] == expected


def test_candidates_after_the_chosen_one_are_not_preferred():
    found = decision(web(network=None), policy(datapaths=["vhost", "sriov", "macvtap"])).nics[0]
    assert told(found) == [("vhost", None), ("sriov", "NotPreferred"), ("macvtap", "NotPreferred")]


def test_only_the_first_vfio_device_costs_quota_memory():
    with_device = web()
    devices = with_device["spec"]["template"]["spec"]["domain"]["devices"]
    devices["hostDevices"] = [{"name": "gpu", "deviceName": "vendor.com/gpu"}]
    scarce = quota(hard={"requests.memory": "4Gi"}, used={"requests.memory": "3500Mi"})
    assert told(decision(*sriov(with_device, scarce)).nics[0])[0] == ("sriov", None)


def test_a_nic_keeps_its_vf_despite_configuration_or_capacity():
    machine = vm("web", nic("data", binding="sriov", network="fast"), run_strategy="Halted")
    hostile = kubevirt(version="v1.9.0", developer={"memoryOvercommit": 200})
    full = [node_state(held=range(7)), quota(hard={"memory": "1Mi"})]
    found = decision(machine, SRIOV, FAST, hostile, pool(reserveForMigration=7), *full).nics[0]
    assert (found.verdict, told(found)[0]) == ("Compliant", ("sriov", None))


def test_a_policy_can_remove_a_datapath_that_a_nic_has():
    machine = vm("web", nic("data", binding="sriov", network="fast"), run_strategy="Halted")
    rule = changed(SRIOV, liveMigration="Required")
    found = decision(machine, rule, FAST, BRIDGE, pool(), node_state()).nics[0]
    assert (told(found), found.verdict, found.wanted.datapath) == (
        [("sriov", "BlocksMigration"), ("vhost", None)],
        "Change",
        "vhost",
    )


def test_a_tenant_may_forbid_rolling_restarts():
    machine, instance = vm("web", nic(model="e1000e")), vmi("web", macs={"default": "02:00:00:00:00:01"})
    rolling = policy(existing="Rolling")
    assert decision(machine, instance, rolling).nics[0].action == "Patch"
    machine["metadata"]["annotations"] = {"vmnic.dev/restart": "Never"}
    assert decision(machine, instance, rolling).nics[0].reason is Reason.WAITS_FOR_STOP
    allowed = policy(existing="Rolling", tenantOverrides={"restart": "Ignored"})
    assert decision(machine, instance, allowed).nics[0].action == "Patch"


@pytest.mark.parametrize(
    ("created", "existing", "action", "reason"),
    [
        ("2026-02-01T00:00:00Z", "Leave", "Admit", None),
        ("2026-01-01T00:00:00Z", "Leave", "Audit", "ExistingVm"),
        ("2026-01-01T00:00:00Z", "WhenStopped", "Admit", None),
    ],
    ids=["younger than the policy", "older than the policy", "WhenStopped"],
)
def test_admit_treats_a_vm_younger_than_the_policy_as_new(created, existing, action, reason):
    machine = vm("web", nic(model="e1000e"), run_strategy="Halted")
    machine["metadata"]["creationTimestamp"] = created
    rule = policy(action="Admit", existing=existing)
    rule["metadata"]["creationTimestamp"] = "2026-01-15T00:00:00Z"
    found = decision(machine, rule).nics[0]
    assert (found.action, found.reason) == (action, reason)


def test_with_admit_the_running_vmi_counts():
    rule = policy(action="Admit", existing="Immediately")
    machine = vm("web", nic(model="e1000e"))
    assert decision(machine, rule, vmi("web", models={"default": "virtio"})).nics[0].verdict == "Compliant"
    assert decision(machine, rule, vmi("web", models={"default": "e1000e"})).nics[0].action == "Admit"


def test_the_message_of_a_vf_names_its_cost():
    assert "A live migration detaches the VF" in decision(*sriov()).nics[0].message
    assert decide(*sriov(rule=changed(SRIOV, liveMigration="NotNeeded"))).vms[0].nics[0].message.endswith("(vmnic.dev/fast)")
