"""Objects that cannot be read affect only themselves, and nothing is changed because of them."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from tests.builders.machines import NAMESPACE, VmScene
from tests.builders.vm import kubevirt, nad, nic, node, node_state, policy, pool, quota
from vmnic.controller.caches.capacity_cache import recorded_claim
from vmnic.controller.caches.projections import decode_node
from vmnic.controller.pools.networks import NetworkReconciler
from vmnic.controller.pools.nodes import plan_node_spec
from vmnic.kube.reflector import ObjectKey
from vmnic.kube.time_budget import OverBudgetError
from vmnic.kubevirt.vm import decode_machine
from vmnic.nodes.rollout.ledger import Ledger

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
RECORD = '{"nics": {"fast": {"datapath": "sriov", "resource": "vmnic.dev/fast", "of": 7, "was": {}}}}'


def expression(values):
    return {"key": "rack", "operator": "In", "values": [str(number) for number in range(values)]}


def broken(body, field="spec", value=5):
    """Return an object with a field of a type that no decoder accepts."""
    return body | {field: value}


def scene(*policies, name="web", **options):
    found = VmScene(*(policies or (policy(datapaths=("vhost",), existing="Immediately"),)))
    found.add(name, nic(model="e1000e"), **options)
    return found


def patched(found):
    return ("patch", "web") in found.requests


async def reason(found, name="web"):
    await found.look(name)
    return found.note(name).reason


async def test_vms_of_an_unreadable_policy_stay_unchanged():
    low = policy("low", datapaths=("vhost",), existing="Immediately", priority=1)
    high = policy("high", datapaths=("emulated",), existing="Immediately")
    found = scene(high, low)
    found.put("vmnicpolicies", broken(high))
    assert (await reason(found), patched(found), found.get("vmnicstates", "web")) == ("InputUnreadable", False, None)


async def test_never_readable_policy_holds_every_vm():
    found = scene()
    found.put("vmnicpolicies", broken(policy("other")))
    assert (await reason(found), patched(found)) == ("InputUnreadable", False)


async def test_vms_outside_an_unreadable_policy_are_still_decided():
    other = policy("other", selector={"vmSelector": {"matchLabels": {"app": "db"}}})
    found = scene(policy(datapaths=("vhost",), existing="Immediately"), other)
    found.put("vmnicpolicies", broken(other))
    await found.look("web")
    assert patched(found)


async def test_repaired_policy_decides_again():
    found = scene()
    found.put("vmnicpolicies", broken(policy("other")))
    found.remove("vmnicpolicies", "other", "")
    await found.look("web")
    assert patched(found)


@pytest.mark.parametrize("plural", ["virtualmachines", "virtualmachineinstances", "vmnicstates"])
async def test_vm_with_an_unreadable_object_is_not_patched(plural):
    found = scene()
    body = found.get(plural, "web") or {"metadata": {"name": "web", "namespace": NAMESPACE}}
    found.put(plural, broken(body, "status" if plural == "vmnicstates" else "spec"))
    assert await found.look("web") is None
    assert found.requests == []
    assert [one.kind for one in found.world.set_aside.items()] == [found._cache(plural).resource.kind]


async def test_unreadable_vm_keeps_its_record():
    found = scene(policy(datapaths=("emulated",)))
    await found.look("web")
    found.put("virtualmachines", broken(found.get("virtualmachines", "web")))
    await found.look("web")
    assert found.note("web").policy == "all"


def under_restart(**options):
    """Return a scene with VM web, which restarts, and VM web2, which waits for it."""
    found = VmScene(policy(datapaths=("vhost",), existing="Rolling"), **options)
    for name in ("web", "web2"):
        found.add(name, nic(model="e1000e"))
    return found


UNREADABLE = ["virtualmachines", "virtualmachineinstances", "vmnicstates"]


@pytest.mark.parametrize("plural", UNREADABLE)
@pytest.mark.parametrize(("restart_timeout", "failed"), [(timedelta(seconds=-1), ["web"]), (timedelta(hours=1), [])])
async def test_unreadable_vm_keeps_its_restart_slot(plural, restart_timeout, failed):
    found = under_restart(restart_timeout=restart_timeout)
    await found.look("web")
    found.put(plural, broken(found.get(plural, "web"), "status" if plural == "vmnicstates" else "spec"))
    found.asked_for()
    await found.look("web")
    assert [key.name for key in found.machines.slots.failed("all")] == failed
    assert found.asked_for() == ([] if failed else ["web"])
    await found.look("web2")
    assert ("restart", "web2") not in found.requests


async def test_unreadable_vm_that_runs_again_releases_its_slot():
    found = under_restart()
    await found.look("web")
    await found.look("web2")
    found.put("virtualmachines", broken(found.get("virtualmachines", "web")))
    body = found.get("virtualmachineinstances", "web")
    found.put("virtualmachineinstances", body | {"metadata": body["metadata"] | {"uid": "new"}})
    found.asked_for()
    await found.look("web")
    assert (found.machines.slots.in_progress(), found.asked_for()) == ([], ["web2"])


@pytest.mark.parametrize("plural", UNREADABLE[:2])
async def test_new_leader_counts_the_restart_of_an_unreadable_vm(plural):
    found = under_restart()
    await found.look("web")
    found.put(plural, broken(found.get(plural, "web")))
    found.lead_anew()
    await found.look("web")
    assert [key.name for key in found.machines.slots.in_progress()] == ["web"]


def with_vfs(**options):
    found = VmScene(policy(datapaths=("sriov",), existing="Immediately"))
    found.put("nodes", node("n1"))
    found.put("sriovnetworkpools", pool())
    found.put("nodenicstates", node_state())
    found.put("network-attachment-definitions", nad("fast", cni="sriov", resource="vmnic.dev/fast"))
    found.add("web", nic("fast", binding="sriov", network="fast"), uid=None, **options)
    return found


def assigned(found):
    return found.world.devices.capacity.assigned.get("vmnic.dev/fast", 0)


def test_unreadable_vm_keeps_its_vf():
    found = with_vfs()
    assert assigned(found) == 1
    found.put("virtualmachines", broken(found.get("virtualmachines", "web")))
    assert assigned(found) == 1


def test_never_readable_vm_keeps_the_devices_in_its_annotation():
    found = with_vfs()
    body = broken(found.get("virtualmachines", "web"))
    body["metadata"] = body["metadata"] | {"name": "db", "annotations": {"vmnic.dev/assigned": RECORD}}
    found.put("virtualmachines", body)
    assert assigned(found) == 2


def test_deleted_vm_releases_its_vf_although_unreadable():
    found = with_vfs()
    found.put("virtualmachines", broken(found.get("virtualmachines", "web")))
    found.remove("virtualmachines", "web")
    assert assigned(found) == 0


def test_capacity_is_known_although_one_vm_fails_to_evaluate(monkeypatch):
    found = with_vfs()
    found.add("bad", nic("fast", binding="sriov", network="fast"), uid=None)
    gather = found.world.devices._gather
    monkeypatch.setattr(found.world.devices, "_gather", lambda key: 1 / 0 if key.name == "bad" else gather(key))
    assert assigned(found) == 1
    assert [one.key for one in found.world.set_aside.items()] == [f"{NAMESPACE}/bad"]


def test_vm_without_annotation_has_no_claim():
    machine = decode_machine(b'{"metadata": {"name": "v", "annotations": {"vmnic.dev/assigned": "[["}}, "spec": {}}')
    assert recorded_claim(ObjectKey(NAMESPACE, "v"), machine) is None


@pytest.mark.parametrize(
    "config", ["[" * 5000, "{", "[]", '{"plugins": [5]}', '{"mtu": "large"}', '{"a": "' + "x" * 2**16 + '"}']
)
async def test_nic_on_an_unreadable_network_stays_unchanged(config):
    found = VmScene(policy(datapaths=("vhost",), existing="Immediately"))
    network = nad("br")
    network["spec"]["config"] = config
    found.put("network-attachment-definitions", network)
    found.add("web", nic("br", binding="bridge", network="br", model="e1000e"))
    assert (await reason(found), patched(found)) == ("InputUnreadable", False)


@pytest.mark.parametrize("field", ["metadata", "spec"])
async def test_nic_on_a_network_that_is_set_aside_stays_unchanged(field):
    found = VmScene(policy(datapaths=("vhost",), existing="Immediately"))
    network = nad("br")
    found.put("network-attachment-definitions", network)
    found.add("web", nic("br", binding="bridge", network="br", model="e1000e"))
    broken_field = network["metadata"] | {"labels": 5} if field == "metadata" else 5
    found.put("network-attachment-definitions", broken(network, field, broken_field))
    assert (await reason(found), patched(found)) == ("InputUnreadable", False)


async def test_segment_with_an_unreadable_network_is_unknown():
    found = VmScene(policy(datapaths=("sriov", "vhost"), existing="Immediately"))
    fast = nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue")
    fast["spec"]["config"] = "{"
    found.put("network-attachment-definitions", fast, nad("br", segment="blue"))
    found.add("web", nic("br", binding="bridge", network="br", model="e1000e"))
    assert (await reason(found), patched(found)) == ("InputUnreadable", False)


@pytest.mark.parametrize(
    ("plural", "field", "rule", "model", "held"),
    [
        ("virtualmachineclusterpreferences", "preference", {}, None, True),
        ("virtualmachineclusterpreferences", "preference", {}, "e1000e", False),
        ("virtualmachineclusterpreferences", "preference", {"networkPressure": "High"}, "e1000e", True),
        ("virtualmachineclusterinstancetypes", "instancetype", {"networkPressure": "High"}, "e1000e", True),
        ("virtualmachineclusterinstancetypes", "instancetype", {}, "e1000e", False),
    ],
    ids=["its model", "the VM's own model", "its multiqueue", "its vCPUs", "vCPUs that nothing needs"],
)
async def test_unreadable_preference_holds_what_it_decides(plural, field, rule, model, held):
    found = VmScene(policy(datapaths=("vhost",), existing="Immediately", **rule))
    found.put(plural, broken({"metadata": {"name": "one"}}))
    found.add("web", nic(model=model) if model else nic(), **{field: {"name": "one"}})
    assert (await reason(found) == "PreferenceUnknown", patched(found)) == (held, not held)


@pytest.mark.parametrize(
    ("spec", "status"),
    [(5, {}), ({"hard": {"requests.memory": "much"}}, {}), ({}, {"used": {"requests.memory": "1" * 65}})],
)
async def test_unreadable_quota_blocks_what_it_may_limit(spec, status):
    found = VmScene(policy(datapaths=("sriov", "vhost"), existing="Immediately"))
    found.put("resourcequotas", quota() | {"spec": spec, "status": status})
    found.put("sriovnetworkpools", pool())
    found.put("nodes", node("n1"))
    found.put("nodenicstates", node_state())
    fast = nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue")
    found.put("network-attachment-definitions", fast, nad("br", segment="blue"))
    found.add("web", nic("br", binding="bridge", network="br", model="e1000e"))
    assert (await reason(found), patched(found)) == ("InputUnreadable", False)


async def test_unreadable_quota_blocks_nothing_else():
    found = scene()
    found.put("resourcequotas", broken(quota()))
    await found.look("web")
    assert patched(found)


@pytest.mark.parametrize(("datapath", "held"), [("macvtap", True), ("vhost", False)])
async def test_unreadable_kubevirt_blocks_what_depends_on_it(datapath, held):
    found = VmScene(policy(datapaths=(datapath,), existing="Immediately"))
    found.put("kubevirts", broken(kubevirt()))
    found.put("network-attachment-definitions", nad("br", segment="b"), nad("tap", cni="macvtap", segment="b"))
    found.add("web", nic("br", binding="bridge", network="br", model="e1000e"))
    assert (await reason(found) == "InputUnreadable", patched(found)) == (held, not held)


def spec_of(unreadable, *pools):
    """Return the spec of a function that pools a (VFs 0-2) and b (3-6) share while some are unreadable."""
    found = VmScene()
    state = node_state()
    groups = [{"pool": name, "resource": f"vmnic.dev/{name}", "range": vfs} for name, vfs in (("a", "0-2"), ("b", "3-6"))]
    state["spec"]["pfs"][0] |= {"pool": "a", "groups": groups}
    state["status"]["pfs"][0] |= {"vendor": "8086", "device": "1521"}
    found.put("nodenicstates", state)
    found.put("sriovnetworkpools", *pools)
    (current,) = found.world.node_states.items.values()
    readable = tuple(found.world.pools.items.values())
    (pf,) = plan_node_spec({}, current, pools=readable, unreadable_pools=unreadable, ledger=Ledger()).pfs
    return pf.pool, sorted((group.pool, group.range) for group in pf.groups)


A, B = pool("a", vfRange="0-2"), pool("b", vfRange="3-6")
BOTH = [("a", "0-2"), ("b", "3-6")]


@pytest.mark.parametrize(
    ("unreadable", "pools", "groups"),
    [
        ((), (A, B), BOTH),
        ({"b"}, (A,), BOTH),
        ({"a"}, (B,), BOTH),
        ({"a", "b"}, (), BOTH),
        ({"b"}, (), [("b", "3-6")]),
        ({"b"}, (pool("a", vfRange="0-1"),), [("a", "0-1"), ("b", "3-6")]),
        ({"b"}, (pool("a", vfRange="0-3"),), BOTH),
    ],
    ids=["both", "b unreadable", "a unreadable", "neither readable", "a gone", "a smaller", "a wants VF 3"],
)
def test_unreadable_pool_keeps_its_share(unreadable, pools, groups):
    owner, found = spec_of(unreadable, *pools)
    assert (owner, found) == ("a" if any(name == "a" for name, _ in groups) else "b", groups)


def slow_claims(found, monkeypatch):
    """Count how often the facts of the VM `bad` are read.

    Each read takes too long.
    """
    reads, gather = [], found.world.devices._gather

    def read(key):
        if key.name != "bad":
            return gather(key)
        reads.append(key)
        raise OverBudgetError("slow")

    monkeypatch.setattr(found.world.devices, "_gather", read)
    return reads


def test_slow_vm_is_read_once_per_change(monkeypatch):
    found = with_vfs()
    found.add("bad", nic("fast", binding="sriov", network="fast"), uid=None)
    reads = slow_claims(found, monkeypatch)
    for _ in range(3):
        found.world.devices.invalidate_nodes()
        assert assigned(found) == 1
    assert len(reads) == 1


@pytest.mark.parametrize(
    "spec",
    [
        {"nodeSelector": {f"l{number}": "x" for number in range(101)}},
        {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": []}] * 101}}}},
        {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [expression(2001)]}]}}}},
    ],
    ids=["labels", "terms", "values"],
)
async def test_vm_with_a_huge_placement_stays_unchanged(spec):
    found = scene()
    template = found.get("virtualmachines", "web")["spec"]["template"]
    found.change("web", template=template | {"spec": template["spec"] | spec})
    assert (await reason(found), patched(found)) == ("InputUnreadable", False)


async def test_unreadable_namespace_selects_as_before():
    high = policy("high", datapaths=("emulated",), selector={"namespaceSelector": {"matchLabels": {"a": "b"}}})
    low = policy("low", datapaths=("vhost",), existing="Immediately", priority=1)
    found = VmScene(high, low)
    home = {"metadata": {"name": NAMESPACE, "labels": {"a": "b"}}}
    found.put("namespaces", home)
    found.add("web", nic(model="e1000e"))
    found.put("namespaces", {"metadata": home["metadata"] | {"labels": 5}})
    await found.look("web")
    assert (found.note("web").policy, patched(found)) == ("high", False)


async def test_never_readable_namespace_holds_its_vms():
    found = scene()
    found.put("namespaces", {"metadata": {"name": NAMESPACE, "labels": 5}})
    assert (await reason(found), patched(found)) == ("InputUnreadable", False)


def test_unreadable_node_is_out_of_service_and_not_deleted():
    found = with_vfs()
    found.put("nodes", {"metadata": {"name": "n1", "labels": 5}})
    (given,) = found.world.inputs.nodes()
    assert (given.name, given.schedulable, given.state is not None) == ("n1", False, True)


@pytest.mark.parametrize("plural", ["virtualmachines", "virtualmachineinstances"])
async def test_network_stays_while_a_vm_cannot_be_read(plural):
    found = VmScene()
    found.put(plural, {"metadata": {"name": "odd", "namespace": "elsewhere"}, "spec": 5})
    key = ObjectKey(NAMESPACE, "fast")
    users = await NetworkReconciler(found.world, found)._users({key})
    assert users == {key: {("elsewhere", "odd")}}


@pytest.mark.parametrize("since", ["-3", "", "2026-01-01", "2026-01-01T00:00:00"])
def test_node_with_an_unreadable_time_is_waited_for(since):
    conditions = [{"type": "Ready", "status": "False", "lastTransitionTime": since}]
    raw = msgspec.json.encode({"metadata": {"name": "n1"}, "status": {"conditions": conditions}})
    assert not decode_node(msgspec.Raw(raw)).is_lost(datetime.now(UTC))


@pytest.mark.parametrize(("architecture", "expected"), [("", ("InputUnreadable", False)), ("amd64", ("", True))])
async def test_an_unreadable_kubevirt_hides_the_architecture(architecture, expected):
    found = VmScene(policy(datapaths=("emulated",), existing="Immediately"))
    found.add("web", nic(model="virtio"))
    body = found.get("virtualmachines", "web")
    body["spec"]["template"]["spec"]["architecture"] = architecture
    found.put("virtualmachines", body)
    found.put("kubevirts", broken(kubevirt()))
    assert (await reason(found), patched(found)) == expected


async def test_an_inferred_preference_is_unknown():
    found = VmScene(policy(datapaths=("vhost",), existing="Immediately"))
    found.add("web", nic())
    body = found.get("virtualmachines", "web")
    found.put("virtualmachines", body | {"spec": body["spec"] | {"preference": {"inferFromVolume": "root"}}})
    assert (await reason(found), patched(found)) == ("PreferenceUnknown", False)
