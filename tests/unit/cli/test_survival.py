"""`kubectl vmnic capacity --survive`: whether all VMs with VFs fit after the loss of a node or PF."""

import copy
import json

import pytest
from pydantic import TypeAdapter

from tests.builders.decide import collect
from tests.builders.maintenance import BASE, host, running
from tests.builders.vm import kubevirt, nad, nic, node_state, pool, vm
from tests.unit.cli.test_plan import documents, run
from vmnic.cli.live import load_live
from vmnic.cli.offline import decide_all
from vmnic.cli.render import show_survival
from vmnic.cli.schema import Survival
from vmnic.cli.survival import make_survival

SECOND = "0000:0c:00.0"


def survival(of, *documents, offline=False):
    objects = collect(*documents)
    made = make_survival(of, objects, decide_all(objects, offline=offline), [], offline=offline)
    return TypeAdapter(Survival).validate_python(made)


def answers(of, *documents, offline=False):
    found = survival(of, *documents, offline=offline)
    return found["survives"], {(one["node"], one["pf"] or ""): one["survives"] for one in found["losses"]}


def wanting(name, **options):
    """Return a VM with a VF that has not started."""
    return vm(name, nic("fast", binding="sriov", network="fast"), **options)


def two_pfs(name, *, held=None):
    """Return a node with two PFs of two VFs each. `held` has VFs of both, from 0 to 3, by the pod that holds them."""
    node, state = host(name, vfs=2)
    node["status"]["allocatable"] = {"vmnic.dev/fast": "4"}
    first, spec = state["status"]["pfs"][0], state["spec"]["pfs"][0]
    second = copy.deepcopy(first) | {"pciAddress": SECOND, "name": "ens2f0", "firstVf": "0000:0c:10.0"}
    state["status"]["pfs"].append(second)
    state["spec"]["pfs"].append(copy.deepcopy(spec) | {"pciAddress": SECOND})
    for number, by in (held or {}).items():
        pf = (first, second)[number // 2]
        pf["held"].append({"vf": f"{pf['firstVf'][:-1]}{number % 2 * 2}", "by": by})
    return node, state


def pod(name):
    return f"pod tenants/virt-launcher-{name}-abcde"


@pytest.mark.parametrize(
    ("vms", "second", "answer"),
    [
        ([running("a", "n1")], host("n2"), True),
        ([running("a", "n1"), running("b", "n2")], host("n2"), True),
        ([running("a", "n1")], host("n2", unschedulable=True), False),
        ([running("a", "n1", nodeSelector={"rack": "a"})], host("n2", labels={"rack": "b"}), False),
        ([running("a", "n1", vfs=2)], host("n2", vfs=1), False),
        ([running("a", "n1")], host("n2", taints=[{"key": "x", "effect": "NoExecute"}]), False),
        ([running(f"v{number}", "n2") for number in range(7)], host("n2"), True),
        ([running(f"v{number}", "n2") for number in range(7)] + [running("a", "n1")], host("n2"), False),
    ],
    ids=["free", "crosswise", "cordoned", "another rack", "two on one node", "tainted", "just enough", "one too many"],
)
def test_running_vms_need_a_place_on_other_nodes(vms, second, answer):
    documents = [one for pair in vms for one in pair]
    found = survival("node", *BASE, *host("n1"), *second, *documents)
    assert (found["survives"], found["pools"]) == (answer, [{"name": "fast", "survives": answer}])


def test_vms_without_a_place_are_named():
    found = survival("node", *BASE, *host("n1"), *host("n2", vfs=1), *running("a", vfs=2), *running("b", "n2"))
    assert {one["node"]: [vm["name"] for vm in one["unplaced"]] for one in found["losses"]} == {"n1": ["a"], "n2": []}
    assert found["losses"][0]["unplaced"][0]["devices"] == {"vmnic.dev/fast": 2}


def test_vms_from_manifests_are_placed_before_a_loss():
    hosts = [*host("n1", vfs=2), *host("n2", vfs=2)]
    assert answers("node", *BASE, *hosts, wanting("a"), wanting("b"), offline=True)[0] is True
    assert answers("node", *BASE, *hosts, *(wanting(name) for name in "abc"), offline=True)[0] is False


def test_vms_from_manifests_are_placed_again_for_each_loss():
    # `a` suits both n2 and n3 and is placed first where it leaves no place for `b`, which suits only n1 and n3.
    hosts = [*host("n1", vfs=1, labels={"x": "1"}), *host("n2", vfs=1), *host("n3", vfs=1, labels={"x": "1"})]
    picky = wanting("b")
    picky["spec"]["template"]["spec"]["nodeSelector"] = {"x": "1"}
    assert answers("node", *BASE, *hosts, wanting("a"), picky, offline=True)[0] is True


def test_halted_vms_need_no_place():
    assert answers("node", *BASE, *host("n1"), wanting("a", run_strategy="Halted"), offline=True)[0] is True


def test_a_vm_without_a_place_even_now_is_named():
    found = survival("node", *BASE, *host("n1", vfs=1), *host("n2", vfs=1), *map(wanting, "abc"), offline=True)
    assert (found["survives"], [one["name"] for one in found["unplaced"]]) == (False, ["c"])


def test_hundreds_of_vms_are_counted():
    hosts = [one for number in range(60) for one in host(f"n{number}")]
    vms = [wanting(f"v{number}") for number in range(413)]
    assert answers("node", *BASE, *hosts, *vms, offline=True)[0] is True
    assert answers("node", *BASE, *hosts, *vms, wanting("w"), offline=True)[0] is False


@pytest.mark.parametrize(
    ("held", "second", "answer"),
    [
        ({0: "a"}, host("n2", vfs=1, unschedulable=True), {"0000:0b:00.0": True, SECOND: True}),
        ({0: "a", 2: "b", 3: "c"}, host("n2", vfs=1, unschedulable=True), {"0000:0b:00.0": False, SECOND: False}),
        ({0: "a", 2: "b", 3: "c"}, host("n2"), {"0000:0b:00.0": True, SECOND: True}),
        ({2: "a", 3: "b"}, host("n2", vfs=1), {"0000:0b:00.0": True, SECOND: True}),
    ],
    ids=["the other PF has VFs", "none has enough", "another node has", "back on the same node"],
)
def test_vms_of_a_lost_pf_need_a_place_on_any_other_pf(held, second, answer):
    vms = [one for name in held.values() for one in running(name, "n1")]
    holders = {number: pod(name) for number, name in held.items()}
    _, found = answers("pf", *BASE, *two_pfs("n1", held=holders), *second, *vms)
    assert {pf: survives for (node, pf), survives in found.items() if node == "n1"} == answer


@pytest.mark.parametrize(
    ("hosts", "answer"),
    [
        (host("n1"), False),
        ((*host("n1"), *host("n2")), True),
        (two_pfs("n1"), True),
        ((host("n1")[0],), None),
        ((), None),
    ],
    ids=["the only PF", "another node has", "another PF has", "no state", "no node"],
)
def test_a_vm_whose_pf_is_not_reported_may_lose_it(hosts, answer):
    assert answers("pf", *BASE, *hosts, *running("a", "n1"), offline=True)[0] is answer


def test_a_vm_on_either_pf_without_a_place_is_unknown():
    held = {number: pod(f"v{number}") for number in (0, 2)}
    vms = [one for name in ("v0", "v2", "a") for one in running(name, "n1")]
    found = survival("pf", *BASE, *two_pfs("n1", held=held), *vms)
    assert [(one["survives"], "which PF" in one["message"]) for one in found["losses"]] == [(None, True)] * 2


def test_pools_that_share_a_pf_lose_it_together():
    slow = "vmnic.dev/slow"
    node, state = host("n1", vfs=4, held={0: pod("a"), 3: pod("b")})
    node["status"]["allocatable"] = {"vmnic.dev/fast": "2", slow: "2"}
    state["spec"]["pfs"][0]["groups"] = [
        {"pool": "fast", "resource": "vmnic.dev/fast", "range": "0-1"},
        {"pool": "slow", "resource": slow, "range": "2-3"},
    ]
    vms = copy.deepcopy([*running("a", "n1"), *running("b", "n1")])
    for one in vms[2:]:
        spec = one["spec"]["template"]["spec"] if one["kind"] == "VirtualMachine" else one["spec"]
        spec["networks"][0]["multus"]["networkName"] = "slow"
    networks = (pool("slow"), nad("slow", cni="sriov", resource=slow))
    found = survival("pf", *BASE, *networks, node, state, *host("n2"), *vms)
    first = found["losses"][0]
    assert (first["vms"], [one["name"] for one in first["unplaced"]]) == (2, ["b"])
    assert found["pools"] == [{"name": "fast", "survives": True}, {"name": "slow", "survives": False}]


@pytest.mark.parametrize(("second", "answer"), [("ens1f0", True), ("ens2f0", False)])
def test_a_resource_of_one_pf_needs_that_name_elsewhere(second, answer):
    first = "vmnic.dev/fast-ens1f0"
    hosts = []
    for name, link in (("n1", "ens1f0"), ("n2", second)):
        node, state = host(name, vfs=2, held={0: pod("a")} if name == "n1" else None)
        node["status"]["allocatable"] = {f"vmnic.dev/fast-{link}": "2"}
        state["status"]["pfs"][0]["name"] = link
        state["spec"]["pfs"][0]["groups"] = [{"pool": "fast", "resource": f"vmnic.dev/fast-{link}"}]
        hosts += [node, state]
    network = nad("fast", cni="sriov", resource=first)
    given = [BASE[0], pool(resourcePerPF=True), network, *hosts, *running("a", "n1")]
    for of in ("node", "pf"):
        found = survival(of, *given)
        assert (found["survives"], found["pools"]) == (answer, [{"name": "fast", "survives": answer}])
        assert [one["devices"] for one in found["losses"][0]["unplaced"]] == [{first: 1}] * (not answer)


def test_a_whole_nic_is_lost_with_any_pf_of_its_group():
    whole = "vmnic.dev/whole"
    hosts = [node_state(name, pool="whole", vfs=0, function="Physical") for name in ("n1", "n2")]
    for state in hosts:
        pf, spec = state["status"]["pfs"][0], state["spec"]["pfs"][0]
        pf["iommuGroup"] = 7
        state["status"]["pfs"].append(copy.deepcopy(pf) | {"pciAddress": "0000:0b:00.1", "name": "ens1f1"})
        state["spec"]["pfs"].append(copy.deepcopy(spec) | {"pciAddress": "0000:0b:00.1"})
    hosts[0]["status"]["pfs"][0]["held"] = [{"vf": "0000:0b:00.0", "by": pod("a")}]
    machine, instance = copy.deepcopy(running("a", "n1", vfs=0))
    instance["spec"]["domain"]["devices"]["hostDevices"] = [{"name": "nic", "deviceName": whole}]
    given = (kubevirt(permitted=[whole]), pool("whole", function="Physical"), *hosts, machine, instance)
    found = survival("pf", *given)
    assert [(one["node"], one["pf"], one["vms"], one["survives"]) for one in found["losses"]] == [
        ("n1", "0000:0b:00.0", 1, True),
        ("n1", "0000:0b:00.1", 1, True),
        ("n2", "0000:0b:00.0", 0, True),
        ("n2", "0000:0b:00.1", 0, True),
    ]
    assert survival("pf", *(one for one in given if one is not hosts[1]))["survives"] is False


@pytest.mark.parametrize("of", ["node", "pf"])
@pytest.mark.parametrize("is_refused", [True, False], ids=["refused", "unreadable"])
@pytest.mark.parametrize(
    "kind",
    ["Node", "NodeNicState", "SriovNetworkPool", "VirtualMachine", "VirtualMachineInstance", "NetworkAttachmentDefinition"],
)
def test_without_a_deciding_kind_the_answer_is_unknown(kind, is_refused, of):
    given = [*BASE, *host("n1"), *host("n2"), *running("a"), wanting("b")]
    assert survival(of, *given)["survives"] is True
    objects = collect(*(one for one in given if one["kind"] != kind))
    if is_refused:
        objects.refused[kind] = "you may not read it"
    for one in given if not is_refused else ():
        if one["kind"] == kind:
            load_live(objects, one | {"spec": 5, "status": 5})
    made = make_survival(of, objects, decide_all(objects, offline=False), [], offline=False)
    assert made["survives"] is None


@pytest.mark.parametrize("of", ["node", "pf"])
def test_tolerations_beyond_the_bound_leave_the_answer_unknown(of):
    many = [{"key": str(number)} for number in range(5000)]
    assert survival(of, *BASE, *host("n1"), *host("n2"), *running("a", tolerations=many))["survives"] is None


@pytest.mark.parametrize("of", ["node", "pf"])
def test_a_vm_of_an_unknown_network_is_unknown(of):
    found = survival(of, *BASE[:2], *host("n1"), *host("n2"), wanting("a"), offline=True)
    assert (found["survives"], found["problems"][-1]["object"]) == (None, "VirtualMachine/tenants/a")


def test_hostile_names_stay_text(capsys):
    named = [one | {"metadata": one["metadata"] | {"name": "\x1b[2J[red]a\n"}} for one in running("a")]
    found = survival("node", *BASE, *host("n1"), *named)
    show_survival(found)
    shown = capsys.readouterr().out
    assert (found["survives"], "\x1b" in shown, "[red]a" in shown) == (False, False, True)


def test_devices_of_others_are_lost_with_their_pf():
    vms = running("a", "n1")
    found = survival("pf", *BASE, *two_pfs("n1", held={0: "domain x", 1: "domain y", 2: pod("a")}), *vms)
    assert {one["pf"]: (one["vms"], one["survives"]) for one in found["losses"]} == {
        "0000:0b:00.0": (0, True), SECOND: (1, False),
    }  # fmt: skip


def test_vms_from_manifests_count_against_the_pfs_that_are_left():
    assert answers("pf", *BASE, *two_pfs("n1"), *map(wanting, "ab"), offline=True)[0] is True
    assert answers("pf", *BASE, *two_pfs("n1"), *map(wanting, "abc"), offline=True)[0] is False


def test_what_is_not_known_is_no_answer():
    unread = host("n2")[0]
    found = survival("node", *BASE, *host("n1"), unread, *running("a"), offline=True)
    assert (found["survives"], found["losses"][0]["survives"], bool(found["losses"][0]["message"])) == (None, None, True)


@pytest.mark.parametrize(
    ("objects", "code"),
    [
        ([*host("n2"), *running("a")], 0),
        ([*host("n2", unschedulable=True), *running("a")], 1),
        ([host("n2")[0], *running("a")], 1),
        ([*host("n2"), vm("broken", nic()) | {"spec": 5}], 2),
    ],
    ids=["all fit", "one does not fit", "unknown", "unreadable"],
)
@pytest.mark.parametrize("output", ["table", "json"])
def test_the_exit_code_tells_whether_all_fit(objects, code, output):
    given = [*BASE, *host("n1"), *objects]
    found, out, _ = run("capacity", "--survive", "node", "-f", "-", "-o", output, text=documents(*given))
    assert found == code
    if output == "json":
        assert TypeAdapter(Survival).validate_python(json.loads(out))["lossOf"] == "node"
    else:
        assert "pool fast survives the loss of any node" in out


def test_capacity_of_files_is_counted_without_a_cluster():
    code, out, _ = run("capacity", "-f", "-", "-o", "json", text=documents(*BASE, *host("n1"), *running("a")))
    assert (code, json.loads(out)["pools"][0]["configured"]) == (0, 7)
