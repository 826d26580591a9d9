"""The policy engine: checks, chains, priorities and enforcement."""

import msgspec
import pytest

from tests.builders import decide as builder
from tests.builders.decide import told
from tests.builders.vm import nic, node_state, policy, vm, vmi
from vmnic.api.policy import VmNicPolicy
from vmnic.kubevirt.gather import MachineInput, gather_vm_facts
from vmnic.kubevirt.vm import VirtualMachine
from vmnic.policy.decision import decide
from vmnic.policy.evaluate import evaluate_vm
from vmnic.policy.facts import ClusterFacts
from vmnic.policy.reasons import Reason
from vmnic.policy.rules import rules_of
from vmnic.policy.types import Action, Verdict


def decision(machine, *policies, instance=None, vhost_net=None, is_new=False, namespace_labels=None):
    others = [] if instance is None else [instance]
    if vhost_net is not None:
        others.append(node_state(modules=["vhost_net"] if vhost_net else [], pool="none", vfs=0))
    if namespace_labels:
        others.append({"kind": "Namespace", "metadata": {"name": "tenants", "labels": namespace_labels}})
    name = machine["metadata"]["name"]
    return builder.decision(machine, *policies, *others, new=[name] if is_new else ())


def first(machine, *policies, **changes):
    return decision(machine, *policies, **changes).nics[0]


@pytest.mark.parametrize(
    ("machine", "datapaths", "verdict", "wanted", "candidates_told"),
    [
        (vm(os="linux"), ["auto"], "Compliant", "vhost", [("vhost", None)]),
        (vm("v", nic(model="e1000e")), ["auto"], "Change", "vhost", [("vhost", None)]),
        (vm(os="windows"), ["auto"], "Change", "emulated", [("emulated", None), ("vhost", "VirtioNotChosenForWindows")]),
        (vm("v", nic(model="e1000"), os="windows"), ["auto"], "Compliant", "emulated", [("emulated", None), ("vhost", "VirtioNotChosenForWindows")]),
        (vm(os=None), ["auto"], "Blocked", "vhost", []),
        (vm("v", nic(model="e1000e"), os="windows"), ["vhost"], "Change", "vhost", [("vhost", None)]),
        (vm("v", nic(model="e1000e"), os=None), ["virtio"], "Change", "vhost", [("vhost", None)]),
        (vm(os="linux"), ["emulated", "vhost"], "Change", "emulated", [("emulated", None), ("vhost", "NotPreferred")]),
        (vm("v", nic(model="e1000e")), ["virtio", "vhost"], "Change", "vhost", [("vhost", None)]),
        (vm("v", nic(binding="sriov", network="x")), ["auto"], "Blocked", "sriov", [("vhost", "NoEquivalentNetwork")]),
    ],
    ids=[
        "Linux has vhost already", "Linux is taken off e1000e", "Windows gets an emulated NIC", "Windows keeps any emulated NIC",
        "an unknown guest is blocked", "a policy that names vhost gives it to Windows", "a named datapath needs no guest system",
        "the first of a list wins", "virtio means vhost on KubeVirt", "a VF keeps its network",
    ],
)  # fmt: skip
def test_a_nic_gets_the_first_accepted_datapath_of_its_chain(machine, datapaths, verdict, wanted, candidates_told):
    found = first(machine, policy(datapaths=datapaths))
    assert (found.verdict, found.wanted.datapath) == (verdict, wanted)
    assert told(found) == candidates_told


def test_only_a_known_lack_of_vhost_net_blocks_vhost():
    machine = vm("v", nic(model="e1000e"))
    assert first(machine, policy(), vhost_net=False).reason is Reason.NO_VHOST_NET
    assert first(machine, policy(), vhost_net=None).verdict is Verdict.CHANGE


def test_a_list_falls_back_to_the_next_accepted_datapath():
    found = first(vm(os="linux"), policy(datapaths=["vhost", "emulated"]), vhost_net=False)
    assert told(found) == [("vhost", "NoVhostNet"), ("emulated", None)]


@pytest.mark.parametrize(
    ("action", "existing", "running", "is_new", "done", "reason"),
    [
        ("Audit", "Immediately", False, False, "Audit", None),
        ("Patch", "Leave", False, False, "Audit", "ExistingVm"),
        ("Patch", "Leave", False, True, "Patch", None),
        ("Patch", "WhenStopped", False, False, "Patch", None),
        ("Patch", "WhenStopped", True, False, "Audit", "WaitsForStop"),
        ("Patch", "Immediately", True, False, "Patch", None),
    ],
    ids=["Audit", "Leave", "Leave, but it is new", "WhenStopped, stopped", "WhenStopped, running", "Immediately"],
)
def test_enforcement_determines_the_action(action, existing, running, is_new, done, reason):
    instance = vmi("v", macs={"default": "02:00:00:00:00:01"}) if running else None
    rule = policy(action=action, existing=existing)
    found = first(vm("v", nic(model="e1000e")), rule, instance=instance, is_new=is_new)
    assert (found.verdict, found.action, found.reason) == (Verdict.CHANGE, done, reason)


def test_a_running_nic_with_an_unknown_mac_is_not_changed():
    found = first(vm("v", nic(model="e1000e")), policy(existing="Immediately"), instance=vmi("v"))
    assert (found.verdict, found.reason, found.action) == (Verdict.BLOCKED, Reason.MAC_UNKNOWN, None)


@pytest.mark.parametrize(
    ("git_owned", "is_new", "verdict", "reason"),
    [("Yield", False, "Blocked", "OwnedByGit"), ("Override", False, "Change", None), ("Yield", True, "Change", None)],
    ids=["left to its applier", "overridden", "a new VM"],
)
def test_a_vm_applied_by_another_manager_is_left_to_it(git_owned, is_new, verdict, reason):
    rule = policy()
    rule["spec"]["enforcement"]["gitOwned"] = git_owned
    machine = vm("v", nic(model="e1000e"), run_strategy="Halted")
    given = msgspec.structs.replace(msgspec.convert(machine, VirtualMachine), applier="argocd-controller")
    found = evaluate_vm(
        gather_vm_facts(MachineInput(machine=given, is_new=is_new)),
        rules_of([VmNicPolicy.model_validate(rule)]),
        ClusterFacts(),
    )
    one = decide(found, {}).nics[0]
    assert (one.verdict, one.reason, one.wanted.model) == (verdict, reason, "virtio")
    assert reason is None or "argocd-controller" in one.message


def test_the_highest_priority_decides_then_the_first_name():
    high, low = policy("z", datapaths=["emulated"], priority=200), policy("a", datapaths=["vhost"])
    assert first(vm(), high, low).policy == "z"
    assert first(vm(), policy("b", datapaths=["emulated"]), policy("a", datapaths=["vhost"])).policy == "a"


def test_equal_priorities_with_different_results_conflict():
    rules = policy("a", datapaths=["vhost"]), policy("b", datapaths=["emulated"]), policy("c", datapaths=["vhost"])
    assert first(vm(), *rules).conflicts_with == ("b",)


def test_vm_wide_settings_come_from_the_highest_selecting_policy():
    strict = policy("strict", priority=200, action="Audit", selector={"networks": ["pod"]})
    loose = policy("loose", selector={"networks": ["*"]})
    machine = vm("v", nic(model="e1000e"), nic("two", binding="bridge", network="br", model="e1000e"))
    assert [one.action for one in decision(machine, strict, loose).nics] == [Action.AUDIT, Action.AUDIT]


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ({"guestOS": ["linux"]}, True),
        ({"guestOS": ["windows"]}, False),
        ({"networks": ["pod"]}, True),
        ({"networks": ["tenants/*"]}, False),
        ({"vmSelector": {"matchLabels": {"app": "web"}}}, True),
        ({"vmSelector": {"matchLabels": {"app": "db"}}}, False),
        ({"vmSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]}}, True),
        ({"vmSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}}, False),
        ({"vmSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}, True),
        ({"vmSelector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}}, False),
        ({"namespaceSelector": {"matchLabels": {"team": "a"}}}, True),
        ({"namespaceSelector": {"matchLabels": {"team": "b"}}, "networks": ["*"]}, False),
    ],
    ids=str,
)
def test_a_selector_requires_every_given_field(selector, selected):
    found = first(vm(labels={"app": "web"}), policy(selector=selector), namespace_labels={"team": "a"})
    assert (found.verdict is not Verdict.NOT_SELECTED) is selected


@pytest.mark.parametrize(
    ("glob", "selected"), [("br", True), ("tenants/b*", True), ("pod", False), ("*", True), ("other/br", False)]
)
def test_a_network_is_matched_by_name_with_or_without_namespace(glob, selected):
    found = first(vm("v", nic(binding="bridge", network="br")), policy(selector={"networks": [glob]}))
    assert (found.verdict is not Verdict.NOT_SELECTED) is selected


def sized(cores=4, memory="8Gi", multiqueue=None, nics=None, **changes):
    """Return a VM with a number of vCPUs, an amount of memory and a multiqueue switch."""
    machine = vm("v", *(nics or [nic(model="virtio")]), **changes)
    domain = machine["spec"]["template"]["spec"]["domain"]
    domain["cpu"], domain["memory"] = {"cores": cores}, {"guest": memory}
    if multiqueue is not None:
        domain["devices"]["networkInterfaceMultiqueue"] = multiqueue
    return machine


@pytest.mark.parametrize(
    ("machine", "rule", "queues", "reason"),
    [
        (sized(), policy(networkPressure="High"), 4, None),
        (sized(), policy(networkPressure="Low"), 1, None),
        (sized(multiqueue=True), policy(networkPressure="Low"), 4, None),
        (sized(cores=1), policy(networkPressure="High"), 1, None),
        (sized(cores=9, memory="64Gi"), policy(networkPressure="High"), 1, "QueueCapNeedsHook"),
        (sized(cores=9, memory="64Gi"), policy(networkPressure="High", multiqueue={"maxQueues": 16}), 9, None),
        (sized(memory="512Mi"), policy(networkPressure="High"), 1, "GuestMemoryTooSmall"),
        (sized(memory="800Mi"), policy(networkPressure="High"), 4, None),
        (sized(nics=[nic(model="virtio"), nic("b", binding="bridge", network="n")], memory="1500Mi"), policy(networkPressure="High"), 1, "GuestMemoryTooSmall"),
        (sized(cores=9, memory="1Mi"), policy(networkPressure="High"), 1, "QueueCapNeedsHook"),
        (sized(), policy(multiqueue={"mode": "Always"}), 4, None),
        (sized(multiqueue=True), policy(multiqueue={"mode": "Never"}, networkPressure="High"), 1, None),
        (sized(cores=9, memory="1Mi", multiqueue=True), policy(networkPressure="High"), 9, "QueueCapNeedsHook"),
        (sized(cores=9, memory="1Mi", multiqueue=True), policy(networkPressure="Low"), 9, "QueueCapNeedsHook"),
        (sized(memory="512Mi", multiqueue=True), policy(networkPressure="High"), 4, "GuestMemoryTooSmall"),
        (sized(memory="512Mi", multiqueue=True), policy(networkPressure="Low"), 4, "GuestMemoryTooSmall"),
        (sized(memory="512Mi", multiqueue=True, nics=[nic(model="virtio"), nic("b", binding="bridge", network="n", model="e1000e")]), policy(datapaths=["emulated", "vhost"]), 1, None),
        (sized(memory="128Mi"), policy(networkPressure="Low"), 1, None),
        (sized(cores=9, memory="1Mi", multiqueue=True), policy(multiqueue={"mode": "Never"}), 1, None),
        (sized(os="windows"), policy(datapaths=["vhost"], networkPressure="High"), 4, None),
    ],
    ids=[
        "High pressure", "Low pressure", "Low leaves what is there", "one vCPU", "above the cap", "a higher cap", "too little memory", "just enough memory",
        "too little memory for two NICs", "the cap is asked first", "Always", "Never switches it off", "there already", "there already, Low pressure", "too much memory already", "the same, Low pressure",
        "no virtio NIC is left", "one queue takes no memory", "Never corrects it", "Windows by name",
    ],
)  # fmt: skip
def test_queues_are_chosen_for_the_whole_vm(machine, rule, queues, reason):
    found = first(machine, rule)
    assert (found.wanted.queues, found.reason) == (queues, reason)


def test_a_change_of_queues_patches_only_the_multiqueue_switch():
    path = "/spec/template/spec/domain/devices/networkInterfaceMultiqueue"
    assert changes(sized(), policy(networkPressure="High")) == [{"op": "add", "path": path, "value": True}]
    off = changes(sized(multiqueue=True), policy(multiqueue={"mode": "Never"}))
    assert off == [{"op": "test", "path": path, "value": True}, {"op": "add", "path": path, "value": False}]


def changes(machine, *policies):
    """Return the patch without vmnic's record."""
    return [one for one in builder.patches(machine, *policies)["v"] if "annotations" not in one["path"]]


def test_windows_under_high_pressure_stays_as_it_is():
    found = first(vm(os="windows"), policy(networkPressure="High"))
    expected = [("sriov", "PodNetwork"), ("vhost", "VirtioNotChosenForWindows")]
    assert (found.verdict, found.reason, told(found)) == (Verdict.COMPLIANT, None, expected)


def asking(**annotations):
    machine = sized()
    machine["metadata"]["annotations"] = {f"vmnic.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return machine


@pytest.mark.parametrize(
    ("machine", "overrides", "verdict", "reason"),
    [
        (asking(exclude="true"), {}, "NotSelected", "Excluded"),
        (asking(exclude="true"), {"exclude": "Ignored"}, "Change", None),
        (asking(exclude="yes"), {}, "Change", None),
        (asking(network_pressure="Low"), {}, "Change", None),
        (asking(network_pressure="Low"), {"networkPressure": "Allowed"}, "Compliant", None),
        (asking(network_pressure="Huge"), {"networkPressure": "Allowed"}, "Change", None),
    ],
    ids=[
        "excluded",
        "its wish is ignored",
        "only true counts",
        "pressure is ignored",
        "pressure is allowed",
        "no such pressure",
    ],
)
def test_tenant_annotations_count_only_if_the_policy_allows_them(machine, overrides, verdict, reason):
    found = first(machine, policy(networkPressure="High", tenantOverrides=overrides))
    assert (found.verdict, found.reason) == (verdict, reason)


def test_a_malformed_tenant_annotation_is_reported_as_a_problem():
    assert "must be High or Low" in decision(asking(network_pressure="Huge")).vm.problems[0].message
