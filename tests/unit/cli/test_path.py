"""`kubectl vmnic path`: the NICs of one VM or domain, from files and from a cluster."""

import json
import pathlib
from xml.etree import ElementTree as ET

import pytest
import yaml
from pydantic import TypeAdapter
from typer.testing import CliRunner

from tests.builders.decide import collect
from tests.builders.vm import nad, nic, node_state, policy, pool, preference, vm, vmi
from vmnic.cli import live
from vmnic.cli.app import app
from vmnic.cli.offline import decide_all
from vmnic.cli.path import index_ports, paths_of_plan, paths_of_vm
from vmnic.cli.path_schema import PathDocument
from vmnic.cli.plan import make_plan

DOMAINS = pathlib.Path(__file__).parents[1] / "libvirt" / "domains"
POD = "pod tenants/virt-launcher-web-x7k2p"
NETWORKS = (nad("br", segment="blue"), nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue"))


def invoke(*arguments, text=None):
    done = CliRunner().invoke(app, ["path", *map(str, arguments)], input=text)
    return done.exit_code, done.stdout, done.stderr


def offline(*objects, name="web", output="json"):
    text = yaml.safe_dump_all(objects)
    code, out, err = invoke("vm", name, "-n", "tenants", "-f", "-", "-o", output, text=text)
    assert code == 0, err
    return json.loads(out) if output == "json" else out


def paths(*objects, is_offline=False):
    """Return the paths of each NIC of the only VM: the states and the datapath."""
    objects = collect(*objects)
    decided = decide_all(objects, offline=is_offline)
    (decision,) = decided.vms
    made = paths_of_vm(decided, decision, index_ports(objects))
    return {one["name"]: one["paths"] for one in made["nics"]}


def states(found):
    return [(", ".join(one["states"]), one["datapath"]) for one in found]


def layer(path, kind):
    return next((one for one in path["layers"] if one["kind"] == kind), None)


def instance(*pairs, node="n1", **fields):
    """Return the running instance of the VM `web` with these NICs."""
    made = vmi(**fields)
    made["spec"] = {"domain": {"devices": {"interfaces": [pair[0] for pair in pairs]}}, "networks": [pair[1] for pair in pairs]}
    made["status"]["nodeName"] = node
    return made


def test_a_path_has_the_published_schema():
    made = offline(
        vm("web", nic(model="e1000e"), nic("vf", binding="sriov", network="fast")), *NETWORKS, pool(), node_state(), policy()
    )
    TypeAdapter(PathDocument).validate_python(made, strict=True)
    assert (made["kind"], [one["name"] for one in made["nics"]]) == ("Path", ["default", "vf"])


def test_spec_and_wanted_nic_are_shown():
    found = paths(vm("web", nic(model="e1000e"), run_strategy="Halted"), policy())
    assert states(found["default"]) == [("Spec", "emulated"), ("Wanted", "vhost")]


def test_a_vm_that_no_policy_selects_has_paths():
    assert states(paths(vm("web"))["default"]) == [("Spec", "vhost")]


def test_equal_states_are_one_path():
    found = paths(vm("web", nic(model="virtio")), instance(nic(model="virtio")), policy())
    assert states(found["default"]) == [("Running, Spec", "vhost")]


def test_a_change_that_waits_for_a_restart_shows_the_running_nic():
    found = paths(vm("web", nic(model="virtio")), instance(nic(model="e1000e")), policy())
    assert states(found["default"]) == [("Running", "emulated"), ("Spec", "vhost")]


def test_the_network_of_a_running_nic_that_moves_is_unknown():
    machine, now = (
        vm("web", nic("data", binding="bridge", network="br", model="virtio")),
        instance(nic("data", binding="sriov", network="fast")),
    )
    running, spec = paths(machine, now, *NETWORKS, pool(), node_state())["data"]
    assert (running["datapath"], spec["datapath"]) == ("sriov", "vhost")
    assert layer(spec, "Network")["name"] == "tenants/br"
    back = vm("web", nic("data", binding="sriov", network="fast"))
    running, spec = paths(back, instance(nic("data", binding="bridge", network="br", model="virtio")), *NETWORKS, pool())[
        "data"
    ]
    assert (layer(running, "Network")["state"], layer(running, "Binding")["name"]) == ("Unknown", "bridge")


def test_a_wanted_bridge_is_bound_as_the_patch_binds_it():
    found = paths(
        vm("web", nic("data", binding="sriov", network="fast"), run_strategy="Halted"),
        *NETWORKS,
        pool(),
        node_state(),
        policy(datapaths=["vhost"]),
    )
    spec, wanted = found["data"]
    assert (spec["datapath"], wanted["datapath"]) == ("sriov", "vhost")
    assert [layer(wanted, kind)["name"] for kind in ("Binding", "Network")] == ["bridge", "tenants/br"]


VF = vm("web", nic("data", binding="sriov", network="fast"))


@pytest.mark.parametrize(
    ("nodes", "node", "holder", "port"),
    [
        (["n1"], None, "", "ens1f0 (I350) on n1"),
        (["n1", "n2"], None, "", "ens1f0 (I350)"),
        (["n1", "n2"], "n2", "", "ens1f0 (I350) on n2"),
        (["n1"], "n1", POD, "ens1f0 (I350) on n1"),
        (["n1"], "n3", "", ""),
    ],
    ids=["stopped", "stopped, two nodes", "running", "running with its holder", "running on an unknown node"],
)
def test_the_port_is_the_one_of_the_vms_node(nodes, node, holder, port):
    given = [node_state(name, held=[1] if holder else ()) for name in nodes]
    for one in given:
        one["status"]["pfs"][0]["held"] = [held | {"by": holder} for held in one["status"]["pfs"][0]["held"]]
    now = [instance(nic("data", binding="sriov", network="fast"), node=node)] if node else []
    path = paths(VF, *now, *NETWORKS, pool(), *given)["data"][0]
    assert layer(path, "Port")["name"] == port
    assert layer(path, "Function")["name"] == "VF of pool fast"


@pytest.mark.parametrize(
    ("holder", "ports"),
    [(POD, {"ens1f1 (I350) on n1"}), ("pod tenants/virt-launcher-web-2-x7k2p", {"ens1f0 (I350) or ens1f1 (I350) on n1"})],
    ids=["its own pod", "the pod of another VM"],
)
def test_of_two_ports_the_one_whose_vf_the_vm_holds_is_named(holder, ports):
    state = node_state()
    second = json.loads(json.dumps(state["status"]["pfs"][0]).replace("0000:0b:", "0000:0c:").replace("ens1f0", "ens1f1"))
    second["held"] = [{"vf": "0000:0c:10.2", "by": holder}]
    state["status"]["pfs"].append(second)
    state["spec"]["pfs"].append(state["spec"]["pfs"][0] | {"pciAddress": "0000:0c:00.0"})
    now = instance(nic("data", binding="sriov", network="fast"))
    path = paths(VF, now, *NETWORKS, pool(), state)["data"][0]
    assert {layer(path, "Port")["name"]} == ports
    assert layer(path, "Driver")["name"] == "igbvf"


def test_nodes_that_the_vm_may_not_use_have_no_port_for_it():
    machine = vm("web", nic("data", binding="sriov", network="fast"), run_strategy="Halted")
    machine["spec"]["template"]["spec"]["nodeSelector"] = {"zone": "a"}
    nodes = [
        {"kind": "Node", "metadata": {"name": name, "labels": {"zone": zone}}} for name, zone in (("n1", "a"), ("n2", "b"))
    ]
    found = paths(machine, *nodes, *NETWORKS, pool(), node_state("n1"), node_state("n2"))
    assert layer(found["data"][0], "Port")["name"] == "ens1f0 (I350) on n1"


def test_a_missing_preference_makes_the_model_unknown():
    machine = vm("web", run_strategy="Halted", preference={"name": "gone"})
    assert layer(paths(machine)["default"][0], "Driver")["state"] == "Unknown"
    known = preference("gone", model="e1000e", cluster=True)
    assert layer(paths(machine, known)["default"][0], "Driver")["name"] == "e1000e"


@pytest.mark.parametrize(("output", "words"), [("table", "left out"), ("yaml", "state: LeftOut"), ("svg", ">left out<")])
def test_every_format_shows_what_is_left_out(output, words):
    assert words in offline(vm("web", nic(model="virtio")), output=output)


def test_the_picture_is_well_formed_and_shows_each_path():
    out = offline(
        vm("web", nic(model="e1000e"), nic("b", binding="bridge", network="br"), run_strategy="Halted"),
        *NETWORKS,
        policy(),
        output="svg",
    )
    text = [one.text for one in ET.fromstring(out).iter("{http://www.w3.org/2000/svg}text")]
    assert [one for one in text if one.endswith((": emulated", ": vhost"))] == [
        "default: emulated",
        "default: vhost",
        "b: vhost",
    ]


def test_a_vm_without_nics_has_an_empty_path():
    machine = vm("web")
    machine["spec"]["template"]["spec"] |= {"networks": [], "domain": {"devices": {"autoattachPodInterface": False}}}
    assert offline(machine)["nics"] == []
    assert ET.fromstring(offline(machine, output="svg")).tag.endswith("svg")


@pytest.mark.parametrize("file", sorted(DOMAINS.glob("*.xml")), ids=lambda path: path.stem)
def test_every_domain_has_a_path(file):
    name = collect_name(file)
    code, out, err = invoke("domain", name, "-f", file, "-o", "json")
    assert code == 0, err
    made = json.loads(out)
    TypeAdapter(PathDocument).validate_python(made, strict=True)
    assert (made["vm"]["kind"], made["vm"]["name"]) == ("Domain", name)
    assert {layer["kind"] for one in made["nics"] for path in one["paths"] for layer in path["layers"]} >= (
        {"Driver", "Port"} if made["nics"] else set()
    )


def collect_name(file):
    return ET.parse(file).getroot().findtext("name").strip()


@pytest.mark.parametrize(
    ("arguments", "text", "words"),
    [
        (["vm", "x", "-n", "tenants"], yaml.safe_dump(vm()), "VirtualMachine tenants/x is not given: add it to the files"),
        (["vm", "web", "-n", "tenants"], yaml.safe_dump({**vm(), "spec": {"template": 5}}), "$.spec.template"),
        (["domain", "web"], yaml.safe_dump(vm()), "Domain web is not given"),
        (["domain", "d"], "<domain><name>d</name><devices><interface type='bridge'><driver queues='x'/></interface></devices></domain>", "<driver queues='x'>"),
    ],
    ids=["no such VM", "a malformed VM", "a VM is no domain", "a malformed domain"],
)  # fmt: skip
def test_what_cannot_be_shown_is_an_error(arguments, text, words):
    code, out, err = invoke(*arguments, "-f", "-", text=text)
    assert (code, out) == (2, "")
    assert words in err


def test_a_file_that_cannot_be_read_is_named_after_the_path():
    text = yaml.safe_dump_all([vm(), {**vm("broken"), "spec": {"template": 5}}])
    code, out, err = invoke("vm", "web", "-n", "tenants", "-f", "-", text=text)
    assert (code, "NIC default" in out, "broken" in err) == (2, True, True)


def test_a_live_path_is_read_from_the_cluster(monkeypatch):
    async def read_cluster(kubeconfig, kinds):
        return collect(vm("web", nic(model="virtio")), instance(nic(model="virtio"))), []

    monkeypatch.setattr(live, "read_cluster", read_cluster)
    code, out, _ = invoke("vm", "web", "-n", "tenants", "-o", "json")
    assert (code, json.loads(out)["vm"]["node"]) == (0, "n1")
    code, _, err = invoke("vm", "no", "-n", "tenants")
    assert (code, "does not exist: `kubectl get vm -n tenants` lists" in err) == (2, True)


def test_a_plan_shows_paths_of_changes_first_and_of_few_vms():
    machines = [vm(f"vm{number:03}", nic(model="virtio" if number < 250 else "e1000e")) for number in range(251)]
    objects = collect(*machines, policy())
    decided = decide_all(objects, offline=True)
    found = paths_of_plan(make_plan(objects, decided, []), objects, decided)
    assert ([one["vm"]["name"] for one in found[:2]], len(found)) == (["vm250", "vm000"], 200)
