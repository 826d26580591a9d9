"""Each problem of a plan names the object that has it and its own reason."""

import pytest

from tests.builders.decide import collect
from tests.builders.vm import nad, nic, policy, vm
from tests.unit.cli.test_plan import documents, run
from vmnic.cli.offline import decide_all
from vmnic.cli.plan import make_plan
from vmnic.policy.problems import ProblemReason
from vmnic.policy.reasons import Reason

ALLOWED = "IpamNotCarried, MtuDiffers, GuestMtuChanges or PropertyNotCarried/NAME"
WEB = "VirtualMachine/tenants/web"


def planned(*objects):
    found = collect(*objects)
    return make_plan(found, decide_all(found, offline=True), [])


def problems_of(*objects):
    plan = planned(policy(), *objects)
    return [(one["object"], one["reason"]) for one in plan["problems"]], [one["message"] for one in plan["problems"]]


def asking(quantity, where="limits"):
    machine = vm()
    machine["spec"]["template"]["spec"]["domain"]["resources"] = {where: {"vmnic.dev/fast": quantity}}
    return machine


def noted(**notes):
    return vm() | {
        "metadata": {"name": "web", "namespace": "tenants", "annotations": {f"vmnic.dev/{k}": v for k, v in notes.items()}}
    }


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (vm("web", nic("data", binding="bridge", network="gone")), ProblemReason.NOT_FOUND),
        (vm(preference={"name": "gone"}), Reason.PREFERENCE_UNKNOWN),
        (vm(instancetype={"name": "gone"}), Reason.PREFERENCE_UNKNOWN),
        (vm("web", nic("data", binding="slirp")), ProblemReason.BINDING_REMOVED),
        (noted(**{"network-pressure": "Huge"}), ProblemReason.ANNOTATION_INVALID),
        (noted(restart="Sometimes"), ProblemReason.ANNOTATION_INVALID),
        (noted(exclude="yes"), ProblemReason.ANNOTATION_INVALID),
        (noted(assigned="[]"), Reason.RECORD_UNREADABLE),
        (asking("1500m"), Reason.INPUT_UNREADABLE),
    ],
    ids=[
        *("network", "preference", "instancetype", "binding", "pressure", "restart", "exclude", "record", "quantity"),
    ],
)
def test_a_problem_of_a_vm_has_its_true_reason(machine, reason):
    assert problems_of(machine)[0] == [(WEB, reason.value)]


@pytest.mark.parametrize(
    "notes", [{"exclude": "true"}, {"exclude": "false"}, {"restart": "Never"}, {"network-pressure": "Low"}]
)
def test_a_known_value_of_an_annotation_is_no_problem(notes):
    assert problems_of(noted(**notes))[0] == []


def test_a_missing_network_of_two_nics_is_one_problem():
    nics = [nic(name, binding="bridge", network=network) for name, network in (("a", "gone"), ("b", "gone"))]
    assert problems_of(vm("web", *nics))[0] == [(WEB, "NotFound")]


@pytest.mark.parametrize("where", ["limits", "requests"])
@pytest.mark.parametrize("quantity", ["1500m", "1.5", 0.5, "1u", "-1", -1, "-1k", "one", ""])
def test_a_number_of_devices_that_kubernetes_refuses_is_told(where, quantity):
    found, (message,) = problems_of(asking(quantity, where))
    assert (found, "'vmnic.dev/fast' is not a whole number" in message) == ([(WEB, "InputUnreadable")], True)


@pytest.mark.parametrize("quantity", [1, "1", "2000m", "0.5k", "1e0", "1Ki", 0, "0", "1000000u", 2.0])
def test_a_whole_number_of_devices_is_no_problem(quantity):
    assert problems_of(asking(quantity))[0] == []


@pytest.mark.parametrize(
    ("accept", "words"),
    [
        ("Everything", ["'Everything'", ALLOWED]),
        ("MtuDiffers, mtudiffers", ["'mtudiffers'", ALLOWED]),
        ("PropertyNotCarried", ["'PropertyNotCarried'", ALLOWED]),
        ("NoFreeVf", ["'NoFreeVf'", ALLOWED]),
        ("a,b,c,d,e,f", ["'a', 'b', 'c', 'd' and 2 more"]),
        ("MtuDiffers," * 400, ["4400 characters", "first 4096"]),
        ("x" * 5000, ["5000 characters", "first 4096"]),
        ("Bad," + "MtuDiffers," * 400, ["'Bad'", "4404 characters"]),
    ],
    ids=["a word", "in small letters", "no name", "another reason", "many", "too long", "one long word", "both"],
)  # fmt: skip
def test_a_bad_word_of_a_network_is_told_at_the_network(accept, words):
    machine = vm("web", nic("data", binding="bridge", network="br"))
    found, (message,) = problems_of(
        machine, nad("br", accept=accept), nad("other", accept="MtuDiffers, PropertyNotCarried/vlan")
    )
    assert found == [("NetworkAttachmentDefinition/tenants/br", "NotAcceptable")]
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    "word", ["Everything", "PropertyNotCarried", "PropertyNotCarried/", "mtudiffers", "MtuDiffers\n", "", "NoFreeVf"]
)
def test_a_policy_lists_the_words_that_it_may_accept(word):
    code, _, err = run("plan", "-f", "-", text=documents(policy(accept=["MtuDiffers", word])))
    assert (code, f"accept names {ALLOWED}" in err, "[A-Za-z" in err) == (2, True, False)
    assert "spec.accept.1:" in err


@pytest.mark.parametrize(
    "config",
    [
        '{"plugins": [{"type": "bridge"}, {"macspoofchk": true}]}',
        '{"plugins": [{"type": "bridge"}, {"type": 5}]}',
        '{"plugins": [{"type": "bridge"}, {"type": ""}]}',
        '{"plugins": [{"bridge": "br0"}]}',
        '{"plugins": []}',
        '{"plugins": {"type": "bridge"}}',
        '{"bridge": "br0"}',
    ],
    ids=["chained", "a number", "empty", "the first", "none", "no list", "alone"],
)  # fmt: skip
def test_a_plugin_without_a_type_blocks_its_nics(config):
    network = nad("br", segment="blue")
    network["spec"]["config"] = config
    machine = vm("web", nic("data", binding="bridge", network="br", model="e1000e"))
    found = planned(policy(datapaths=["vhost"]), machine, network)["vms"][0]["nics"][0]
    assert (found["verdict"], found["reason"], "type" in found["message"] or "plugins" in found["message"]) == (
        "Blocked",
        "InputUnreadable",
        True,
    )
