"""`kubectl vmnic plan -f`, offline and on manifests."""

import json
import pathlib
import subprocess
import sys

import pytest
import yaml
from pydantic import TypeAdapter

from tests.builders.decide import collect
from tests.builders.vm import kubevirt, nad, nic, node_state, policy, pool, vm
from vmnic.cli.objects import MalformedObjectError, Objects
from vmnic.cli.offline import decide_all
from vmnic.cli.plan import plan_vm
from vmnic.cli.render import show_explanation
from vmnic.cli.schema import Plan

PROGRAM = str(pathlib.Path(sys.executable).with_name("kubectl-vmnic"))


DOMAINS = pathlib.Path(__file__).parents[1] / "libvirt" / "domains"


def run(*arguments, text=None):
    done = subprocess.run([PROGRAM, *arguments], input=text, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def documents(*objects):
    return yaml.safe_dump_all(objects)


def domain(device):
    return f"<domain><name>d</name><devices>{device}</devices></domain>"


def plan_of(*objects):
    code, out, err = run("plan", "-f", "-", "-o", "json", text=documents(*objects))
    assert code in (0, 1), err
    return code, json.loads(out)


def test_a_change_is_shown_completely_and_gives_exit_code_1():
    code, plan = plan_of(policy("linux"), vm("web", nic(model="e1000e"), run_strategy="Halted"))
    assert (code, plan["summary"]) == (1, {"vms": 1, "changes": 1, "blocked": 0, "disruptive": 0})
    found = plan["vms"][0]["nics"][0]
    assert (found["policy"], found["action"], found["verdict"], found["reason"]) == ("linux", "Patch", "Change", None)
    assert (found["from"], found["to"]) == (
        {"datapath": "emulated", "model": "e1000e", "queues": 1}, {"datapath": "vhost", "model": "virtio", "queues": 1},
    )  # fmt: skip
    assert "virtio" in [one["value"] for one in plan["vms"][0]["patch"]]


def test_a_plan_without_changes_gives_exit_code_0():
    assert plan_of(policy("linux"), vm("web"))[0] == 0


EVERY_NIC = "for nic in /sys/bus/virtio/devices/*/net/*; do ethtool -L ${nic##*/} combined 2; done"


def by_mac(mac):
    return f"ethtool -L $(grep -li {mac} /sys/bus/virtio/devices/*/net/*/address | cut -d/ -f8) combined 2"


def test_a_vm_whose_spec_asks_to_run_counts_as_running():
    _, plan = plan_of(policy("linux"), vm("web", nic(model="e1000e"), run_strategy="Always"))
    machine = plan["vms"][0]
    assert (machine["restartRequired"], machine["nics"][0]["reason"], machine["patch"]) == (True, "WaitsForStop", [])


def test_an_unknown_guest_is_blocked_and_not_a_change():
    code, plan = plan_of(policy("linux"), vm("web", os=None))
    assert (code, plan["summary"]["blocked"]) == (0, 1)


def test_a_vm_that_no_policy_selects_is_left_out():
    assert plan_of(policy("x", selector={"guestOS": ["windows"]}), vm("web"))[1]["vms"] == []


def test_the_order_of_the_input_does_not_matter():
    objects = [policy("linux"), vm("b", nic(model="e1000e")), vm("a", nic(model="e1000e"))]
    assert plan_of(*objects) == plan_of(*reversed(objects))


def test_other_kinds_are_skipped_and_counted():
    _, out, _ = run("plan", "-f", "-", text=documents({"kind": "ConfigMap", "metadata": {"name": "x"}}))
    assert "1 objects of other kinds were skipped" in out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "standard input:2:"),
        (
            documents(vm(), {**policy(), "spec": {"selector": {"networks": ["*"]}, "datapath": "auto"}}),
            "VmNicPolicy all: spec.datapath:",
        ),
        (documents({**vm(), "spec": {"template": 5}}), "$.spec.template"),
        (documents(vm(), vm()), "the same object is given twice"),
        ("- 1", "not a Kubernetes object"),
        ("a: \x01", "standard input:1: not valid YAML: unacceptable character"),
        ("kind: VirtualMachine\nmetadata: a", "VirtualMachine: metadata.name is missing"),
        ("kind: Namespace\nmetadata: {name: a, labels: b}", "Namespace a: Expected `object`, got `str` - at `$.metadata.labels`"),
        ("kind: VirtualMachineList\nitems: [a]", "not a Kubernetes object"),
        (documents(pool(num_vfs="half")), "SriovNetworkPool fast: spec.numVfs: numVfs is a number from 0 to 256"),
        (documents(pool(num_vfs=-3)), "SriovNetworkPool fast: spec.numVfs: numVfs is a number from 0 to 256"),
        (documents(pool(num_vfs=True)), "SriovNetworkPool fast: spec.numVfs"),
        (documents(pool(vfRange="3-0")), "SriovNetworkPool fast: spec.vfRange: vfRange is the index of a VF"),
        (documents(pool(rollout={"maxConcurrent": 0})), "spec.rollout.maxConcurrent: give a number of 1 or more"),
        (documents(policy(enforcement={"maxUnavailable": "lots"})), "spec.enforcement.maxUnavailable: give a number"),
        (domain("<interface type='bridge'><model type='virtio'/><driver queues='many'/></interface>"), "line 1: <driver queues='many'> is not a number"),
        (domain("<interface type='hostdev'><source><address bus='08'/></source></interface>"), "line 1: <address bus='08'> is not a number"),
    ],
    ids=[
        "no YAML", "an unknown field", "a wrong type", "twice", "a list", "a control character", "words for metadata",
        "words for labels", "words in a list", "a number in words", "a negative number", "yes", "a range that ends first", "none",
        "a share in words", "queues in words", "octal that is none",
    ],
)  # fmt: skip
def test_the_error_of_bad_input_names_place_object_and_field(text, words):
    code, _, err = run("plan", "-f", "-", text=text)
    assert code == 2
    assert words in err


def test_objects_of_the_api_server_may_have_unknown_fields():
    newer = policy(color="blue")
    collected = Objects(of_server=True)
    collected.add(newer)
    assert list(collected.policies) == ["all"]
    with pytest.raises(MalformedObjectError, match=r"VmNicPolicy all: spec\.color:"):
        Objects().add(newer)


def test_an_error_names_file_and_line(tmp_path):
    (tmp_path / "two.yaml").write_text(documents(vm()) + "---\n" + documents({**vm("b"), "spec": {"template": 5}}))
    code, _, err = run("plan", "-f", str(tmp_path))
    assert code == 2
    assert "two.yaml:" in err
    assert "VirtualMachine tenants/b" in err


def test_a_directory_is_read_and_with_R_its_subdirectories(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "policy.yaml").write_text(documents(policy("linux")))
    (tmp_path / "below" / "vm.yaml").write_text(documents(vm("web", nic(model="e1000e"))))
    assert run("plan", "-f", str(tmp_path))[0] == 0
    assert run("plan", "-f", str(tmp_path), "-R")[0] == 1


def test_a_missing_file_gives_exit_code_2():
    code, _, err = run("plan", "-f", "/no/such/file")
    assert (code, "No such file" in err) == (2, True)


def test_a_pool_without_node_states_is_a_problem_not_an_error():
    one = {
        "kind": "SriovNetworkPool",
        "metadata": {"name": "fast"},
        "spec": {"nicSelector": {"models": ["82576"]}, "numVfs": 7},
    }
    code, plan = plan_of(one)
    assert (code, plan["problems"][0]["reason"]) == (0, "CapacityUnknown")


def test_a_pool_with_node_states_is_planned():
    one = {
        "kind": "SriovNetworkPool",
        "metadata": {"name": "fast"},
        "spec": {"nicSelector": {"models": ["82576"]}, "numVfs": 3},
    }
    pf = {"pciAddress": "0000:0b:00.0", "model": "82576", "driver": "igb", "totalVfs": 7, "numVfs": 7}
    pf |= {"vfs": [{"range": "0-6", "driver": "vfio-pci"}], "held": [{"vf": "0000:0b:10.2", "by": "pod a/b"}]}
    state = {
        "kind": "NodeNicState",
        "metadata": {"name": "n1"},
        "status": {"bootID": "b", "host": {"iommu": True, "modules": ["vfio_pci"]}, "pfs": [pf]},
    }
    code, plan = plan_of(one, state)
    row = plan["pools"][0]["nodes"][0]
    assert (code, row["node"], row["disruptive"], row["blockedBy"]) == (1, "n1", True, ["pod a/b holds 0000:0b:10.2"])


def test_a_plan_matches_its_published_schema():
    shape = TypeAdapter(Plan)
    windows = vm("b", nic(model="virtio"), os="windows", run_strategy="Halted")
    _, plan = plan_of(policy("linux"), vm("a", os=None), windows, vm("c", nic(binding="sriov", network="x")))
    assert shape.validate_python(plan, strict=True, extra="forbid") == plan


@pytest.mark.parametrize(("fail_on", "code"), [("changes", 1), ("disruptive", 1), ("problems", 0), ("never", 0)], ids=str)
def test_the_plans_that_give_exit_code_1_can_be_chosen(fail_on, code):
    text = documents(policy("linux"), vm("web", nic(model="e1000e")))
    assert run("plan", "-f", "-", "--fail-on", fail_on, text=text)[0] == code


def test_markdown_shows_only_nics_that_differ():
    _, out, _ = run(
        "plan", "-f", "-", "-o", "markdown", text=documents(policy("linux"), vm("web", nic(model="e1000e")), vm("ok"))
    )
    assert "**NICs to change: 1**" in out
    assert "| tenants/web | default | emulated (e1000e) | vhost (virtio) | Change |" in out
    assert "tenants/ok" not in out


def test_against_shows_only_the_difference(tmp_path):
    (tmp_path / "before.yaml").write_text(documents(policy("linux"), vm("old", nic(model="e1000e"))))
    (tmp_path / "after.yaml").write_text(
        documents(policy("linux"), vm("old", nic(model="e1000e")), vm("new", nic(model="e1000e")))
    )
    code, out, _ = run("plan", "-f", str(tmp_path / "after.yaml"), "--against", str(tmp_path / "before.yaml"), "-o", "json")
    assert (code, [machine["name"] for machine in json.loads(out)["vms"]]) == (1, ["new"])
    assert run("plan", "-f", str(tmp_path / "before.yaml"), "--against", str(tmp_path / "before.yaml"))[0] == 0


def test_the_plan_has_the_guest_command_for_more_queues():
    _, plan = plan_of(policy("linux", networkPressure="High"), vm("web", run_strategy="Halted"))
    assert plan["vms"][0]["guestCommands"] == [EVERY_NIC]


@pytest.mark.parametrize(
    ("macs", "commands"),
    [
        (["02:00:00:00:00:0A"], [by_mac("02:00:00:00:00:0A")]),
        (["02-00-00-00-00-0a"], [by_mac("02:00:00:00:00:0a")]),
        (["02:00:00:00:00:01", "02:00:00:00:00:02"], [by_mac("02:00:00:00:00:01"), by_mac("02:00:00:00:00:02")]),
        (["02:00:00:00:00:01", None], [EVERY_NIC]),
        (["02:00:00:00:00:01; reboot"], [EVERY_NIC]),
        (["$(reboot)"], [EVERY_NIC]),
    ],
    ids=["one", "dashes", "two", "one of two", "hostile", "a command"],
)
def test_a_guest_command_finds_a_nic_by_its_address(macs, commands):
    given = [{"macAddress": mac} if mac else {} for mac in macs]
    nics = [nic(f"n{number}", binding="bridge", network="br", **fields) for number, fields in enumerate(given)]
    _, plan = plan_of(policy("linux", networkPressure="High"), nad("br"), vm("web", *nics, run_strategy="Halted"))
    assert plan["vms"][0]["guestCommands"] == commands


def test_a_guest_command_finds_its_nic(tmp_path):
    for number, mac in enumerate(["02:00:00:00:00:01", "02:00:00:00:00:02"]):
        place = tmp_path / f"virtio{number}" / "net" / f"enp{number}s0"
        place.mkdir(parents=True)
        (place / "address").write_text(f"{mac}\n")
    depth = len(tmp_path.parts) - len(("/", "sys", "bus", "virtio", "devices"))
    for command, found in ((by_mac("02:00:00:00:00:02"), ["enp1s0"]), (EVERY_NIC, ["enp0s0", "enp1s0"])):
        text = command.replace("/sys/bus/virtio/devices", str(tmp_path)).replace("-f8", f"-f{8 + depth}")
        ran = subprocess.run(["sh", "-c", text.replace("ethtool", "echo")], capture_output=True, text=True, check=True)
        assert ran.stdout == "".join(f"-L {name} combined 2\n" for name in found)


def test_a_nic_without_a_policy_has_a_guest_command_too():
    networks = policy("linux", networkPressure="High", selector={"networks": ["tenants/br"]}), nad("br")
    _, plan = plan_of(*networks, vm("web", nic(), nic("data", binding="bridge", network="br"), run_strategy="Halted"))
    assert plan["vms"][0]["guestCommands"] == [EVERY_NIC]


def test_the_guest_command_is_in_table_and_markdown(tmp_path):
    text = documents(policy("linux", networkPressure="High"), vm("web", run_strategy="Halted"))
    assert f"tenants/web: after the change, run in the guest: {EVERY_NIC}\n" in run("plan", "-f", "-", text=text)[1]
    out = run("plan", "-f", "-", "-o", "markdown", text=text)[1]
    assert f"- `tenants/web`: after the change, run in the guest: `{EVERY_NIC}`\n" in out
    (tmp_path / "policy.yaml").write_text(documents(policy("all", networkPressure="High")))
    out = run("plan", "-f", str(tmp_path), "-f", str(DOMAINS / "rhel-e1000e.xml"))[1]
    assert "run in the guest: ethtool -L $(grep -li 52:54:00:" in out


def test_a_reason_of_a_compliant_nic_is_in_markdown():
    machine = vm("web", nic(model="virtio"))
    machine["spec"]["template"]["spec"]["domain"] |= {"cpu": {"cores": 16}, "memory": {"guest": "64Gi"}}
    machine["spec"]["template"]["spec"]["domain"]["devices"]["networkInterfaceMultiqueue"] = True
    _, out, _ = run("plan", "-f", "-", "-o", "markdown", text=documents(policy("linux"), machine))
    assert "| Compliant | None | " in out
    assert "multiqueue.maxQueues is 8" in out


def secondary():
    return vm("web", nic("data", binding="bridge", network="br", model="virtio"), run_strategy="Halted")


VF = [nad("br", segment="blue"), nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue")]


INJECTED = [kubevirt(version="v1.9.0"), kubevirt(version="v1.10.1"), kubevirt(gates=["ExternalNetResourceInjection"])]
INJECTOR = {"kind": "MutatingWebhookConfiguration", "metadata": {"name": "network-resources-injector-config"}}


def on_vf():
    return vm("old", nic("data", binding="sriov", network="fast"), run_strategy="Halted")


@pytest.mark.parametrize(
    ("objects", "count"),
    [
        *(([one, policy("vf", datapaths=["sriov"]), secondary], 1) for one in INJECTED),
        ([INJECTED[0], policy("vf", datapaths=["sriov"]), on_vf], 1),
        ([INJECTED[0], policy("vf", datapaths=["sriov"]), secondary, on_vf], 1),
        ([INJECTED[0], policy("vf", datapaths=["sriov"]), secondary, INJECTOR], 0),
        ([INJECTED[0], policy("vf", datapaths=["vhost"]), secondary], 0),
        (
            [
                kubevirt(version="v1.9.0", disabled=["ExternalNetResourceInjection"]),
                policy("vf", datapaths=["sriov"]),
                secondary,
            ],
            0,
        ),
        ([kubevirt(version="v1.8.2"), policy("vf", datapaths=["sriov"]), secondary], 0),
        ([policy("vf", datapaths=["sriov"]), secondary], 0),
    ],
)
def test_an_injector_that_is_not_given_is_one_problem(objects, count):
    _, plan = plan_of(*(one() if callable(one) else one for one in objects), *VF, pool(), node_state())
    found = [one for one in plan["problems"] if one["reason"] == "NetResourceInjectorMissing"]
    assert [one["object"] for one in found] == ["KubeVirt/kubevirt/kubevirt"] * count
    assert all("is unknown" in one["message"] for one in found)


TAP = nad("tap", cni="macvtap", resource="macvtap.network.kubevirt.io/ens1f0", segment="blue")


@pytest.mark.parametrize(
    ("objects", "verdict", "reason", "problems"),
    [
        ([], "Change", None, ["NotFound"]),
        ([kubevirt()], "Change", None, []),
        ([kubevirt(plugins=())], "Blocked", "PluginNotRegistered", []),
    ],
    ids=["not given", "registered", "not registered"],
)
def test_a_kubevirt_resource_that_is_not_given_excludes_nothing(objects, verdict, reason, problems):
    _, plan = plan_of(policy(datapaths=["macvtap"]), secondary(), nad("br", segment="blue"), TAP, *objects)
    found = plan["vms"][0]["nics"][0]
    assert (found["verdict"], found["reason"], [one["reason"] for one in plan["problems"]]) == (verdict, reason, problems)


def test_the_examples_can_be_planned():
    code, out, err = run("plan", "-f", "examples", "-R")
    assert code == 1, err
    assert "tenants/web" in out


def test_the_plan_of_a_libvirt_domain_has_its_new_xml(tmp_path):
    (tmp_path / "policy.yaml").write_text(documents(policy("all", selector={"guestOS": ["linux"]})))
    code, out, err = run("plan", "-f", str(tmp_path), "-f", str(DOMAINS / "rhel-e1000e.xml"), "-o", "json")
    (machine,) = json.loads(out)["vms"]
    assert (code, err, machine["platform"], machine["namespace"]) == (1, "", "Libvirt", "")
    assert machine["nics"][0]["candidates"] == [{"datapath": "vhost", "chosen": True}]
    assert '<driver name="vhost"/>' in machine["domainXml"]
    assert "patch" not in machine
    TypeAdapter(Plan).validate_python(json.loads(out), strict=True, extra="forbid")


def test_xml_that_is_not_a_domain_is_refused_with_its_file(tmp_path):
    (tmp_path / "net.xml").write_text("<pool><name>x</name></pool>")
    code, _, err = run("plan", "-f", str(tmp_path))
    assert (code, "net.xml" in err, "is not a libvirt domain" in err) == (2, True, True)


def test_a_policy_for_one_platform_does_not_select_the_other(tmp_path):
    only = policy("k", selector={"networks": ["*"], "platforms": ["KubeVirt"]})
    (tmp_path / "policy.yaml").write_text(documents(only))
    code, out, _ = run("plan", "-f", str(tmp_path), "-f", str(DOMAINS / "rhel-e1000e.xml"), "-o", "json")
    assert (code, json.loads(out)["vms"]) == (0, [])


def test_a_pool_that_is_not_given_counts_as_ready():
    _, plan = plan_of(policy("vf", datapaths=["sriov"], sriov={"pool": "fast"}), secondary(), *VF)
    assert plan["vms"][0]["nics"][0]["to"] == {"datapath": "sriov", "queues": 1}
    assert [(one["object"], one["reason"]) for one in plan["problems"]] == [("VmNicPolicy/vf", "NotFound")]


def test_capacity_counts_where_nodes_are_given():
    machines = [{**secondary(), "metadata": {"name": f"v{number}", "namespace": "tenants"}} for number in range(3)]
    _, plan = plan_of(policy("vf", datapaths=["sriov", "vhost"]), *machines, *VF, pool(), node_state(vfs=2))
    assert [one["nics"][0]["to"]["datapath"] for one in plan["vms"]] == ["sriov", "sriov", "vhost"]
    assert plan["vms"][2]["nics"][0]["candidates"][0]["reason"] == "NoFreeVf"


def test_a_network_that_is_not_given_is_a_problem_not_an_error():
    code, plan = plan_of(policy("all"), secondary())
    assert (code, plan["problems"][0]["message"]) == (0, "NetworkAttachmentDefinition tenants/br does not exist")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"datapaths": ["auto", "vhost"]}, "datapaths is either [auto] or a list"),
        ({"datapaths": ["passthrough"]}, "name the pool of whole NICs in passthrough.pool"),
        ({"selector": {}}, "selector must not be empty"),
        ({"sriov": {"pool": "a", "resourceName": "b/c"}}, "not both"),
    ],
    ids=["auto and more", "no pool", "nothing selected", "two sources"],
)
def test_the_checks_of_the_api_server_apply_offline_too(spec, words):
    body = policy("bad")
    body["spec"] |= spec
    code, _, err = run("plan", "-f", "-", text=documents(body))
    assert (code, words in err) == (2, True)


def test_the_plan_shows_a_pf_that_a_pool_releases():
    gone = {"name": "fast", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    one = {"kind": "SriovNetworkPool", "metadata": gone, "spec": {"nicSelector": {"models": ["82576"]}, "numVfs": 3}}
    pf = {"pciAddress": "0000:0b:00.0", "model": "82576", "owned": True, "held": [{"vf": "0000:0b:10.2"}]}
    spec = {"pciAddress": "0000:0b:00.0", "pool": "fast", "numVfs": 3}
    state = {
        "kind": "NodeNicState",
        "metadata": {"name": "n1"},
        "spec": {"synced": True, "pfs": [spec]},
        "status": {"bootID": "b", "pfs": [pf]},
    }
    row = plan_of(one, state)[1]["pools"][0]["nodes"][0]
    assert (row["actions"], row["disruptive"]) == (["release the function (Reset)"], True)


@pytest.mark.parametrize(
    ("spec", "template", "line"),
    [
        ({"architecture": "arm64"}, None, "architecture arm64 (spec.template.spec.architecture)"),
        ({}, None, "architecture amd64 (KubeVirt's default)"),
        ({}, {"sourceRef": {"kind": "DataSource", "name": "win"}}, "DataSource tenants/win is not given"),
    ],
)
def test_the_explanation_names_the_architecture(capsys, spec, template, line):
    machine = vm("web", dataVolumeTemplates=[{"metadata": {"name": "disk"}, "spec": template}] if template else [])
    machine["spec"]["template"]["spec"] |= spec
    objects = collect(machine, policy())
    decided = decide_all(objects, offline=True)
    show_explanation(plan_vm(objects, decided, decided.vms[0]), decided.vms[0].vm)
    assert line in capsys.readouterr().out
