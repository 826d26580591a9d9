"""The annotation `vmnic.dev/assigned`, which a tenant may write, is validated before vmnic uses it."""

import json
import time
from dataclasses import replace

import pytest

from tests.builders.decide import apply_patches, decision, patches
from tests.builders.vm import nad, nic, node_state, policy, pool, vm
from vmnic.kubevirt.assignment import ANNOTATION, AssignmentRecord, UnreadableRecord, read_record
from vmnic.kubevirt.originals import MAX_RECORD_BYTES
from vmnic.kubevirt.patch import render_patch
from vmnic.kubevirt.revert import RevertRefusedError, render_revert
from vmnic.kubevirt.vm import decode_machine
from vmnic.kubevirt.vm_state import render_status
from vmnic.policy.facts import Network

BOUND_S = 0.05
"""Maximum time in seconds to read a record at its size limit (NEXT section 1)."""
BRIDGE = {"name": "data", "bridge": {}, "model": "e1000e"}
BR = {"name": "data", "multus": {"networkName": "br"}}
CLUSTER = [nad("br", segment="blue"), nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue"), pool(), node_state()]


def record(was, name="data", **fields):
    return json.dumps({"nics": {name: {"datapath": "sriov", "resource": "vmnic.dev/fast", "was": was} | fields}})


def with_interface(**fields):
    return record({"interface": BRIDGE | fields, "network": BR})


def with_network(network):
    return record({"interface": BRIDGE, "network": network})


HOSTILE = {
    "deep": '{"x":' * 2000 + "1" + "}" * 2000,
    "very deep": "[" * 30_000,
    "deep below was": record({"a": json.loads("[" * 20 + "]" * 20)}),
    "long": json.dumps({"nics": {}, "x": "x" * MAX_RECORD_BYTES}),
    "no JSON": "{",
    "null": "null",
    "a list": "[]",
    "a NIC that is a number": '{"nics": {"data": 5}}',
    "a datapath that is a number": record({}, datapath=5),
    "a model that is a list": record({"model": [1]}),
    "a model beside an interface": record({"model": "virtio", "interface": BRIDGE, "network": BR}),
    "an interface that is a number": record({"interface": 5}),
    "an interface that is null": record({"interface": None}),
    "an interface without a name": record({"interface": {}, "network": BR}),
    "a network alone": record({"network": BR}),
    "a network that is a list": with_network([1]),
    "a network of another NIC": with_network(BR | {"name": "other"}),
    "a network without a source": with_network({"name": "data"}),
    "a network with two sources": with_network(BR | {"pod": {}}),
    "a network with an unknown field": with_network(BR | {"evil": {}}),
    "a reference with dots": with_network({"name": "data", "multus": {"networkName": "../../secret"}}),
    "a reference with three parts": with_network({"name": "data", "multus": {"networkName": "a/b/c"}}),
    "another NIC's name": with_interface(name="other"),
    "an unknown field": with_interface(evil=1),
    "an unknown field below": with_interface(dhcpOptions={"evil": 1}),
    "a binding with fields": with_interface(bridge={"evil": 1}),
    "two bindings": with_interface(masquerade={}),
    "ports that are text": with_interface(ports="22"),
    "a port of 400 digits": with_interface(ports=[{"port": 1}]).replace("1}]", "9" * 400 + "}]"),
    "a boot order that is text": with_interface(bootOrder="1"),
    "a count of 400 digits": record({}, of=1).replace('"of": 1', '"of": ' + "9" * 400),
    "an unknown original": record({"evil": 1}),
    "a switch that is text": '{"multiqueue": {"was": "x"}}',
}
hostile = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)


def vm_with(text, **fields):
    return vm("web", nic("data", binding="bridge", network="br", model="e1000e"), run_strategy="Halted") | fields | {
        "metadata": {"name": "web", "namespace": "tenants", "annotations": {ANNOTATION: text}}
    }  # fmt: skip


def revert(machine, **networks):
    return render_revert(decode_machine(json.dumps(machine).encode()), **networks)


@pytest.mark.parametrize("text", [*HOSTILE.values(), '{"nics": {"\ud800": 1}}'], ids=[*HOSTILE, "a lone surrogate"])
def test_a_hostile_record_is_unreadable_with_a_remedy(text):
    found = read_record(text)
    assert isinstance(found, UnreadableRecord)
    assert found.problem.startswith(f"annotation {ANNOTATION}: ")
    assert "Remove it" in found.problem
    assert len(found.problem) < 400


@hostile
@pytest.mark.parametrize("datapaths", [["sriov"], ["vhost"]], ids=lambda one: one[0])
def test_a_vm_with_a_hostile_record_is_not_patched(text, datapaths):
    documents = [vm_with(text), policy(datapaths=datapaths), *CLUSTER]
    found = decision(*documents)
    assert (found.nics[0].verdict, found.nics[0].reason) == ("Blocked", "RecordUnreadable")
    assert ANNOTATION in found.nics[0].message
    assert any((problem.reason, ANNOTATION in problem.message) == ("RecordUnreadable", True) for problem in found.vm.problems)
    assert patches(*documents) == {"web": []}
    assert render_status(found, None, None)["nics"][0]["reason"] == "RecordUnreadable"


def test_no_patch_is_rendered_over_an_unreadable_record():
    machine = vm("web", nic("data", binding="bridge", network="br", model="e1000e"), run_strategy="Halted")
    found = decision(machine, policy(datapaths=["sriov"]), *CLUSTER)
    decided = replace(found, vm=replace(found.vm, record=HOSTILE["null"]))
    assert (found.nics[0].action, render_patch(decided, decode_machine(json.dumps(machine).encode()))) == ("Patch", [])


@hostile
def test_a_hostile_record_is_not_reverted(text):
    with pytest.raises(RevertRefusedError, match="Remove it"):
        revert(vm_with(text))


def test_the_malformed_field_is_named():
    assert "nics.data.was: interface: Object contains unknown field `evil`" in read_record(HOSTILE["an unknown field"]).problem
    assert "`$.nics[...].of`" in read_record(record({}, of="x")).problem


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"macAddress": "02:00:00:00:00:01", "bootOrder": 1, "acpiIndex": 2, "pciAddress": "0000:81:01.0", "tag": "x"},
        {"ports": [{"name": "ssh", "port": 22, "protocol": "TCP"}], "state": "up"},
        {"dhcpOptions": {"ntpServers": ["192.0.2.1"], "privateOptions": [{"option": 240, "value": "x"}]}},
    ],
    ids=["plain", "numbers and addresses", "ports", "DHCP options"],
)
@pytest.mark.parametrize("datapath", ["vhost", "sriov"])
def test_a_written_record_can_be_read_again(datapath, fields):
    machine = vm("web", nic("data", binding="bridge", network="br", model="e1000e", **fields), run_strategy="Halted")
    changed = apply_patches([machine, policy(datapaths=[datapath], accept=["PropertyNotCarried/dhcpOptions"]), *CLUSTER])[0]
    assert isinstance(read_record(changed["metadata"]["annotations"][ANNOTATION]), AssignmentRecord)


@pytest.mark.parametrize(
    "fields",
    [{"bridge": {"newer": 1}}, {"ports": [{"port": number} for number in range(5000)]}],
    ids=["a field that vmnic does not know", "too long"],
)
def test_a_vm_whose_nics_cannot_be_recorded_is_not_patched(fields):
    machine = vm("web", nic("data", binding="bridge", network="br", model="e1000e"), run_strategy="Halted")
    machine["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0] |= fields
    documents = [machine, policy(datapaths=["sriov"]), *CLUSTER]
    assert (decision(*documents).nics[0].reason, patches(*documents)) == ("RecordUnreadable", {"web": []})


SRIOV = nic("data", binding="sriov", network="fast")
ELSEWHERE = record({"interface": BRIDGE, "network": {"name": "data", "multus": {"networkName": "nets/br"}}})


def reverting(*segments):
    """Return a VM whose record refers to another namespace, and the known networks."""
    machine = vm("web", SRIOV, run_strategy="Halted", annotations=None)
    machine["metadata"]["annotations"] = {ANNOTATION: ELSEWHERE}
    known = dict(zip([("nets", "br"), ("tenants", "fast")], segments, strict=False))
    networks = {key: Network(namespace=key[0], name=key[1], segment=segment) for key, segment in known.items()}
    return machine, networks


@pytest.mark.parametrize("segments", [(), ("blue",), ("blue", "red"), ("", "")], ids=["unknown", "one", "two segments", "none"])
def test_no_record_moves_a_nic_into_another_namespace(segments):
    machine, networks = reverting(*segments)
    with pytest.raises(RevertRefusedError, match="nets/br"):
        revert(machine, networks=networks)


def test_a_network_of_the_same_segment_is_restored():
    machine, networks = reverting("blue", "blue")
    assert {
        "op": "replace",
        "path": "/spec/template/spec/networks/0/multus/networkName",
        "value": "nets/br",
    } in revert(machine, networks=networks)


AT_THE_BOUND = {
    "NICs": json.dumps({"nics": {f"n{number}": {"datapath": "vhost", "was": {"model": None}} for number in range(500)}}),
    "references": json.dumps({"nics": {f"{number}": {"datapath": "x", "was": {"interface": {"name": f"{number}"}, "network": {"name": f"{number}", "multus": {"networkName": "a" + "-" * 240}}}} for number in range(90)}}),
    "brackets": '{"nics": ' + "[" * 32_000,
    "quotes": '"' * 32_000,
    "digits": '{"nics": ' + "9" * 32_000,
}  # fmt: skip


@pytest.mark.parametrize("text", AT_THE_BOUND.values(), ids=AT_THE_BOUND)
def test_a_record_at_its_size_limit_is_read_fast(text):
    assert 25_000 < len(text) <= MAX_RECORD_BYTES
    started = time.perf_counter()
    read_record(text)
    assert time.perf_counter() - started < BOUND_S
