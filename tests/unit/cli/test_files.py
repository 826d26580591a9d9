"""`kubectl vmnic plan -f` reads manifests as kubectl does, and as their users write them."""

import copy
import io
import json

import pytest
import yaml
from typer.testing import CliRunner

from tests.builders.vm import nad, nic, node_state, policy, pool, vm
from vmnic.cli.app import app
from vmnic.cli.files import read_files
from vmnic.cli.objects import Objects

LINUX = policy("linux")
WEB = vm("web", nic(model="e1000e"), run_strategy="Halted")


def run(*objects, output="json", files=()):
    """Plan objects that are given as YAML, text or bytes, and return exit code, the parsed plan and the errors."""
    parts = [one if isinstance(one, str) else yaml.safe_dump(one) for one in objects]
    flags = [word for file in files for word in ("-f", str(file))]
    result = CliRunner().invoke(app, ["plan", "-f", "-", "-o", output, *flags], input="\n---\n".join(parts))
    return result.exit_code, json.loads(result.stdout) if output == "json" else result.stdout, result.stderr


def changed(base, path, value):
    """Return a copy of an object with another value at a path."""
    made = copy.deepcopy(base)
    place = made
    for step in path[:-1]:
        place = place.setdefault(step, {}) if isinstance(step, str) else place[step]
    place[path[-1]] = value
    return made


def names(plan):
    return [(one["kind"], one["namespace"], one["name"]) for one in plan["vms"]]


# Files

TEXT = yaml.safe_dump_all([LINUX, WEB])
PLAIN = TEXT.encode()
FILES = {
    "UTF-8": PLAIN,
    "UTF-8 with a mark": b"\xef\xbb\xbf" + PLAIN,
    "UTF-16 little endian": b"\xff\xfe" + TEXT.encode("utf-16-le"),
    "UTF-16 big endian": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "UTF-16 with CRLF": b"\xff\xfe" + TEXT.replace("\n", "\r\n").encode("utf-16-le"),
    "two UTF-16 files": b"".join(b"\xff\xfe" + (yaml.safe_dump(one) + "---\n").encode("utf-16-le") for one in (LINUX, WEB)),
    "CRLF": PLAIN.replace(b"\n", b"\r\n"),
    "CR": PLAIN.replace(b"\n", b"\r"),
    "marks in the middle": b"".join(b"\xef\xbb\xbf" + yaml.safe_dump(one).encode() + b"---\r\n" for one in (LINUX, WEB)),
    "Latin-1 in a comment": b"# B\xfcro\n" + PLAIN,
    "JSON": json.dumps({"kind": "List", "items": [LINUX, WEB]}).encode(),
    "JSON objects in a row": b"\n".join(json.dumps(one, indent=1).encode() for one in (LINUX, WEB)),
    "JSON without a line end": b"".join(json.dumps(one).encode() for one in (LINUX, WEB)),
    "JSON in UTF-16": b"\xff\xfe" + json.dumps({"kind": "List", "items": [LINUX, WEB]}).encode("utf-16-le"),
    "a list of the API server": json.dumps({"kind": "List", "items": [LINUX, {"kind": "VirtualMachineList", "items": [WEB]}]}).encode(),
}  # fmt: skip


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_files_are_read_as_their_tools_write_them(tmp_path, content):
    (tmp_path / "a.yaml").write_bytes(content)
    objects = read_files([str(tmp_path)], recursive=False)
    assert (objects.set_aside, list(objects.policies), list(objects.machines)) == ([], ["linux"], [("tenants", "web")])


DOMAIN = "<domain type='kvm'><name>büro</name><devices/></domain>"


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + DOMAIN.encode(),
        b"\xff\xfe" + DOMAIN.encode("utf-16-le"),
        b"\xfe\xff" + DOMAIN.encode("utf-16-be"),
        b"\xff\xfe" + f'<?xml version="1.0" encoding="UTF-16"?>\r\n{DOMAIN}\r\n'.encode("utf-16-le"),
        b"\r\n\xef\xbb\xbf" + DOMAIN.encode(),
    ],
    ids=["UTF-8", "UTF-16 little endian", "UTF-16 big endian", "with a declaration", "a mark after a blank line"],
)
def test_a_domain_may_begin_with_a_byte_order_mark(tmp_path, content):
    (tmp_path / "a.xml").write_bytes(content)
    objects = read_files([str(tmp_path)], recursive=False)
    assert (objects.set_aside, list(objects.domains)) == ([], [("", "büro")])


def test_standard_input_may_be_utf_16(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe" + TEXT.encode("utf-16-le"))))
    assert list(read_files(["-"], recursive=False).machines) == [("tenants", "web")]


# Scalars

MAC = ("spec", "template", "spec", "domain", "devices", "interfaces", 0, "macAddress")
QUOTA = {
    "kind": "ResourceQuota",
    "metadata": {"name": "q", "namespace": "tenants"},
    "spec": {"hard": {"limits.cpu": 0.5, "pods": 2}},
}
NODE = {"kind": "Node", "metadata": {"name": "n1"}, "status": {"allocatable": {"vmnic.dev/fast": 2, "example.com/share": 0.5}}}


@pytest.mark.parametrize("mac", ["52:54:00:12:34:56", "02:00:00:00:00:01", "10:20:30:40:50:59"])
def test_a_mac_address_needs_no_quotes(mac):
    text = yaml.safe_dump(changed(WEB, MAC, "MAC")).replace("MAC", mac)
    code, plan, err = run(LINUX, text)
    assert (code, err, [one["nics"][0]["verdict"] for one in plan["vms"]]) == (1, "", ["Change"])


@pytest.mark.parametrize(
    "addition",
    [
        changed(WEB, ("metadata", "creationTimestamp"), None),
        changed(WEB, ("metadata", "labels"), None),
        changed(WEB, ("metadata", "annotations"), None),
        changed(WEB, ("spec", "template", "spec", "nodeSelector"), None),
        changed(WEB, ("spec", "template", "metadata", "creationTimestamp"), None),
        changed(WEB, ("spec", "template", "spec", "domain", "memory", "guest"), 1.5e9),
        changed(WEB, ("spec", "template", "spec", "domain", "resources"), {"requests": {"memory": 0.5}}),
        yaml.safe_dump(WEB) + "status:\n",
        changed(WEB, ("metadata", "uid"), 0),
        changed(WEB, ("metadata", "resourceVersion"), 123),
        changed(WEB, ("spec", "preference"), None),
    ],
)
def test_nulls_and_numbers_that_kubectl_accepts_are_no_error(addition):
    code, plan, err = run(LINUX, addition)
    assert (code, err, names(plan)) == (1, "", [("VirtualMachine", "tenants", "web")])


@pytest.mark.parametrize("other", [QUOTA, NODE, changed(nad("br"), ("metadata", "creationTimestamp"), None)])
def test_other_objects_may_have_fractions_and_nulls(other):
    assert run(LINUX, WEB, other)[::2] == (1, "")


def test_whole_numbers_may_have_a_fraction_or_an_exponent():
    for number in ("4.0", "4e0", "04", "0x4", "0b100"):
        text = yaml.safe_dump(pool(num_vfs="COUNT")).replace("COUNT", number)
        assert run(text)[::2] == (0, ""), number


LABELS = ("metadata", "labels")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (changed(WEB, LABELS, {"a": 1}), ("VirtualMachine tenants/web: ", "$.metadata.labels")),
        (changed(WEB, LABELS, {"a": True}), ("VirtualMachine tenants/web: ", "$.metadata.labels")),
        (changed(WEB, ("metadata", "annotations"), {"vmnic.dev/exclude": True}), ("VirtualMachine tenants/web: ", "vmnic.dev/exclude")),
        (changed(WEB, ("spec", "template", "spec", "nodeSelector"), {"zone": 1}), ("VirtualMachine tenants/web: ", "nodeSelector")),
        (changed(WEB, MAC, 525400123456), ("VirtualMachine tenants/web: ", "macAddress")),
        (changed(WEB, ("metadata", "name"), 5), ("VirtualMachine tenants: ", "metadata.name")),
        (changed(WEB, ("metadata", "namespace"), 1.5), ("VirtualMachine web: ", "metadata.namespace")),
        (changed(nad("br"), LABELS, {"vmnic.dev/segment": 7}), ("NetworkAttachmentDefinition tenants/br: ", "$.metadata.labels")),
        ({"kind": "Namespace", "metadata": {"name": "a", "labels": {"b": 1}}}, ("Namespace a: ", "$.metadata.labels")),
        (changed(pool(), ("spec", "nicSelector"), {"devices": ["DEVICE"]}), ("SriovNetworkPool fast: ", "spec.nicSelector.devices.0")),
        (changed(pool(), ("spec", "vfRange"), 3), ("SriovNetworkPool fast: ", "spec.vfRange")),
        (changed(LINUX, ("spec", "selector"), {"networks": [1]}), ("VmNicPolicy linux: ", "spec.selector.networks.0")),
    ],
    ids=["a number", "a boolean", "an annotation", "a selector", "a MAC address", "a name", "a namespace", "a segment",
         "a namespace's label", "a device", "a range", "a network"],
)  # fmt: skip
def test_a_number_for_text_names_object_field_and_remedy(text, words):
    text = yaml.safe_dump(text).replace("DEVICE", "10e7")
    code, _, err = run(text)
    assert code == 2
    assert [word for word in (*words, "quote it") if word not in err] == [], err


# Kinds

FOREIGN = {
    "vmoperator.vmware.com/v1alpha2": {"className": "small"},
    "compute.azure.com/v1api20220301": {"hardwareProfile": {"vmSize": "Standard_A1_v2"}},
    "hypervisor.example/v1": {"template": {"spec": {"domain": {"devices": {"interfaces": 5}}}}},
}


@pytest.mark.parametrize(("version", "spec"), FOREIGN.items(), ids=FOREIGN)
def test_a_kind_of_another_group_is_skipped_and_counted(version, spec):
    other = {"apiVersion": version, "kind": "VirtualMachine", "metadata": {"name": "web", "namespace": "tenants"}, "spec": spec}
    code, plan, err = run(LINUX, WEB, other, other)
    assert (code, err, names(plan)) == (1, "", [("VirtualMachine", "tenants", "web")])
    assert "2 objects of other kinds were skipped" in run(LINUX, WEB, other, other, output="table")[1]


@pytest.mark.parametrize("one", [LINUX, pool(), node_state(), WEB, nad("br")], ids=lambda one: one["kind"])
def test_each_kind_is_read_only_in_its_own_group(one):
    objects = read_one({**one, "apiVersion": "example.com/v1"})
    assert (objects.skipped, len(objects.set_aside)) == (1, 0)
    assert read_one(one).skipped == 0


def read_one(one):
    objects = Objects()
    objects.add(one)
    return objects


def test_a_foreign_policy_that_is_malformed_stops_no_plan():
    foreign = "apiVersion: example.com/v1\nkind: VmNicPolicy\nmetadata: {name: p}\nb: *x\n"
    code, plan, err = run(LINUX, WEB, foreign)
    assert (code, names(plan), "VmNicPolicy.example.com p: " in err) == (2, [("VirtualMachine", "tenants", "web")], True)


# Generated names


def generated(prefix, **fields):
    made = {**copy.deepcopy(WEB), **fields}
    made["metadata"] = {"generateName": prefix, "namespace": "tenants"}
    return made


def test_objects_with_equal_generated_prefixes_do_not_clash():
    windows = changed(generated("web-"), ("spec", "template", "metadata", "annotations"), {"vm.kubevirt.io/os": "windows"})
    code, plan, err = run(LINUX, WEB, generated("web-"), windows, generated("db-"))
    assert (code, err) == (1, "")
    assert sorted(names(plan)) == [
        ("VirtualMachine", "tenants", name) for name in ("db-*", "web", "web-*", "web-*")
    ]  # fmt: skip
    assert [one["guestOS"] for one in plan["vms"] if one["name"] == "web-*"] == ["linux", "windows"]


def test_a_fault_of_an_object_without_a_name_shows_its_prefix():
    code, _, err = run(generated("web-", spec=5))
    assert (code, "VirtualMachine tenants/web-*: " in err) == (2, True)


def test_many_generated_names_keep_their_own_decisions():
    _, plan, _ = run(LINUX, *[generated("web-") for _ in range(12)])
    assert [one["name"] for one in plan["vms"]] == ["web-*"] * 12
    assert all(one["patch"] for one in plan["vms"])


# Owners of VMs


def vm_pool(template=WEB, name="workers"):
    spec = {"replicas": 3, "virtualMachineTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": template["spec"]}}
    return {"apiVersion": "pool.kubevirt.io/v1alpha1", "kind": "VirtualMachinePool",
            "metadata": {"name": name, "namespace": "tenants"}, "spec": spec}  # fmt: skip


def test_a_vm_pool_shows_what_its_new_vms_get():
    code, plan, err = run(LINUX, vm_pool(vm("x", nic(model="e1000e"), run_strategy="Always")))
    (item,) = plan["vms"]
    assert (code, err, names(plan)) == (0, "", [("VirtualMachinePool", "tenants", "workers")])
    assert (item["nics"][0]["verdict"], item["nics"][0]["action"], item["restartRequired"]) == ("Change", "Patch", False)
    assert (plan["summary"], "patch" in item) == ({"vms": 1, "changes": 0, "blocked": 0, "disruptive": 0}, False)


def test_a_vm_and_a_pool_of_one_name_do_not_clash():
    code, plan, _ = run(LINUX, WEB, vm_pool(name="web"))
    assert (code, plan["summary"]["changes"]) == (1, 1)
    assert names(plan) == [("VirtualMachine", "tenants", "web"), ("VirtualMachinePool", "tenants", "web")]


def test_a_pool_that_no_policy_selects_is_not_shown():
    assert run(policy("w", selector={"guestOS": ["windows"]}), vm_pool())[1]["vms"] == []


def test_existing_vms_get_devices_before_those_of_a_pool():
    secondary = vm("db", nic("data", binding="bridge", network="br", model="virtio"), run_strategy="Halted")
    networks = [nad("br", segment="blue"), nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue")]
    wishes = policy("vf", datapaths=["sriov", "vhost"])
    _, plan, _ = run(wishes, vm_pool(secondary, name="a"), secondary, *networks, pool(), node_state(vfs=1))
    assert {one["kind"]: one["nics"][0]["to"]["datapath"] for one in plan["vms"]} == {
        "VirtualMachine": "sriov",
        "VirtualMachinePool": "vhost",
    }
    _, plan, _ = run(wishes, vm_pool(secondary, name="a"), secondary, *networks, pool(), node_state(vfs=2))
    assert {one["nics"][0]["to"]["datapath"] for one in plan["vms"]} == {"sriov"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "spec.virtualMachineTemplate is missing"),
        ({"virtualMachineTemplate": {"metadata": {"labels": {"a": 1}}, "spec": {}}}, "$.spec.virtualMachineTemplate.metadata.labels"),
        ({"virtualMachineTemplate": {"spec": {"template": 5}}}, "$.spec.virtualMachineTemplate.spec.template"),
    ],
)  # fmt: skip
def test_a_malformed_vm_pool_is_named_with_its_field(spec, words):
    code, _, err = run(LINUX, {**vm_pool(), "spec": spec})
    assert (code, "VirtualMachinePool tenants/workers: " in err, words in err) == (2, True, True), err


def owner(kind, version, name, namespace="tenants"):
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": {}}


def instance(name, owned_by=None):
    made = owner("VirtualMachineInstance", "kubevirt.io/v1", name)
    made["metadata"] |= {"ownerReferences": [{"kind": owned_by, "name": name}]} if owned_by else {}
    return {**made, "spec": {"domain": {"devices": {}}}, "status": {}}


def not_managed(plan):
    return [(one["object"], one["message"]) for one in plan["problems"] if one["reason"] == "NotManaged"]


def test_other_owners_are_one_problem_per_kind_and_namespace():
    kind, version = "VirtualMachineInstanceReplicaSet", "kubevirt.io/v1"
    owners = [owner(kind, version, f"rs{number}") for number in range(7)] + [owner(kind, version, "rs", "other")]
    owners.append(owner("KubevirtMachineTemplate", "infrastructure.cluster.x-k8s.io/v1alpha1", "workers"))
    code, plan, err = run(LINUX, *owners)
    found = not_managed(plan)
    assert (code, err, [where for where, _ in found]) == (
        0, "", ["KubevirtMachineTemplate/tenants", f"{kind}/other", f"{kind}/tenants"],
    )  # fmt: skip
    assert "rs0, rs1, rs2, rs3, rs4 and 2 more: " in found[2][1]


@pytest.mark.parametrize(
    ("owned_by", "machines", "expected"),
    [(None, [], ["VirtualMachineInstance/tenants"]), ("VirtualMachineInstanceReplicaSet", [], ["VirtualMachineInstance/tenants"]),
     ("VirtualMachine", [], []), (None, [WEB], [])],
    ids=["nobody", "a ReplicaSet", "a VM that is not given", "a VM of that name"],
)  # fmt: skip
def test_an_instance_that_no_vm_owns_is_not_managed(owned_by, machines, expected):
    _, plan, _ = run(LINUX, instance("web", owned_by), *machines)
    assert [where for where, _ in not_managed(plan)] == expected


@pytest.mark.parametrize("output", ["table", "markdown"])
def test_pools_and_other_owners_show_in_every_format(output):
    _, text, _ = run(LINUX, vm_pool(), owner("VirtualMachineInstanceReplicaSet", "kubevirt.io/v1", "rs"), output=output)
    assert ("VirtualMachinePool tenants/workers" in text, "NotManaged" in text) == (True, True)


# Old manifests


def messages(interface):
    """Return the messages of a plan for a VM with one NIC of this form."""
    _, plan, _ = run(LINUX, changed(WEB, (*MAC[:-2], 0), {"name": "default", **interface}))
    return [one["message"] for one in (*plan["problems"], *plan["vms"][0]["nics"])]


@pytest.mark.parametrize("binding", ["macvtap", "slirp"])
def test_a_binding_that_kubevirt_removed_is_told(binding):
    assert any(f"binding {binding}, which KubeVirt removed" in one for one in messages({binding: {}}))
    assert not any("KubeVirt removed" in one for one in messages({"binding": {"name": binding}}))


def test_a_nic_with_state_absent_is_said_to_be_removed():
    found = messages({"bridge": {}, "state": "absent"})
    assert any("is being removed (`state: absent`)" in one for one in found), found
