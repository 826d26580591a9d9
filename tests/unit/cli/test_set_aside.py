"""Objects that the command or the controller cannot read or handle are named with their key."""

import json

import pytest

from tests.builders.decide import collect
from tests.builders.vm import kubevirt, nad, nic, node_state, policy, pool, quota, vm
from vmnic.cli import live
from vmnic.cli.live import decode_object, published_in
from vmnic.cli.objects import MalformedObjectError, Objects
from vmnic.cli.offline import decide_all
from vmnic.cli.revert import plan_revert
from vmnic.cli.set_aside import SetAside, set_aside, try_object
from vmnic.cli.status import merge_set_aside, wire_status
from vmnic.kubevirt.vm import decode_machine

META = b'"metadata":{"annotations":{},"name":"web","namespace":"tenants"}'


def config_map(text):
    return {"metadata": {"name": "vmnic-set-aside"}, "data": {"objects.json": text}}


def entry(**more):
    return {"kind": "VirtualMachine", "namespace": "a", "name": "b", "reason": "TooSlow", "message": "m"} | more


def test_the_controllers_list_is_read():
    found, why = published_in(config_map(json.dumps([entry()])))
    assert (found, why) == ([SetAside(kind="VirtualMachine", namespace="a", name="b", reason="TooSlow", message="m")], "")


@pytest.mark.parametrize("found", [{}, {"data": None}, {"data": {}}, config_map("[]")], ids=range(4))
def test_a_missing_list_counts_as_empty(found):
    assert published_in(found) == ([], "")


@pytest.mark.parametrize(
    "text", ["", "{}", "[" * 5000, '[{"kind": 5}]', '[{"kind": "a"}]', "[" + " " * 2**20 + "]", "5"], ids=range(7)
)
def test_an_unreadable_list_is_reported(text):
    found, why = published_in(config_map(text))
    assert (found, "vmnic-set-aside cannot be read" in why) == ([], True)


def test_at_most_a_hundred_objects_are_shown():
    assert len(published_in(config_map(json.dumps([entry(name=str(number)) for number in range(500)])))[0]) == 100


def test_an_object_is_shown_once():
    mine, theirs = SetAside(kind="A", name="x", message="mine"), SetAside(kind="A", name="x", message="theirs")
    assert merge_set_aside([mine], [theirs]) == [mine]


def test_set_aside_objects_are_in_the_json_output():
    made = wire_status([], [SetAside(kind="A", name="x", message="m", where="f:1")])
    assert made["setAside"] == [{"kind": "A", "namespace": "", "name": "x", "reason": "Unreadable", "message": "m"}]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (
            b"{" + META + b',"spec":' + b"[" * 5000,
            "VirtualMachine tenants/web: it cannot be read: JSON with more than 100 levels",
        ),
        (b"{" + META + b',"spec":"' + b"x" * 2**22 + b'"}', "VirtualMachine tenants/web: it cannot be read: 4194"),
        (b"{" + META, "VirtualMachine tenants/web: it cannot be read: "),
        (b'{"metadata":{}}', "VirtualMachine: metadata.name is missing"),
        (b'{"metadata":{"name":5}}', "VirtualMachine: metadata.name is missing"),
        (b"[]", "VirtualMachine: it cannot be read"),
    ],
    ids=["deep", "long", "cut", "no name", "a number for a name", "a list"],
)
def test_an_unparsable_object_of_the_api_server_is_named(raw, words):
    with pytest.raises(MalformedObjectError) as caught:
        decode_object("VirtualMachine", raw)
    assert words in str(caught.value)


def test_an_unusable_object_does_not_affect_the_others():
    objects = Objects(of_server=True)
    for one in ({**vm("a"), "spec": 5}, vm("b")):
        live.load_live(objects, one)
    assert (list(objects.machines), [one.object for one in objects.set_aside]) == (
        [("tenants", "b")],
        ["VirtualMachine/tenants/a"],
    )


@pytest.mark.parametrize("error", [RecursionError, MemoryError, OverflowError, KeyError("x"), TypeError("x"), AssertionError])
def test_any_error_of_an_object_sets_it_aside(error):
    def fail():
        raise error

    aside = []
    assert try_object(aside, "VirtualMachine", ("a", "b"), fail) is None
    assert [(one.object, bool(one.message)) for one in aside] == [("VirtualMachine/a/b", True)]


RECORDS = [
    '{"nics": {"default": {"datapath": "vhost", "model": "virtio", "was": {"network": [1]}}}}',
    '{"nics": {"default": {"datapath": "passthrough", "resource": "r", "was": {}}}}',
    '{"x": ' * 3000 + "1" + "}" * 3000,
    "[]",
    "x",
]


@pytest.mark.parametrize("text", RECORDS, ids=["was", "whole", "deep", "a list", "words"])
def test_a_malformed_record_is_never_written_back(text):
    raw = json.dumps(vm("web", annotations={}) | {"metadata": {"name": "web", "annotations": {"vmnic.dev/assigned": text}}})
    patch, refusal = plan_revert(decode_machine(raw.encode()))
    assert not refusal or (patch == [] and ("by hand" in refusal or "Remove it" in refusal))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (nad("br") | {"spec": {"config": 5}}, "InputUnreadable"),
        (quota() | {"spec": 5}, "InputUnreadable"),
        ({"kind": "VirtualMachineClusterPreference", "metadata": {"name": "one"}, "spec": 5}, "PreferenceUnknown"),
        (kubevirt() | {"spec": 5}, "InputUnreadable"),
    ],
    ids=["network", "quota", "preference", "KubeVirt"],
)
def test_a_nic_on_an_unreadable_object_stays_as_it_is(broken, reason):
    # A preference decides only about NICs without a model of their own.
    own = {} if reason == "PreferenceUnknown" else {"model": "e1000e"}
    machine = vm("web", nic("br", binding="bridge", network="br", **own), preference={"name": "one"})
    documents = [
        policy(datapaths=("sriov", "vhost")),
        nad("br", segment="b"),
        nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="b"),
    ]
    objects = collect(
        machine, pool(), node_state(), *(one for one in documents if one["metadata"]["name"] != broken["metadata"]["name"])
    )
    with pytest.raises(MalformedObjectError) as caught:
        objects.add(broken)
    objects.set_aside.append(set_aside(caught.value.kind, caught.value.key, caught.value.message))
    (decision,) = decide_all(objects, offline=False).vms
    assert decision.nics[0].reason == reason
