"""A live command of a user who may not read some kinds of objects."""

import json

import msgspec
import pytest
import typer

from tests.builders.vm import kubevirt, nad, nic, node, node_state, policy, pool, quota, vm
from vmnic.cli import live
from vmnic.cli.app import app
from vmnic.cli.live import NODE_KINDS, VM_KINDS
from vmnic.kube.errors import ApiError, NotFoundError

INJECTION = "network-resources-injector"
REFUSABLE = [
    "nodes", "namespaces", "network-attachment-definitions", "virtualmachinepreferences", "virtualmachineclusterpreferences",
    "virtualmachinepools", "controllerrevisions", "virtualmachineinstancetypes", "virtualmachineclusterinstancetypes", "kubevirts", "resourcequotas", "mutatingwebhookconfigurations",
]  # fmt: skip
ESSENTIAL = ["sriovnetworkpools", "nodenicstates", "vmnicpolicies", "virtualmachines", "virtualmachineinstances"]
CLUSTER = [
    vm("web", nic("data", binding="bridge", network="br"), run_strategy="Halted", preference={"name": "p"}),
    vm("vf", nic("data", binding="sriov", network="fast"), run_strategy="Halted"),
    vm("pod", nic(model="e1000e"), run_strategy="Halted"),
    policy(datapaths=["sriov", "vhost"]),
    {"kind": "VirtualMachineClusterPreference", "metadata": {"name": "p"}, "spec": {"devices": {"preferredInterfaceModel": "e1000e"}}},
    nad("br", segment="blue"), nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue"),
    pool(), node(), node_state(), kubevirt(version="v1.9.0"), quota(),
    {"kind": "MutatingWebhookConfiguration", "metadata": {"name": f"{INJECTION}-config"}},
    {"kind": "Namespace", "metadata": {"name": "tenants", "labels": {"team": "a"}}},
]  # fmt: skip


class Api:
    """An API server that refuses some kinds. Class attributes hold its state, because the commands make the client."""

    refused = frozenset()
    absent = frozenset()
    status = 403
    objects = CLUSTER

    def __init__(self, *args, **options):
        pass

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        return None

    def _check(self, kind):
        if kind.plural in self.absent:
            raise NotFoundError(status=404, reason="NotFound", message="the server could not find the requested resource")
        if kind.plural in self.refused:
            raise ApiError(status=self.status, reason="Forbidden", message=f"{kind.plural} is forbidden")

    async def list_pages(self, kind, selectors=None):
        self._check(kind)
        yield [msgspec.Raw(json.dumps(one).encode()) for one in self.objects if one["kind"] == kind.kind], ""

    async def read(self, kind, name, namespace=""):
        self._check(kind)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command against an API server that refuses some kinds, and return exit code, output and errors."""
    monkeypatch.setattr(live, "ApiClient", Api)
    monkeypatch.setattr(live, "kubeconfig_connection", lambda path: path)

    def invoke(refused, *arguments, status=403, objects=CLUSTER):
        monkeypatch.setattr(Api, "refused", frozenset(refused))
        monkeypatch.setattr(Api, "status", status)
        monkeypatch.setattr(Api, "objects", objects)
        try:
            code = app(list(arguments), standalone_mode=False)
        except typer.Exit as end:
            code = end.exit_code
        return (code or 0, *capsys.readouterr())

    return invoke


COMMANDS = [
    *(["plan"], ["plan", "-o", "markdown"], ["explain", "vm", "web", "-n", "tenants"], ["capacity"], ["status"], ["nodes"]),
    *(["revert", "vm", "web", "-n", "tenants"], ["uninstall"], ["path", "vm", "web", "-n", "tenants"], ["plan", "-o", "html"]),
]


def test_every_kind_is_either_essential_or_may_be_refused():
    assert {kind.plural for kind in (*NODE_KINDS, *VM_KINDS)} == {*REFUSABLE, *ESSENTIAL}


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("kind", REFUSABLE)
def test_a_refused_kind_stops_no_command(run, kind, arguments):
    code, _, err = run([kind], *arguments)
    assert code in (0, 1), err


@pytest.mark.parametrize("kind", ESSENTIAL)
def test_an_essential_kind_that_is_refused_ends_a_plan(run, kind):
    code, _, err = run([kind], "plan")
    assert (code, f"{kind} is forbidden" in err) == (2, True)


def test_an_error_other_than_a_refusal_ends_a_plan(run):
    assert run(["mutatingwebhookconfigurations"], "plan", status=500)[0] == 2


@pytest.mark.parametrize("kind", REFUSABLE)
def test_a_refused_kind_is_told_once_by_plan_and_status(run, kind):
    text = f"you may not read {kind}, so what depends on them is not known"
    problems = json.loads(run([kind], "plan", "-o", "json")[1])["problems"]
    assert [one["message"] for one in problems if one["reason"] == "Forbidden"] == [text]
    checks = json.loads(run([kind], "status", "-o", "json")[1])["checks"]
    assert [(one["ok"], one["known"]) for one in checks if one["text"] == text and one["what"] == "rights"] == [(True, False)]
    assert text in run([kind], "explain", "vm", "web", "-n", "tenants")[2]


def reasons(out):
    return {one["name"]: (one["nics"][0]["verdict"], one["nics"][0]["reason"]) for one in json.loads(out)["vms"]}


@pytest.mark.parametrize(
    ("kind", "web", "vf", "pod"),
    [
        ("network-attachment-definitions", ("Blocked", "InputUnreadable"), ("Blocked", "InputUnreadable"), ("Change", None)),
        ("virtualmachineclusterpreferences", ("Blocked", "PreferenceUnknown"), ("Compliant", None), ("Change", None)),
        ("virtualmachinepreferences", ("Change", None), ("Compliant", None), ("Change", None)),
        ("kubevirts", ("Blocked", "InputUnreadable"), ("Compliant", None), ("Change", None)),
        ("resourcequotas", ("Blocked", "InputUnreadable"), ("Compliant", None), ("Change", None)),
        ("mutatingwebhookconfigurations", ("Change", None), ("Compliant", None), ("Change", None)),
        ("namespaces", ("Change", None), ("Compliant", None), ("Change", None)),
    ],
)
def test_what_depends_on_a_refused_kind_is_not_decided(run, kind, web, vf, pod):
    assert reasons(run([kind], "plan", "-o", "json")[1]) == {"web": web, "vf": vf, "pod": pod}


def test_labels_of_a_refused_namespace_select_nothing_by_mistake(run):
    rules = [one for one in CLUSTER if one["kind"] != "VmNicPolicy"]
    selector = {"namespaceSelector": {"matchLabels": {"team": "a"}}, "networks": ["*"]}
    objects = [*rules, policy("other", selector=selector, priority=200), policy(datapaths=["vhost"])]
    found = reasons(run(["namespaces"], "plan", "-o", "json", objects=objects)[1])
    assert set(found.values()) == {("Blocked", "InputUnreadable")}


def test_pools_are_not_planned_without_the_labels_of_nodes(run):
    objects = [
        *(one for one in CLUSTER if one["kind"] != "SriovNetworkPool"),
        pool(nodeSelector={"rack": "1"}),
    ]
    made = json.loads(run(["nodes"], "plan", "-o", "json", objects=objects)[1])
    assert made["pools"] == [{"name": "fast", "nodes": []}]


def test_an_injector_that_may_not_be_read_is_not_known(run):
    _, out, _ = run(["mutatingwebhookconfigurations"], "status", "-o", "json")
    line = next(one for one in json.loads(out)["checks"] if one["what"] == INJECTION)
    assert (line["ok"], line["known"], line["text"].startswith("not known")) == (True, False, True)
    _, out, _ = run(["mutatingwebhookconfigurations"], "plan", "-o", "json")
    found = [one["object"] for one in json.loads(out)["problems"] if one["reason"] == "NetResourceInjectorMissing"]
    assert found == ["KubeVirt/kubevirt/kubevirt"]


def test_a_kubevirt_resource_that_may_not_be_read_is_not_absent(run):
    _, out, _ = run(["kubevirts"], "status", "-o", "json")
    line = next(one for one in json.loads(out)["checks"] if one["what"] == "KubeVirt")
    assert (line["ok"], line["known"]) == (True, False)


def test_a_malformed_webhook_configuration_may_be_the_injector(run):
    broken = {"kind": "MutatingWebhookConfiguration", "metadata": {"name": "x"}, "webhooks": 5}
    objects = [*(one for one in CLUSTER if one["kind"] != "MutatingWebhookConfiguration"), broken]
    assert reasons(run([], "plan", "-o", "json", objects=objects)[1])["web"] == ("Change", None)


def test_what_fails_at_the_next_start_is_told(run):
    objects = [one for one in CLUSTER if one["kind"] != "MutatingWebhookConfiguration"]
    words = (
        "NetResourceInjectorMissing: NIC data: the NIC keeps sriov, but the next start of the VM fails or gives it no device"
    )
    for how in ("table", "markdown"):
        assert words in run([], "plan", "-o", how, objects=objects)[1].replace("\n", " ")
    made = json.loads(run([], "plan", "-o", "json", objects=objects)[1])
    (found,) = (one["nics"][0]["warnings"] for one in made["vms"] if one["name"] == "vf")
    assert [one["reason"] for one in found] == ["NetResourceInjectorMissing"]
    assert [one["object"] for one in made["problems"]] == ["VirtualMachine/tenants/vf"]
    assert "warning NetResourceInjectorMissing" in run([], "explain", "vm", "vf", "-n", "tenants", objects=objects)[1]


def pool_of_vms(**fields):
    template = vm("web", nic(model="e1000e"), **fields)["spec"]
    spec = {"replicas": 2, "selector": {}, "virtualMachineTemplate": {"spec": template}}
    meta = {"name": "farm", "namespace": "tenants"}
    return {"apiVersion": "pool.kubevirt.io/v1alpha1", "kind": "VirtualMachinePool", "metadata": meta, "spec": spec}


def pools_in(out):
    made = json.loads(out)
    return [(one["name"], one["nics"][0]["to"]["datapath"]) for one in made["vms"] if one["kind"] == "VirtualMachinePool"]


def test_a_live_plan_shows_what_pools_of_vms_will_get(run):
    _, out, _ = run([], "plan", "-o", "json", objects=[*CLUSTER, pool_of_vms()])
    assert pools_in(out) == [("farm", "vhost")]
    assert pools_in(run(["virtualmachinepools"], "plan", "-o", "json", objects=[*CLUSTER, pool_of_vms()])[1]) == []


def test_a_cluster_without_pools_of_vms_has_none(run, monkeypatch):
    monkeypatch.setattr(Api, "absent", frozenset({"virtualmachinepools"}))
    _, out, _ = run([], "plan", "-o", "json")
    assert (pools_in(out), json.loads(out)["problems"]) == ([], json.loads(run([], "plan", "-o", "json")[1])["problems"])
    assert "virtualmachinepools" not in out
    monkeypatch.setattr(Api, "absent", frozenset({"kubevirts"}))
    problems = json.loads(run([], "plan", "-o", "json")[1])["problems"]
    assert [one["reason"] for one in problems if "kubevirts" in one["message"]] == ["KindAbsent"]


def test_labels_of_refused_namespaces_block_pools_of_vms_too(run):
    selector = {"namespaceSelector": {"matchLabels": {"team": "a"}}, "networks": ["*"]}
    objects = [pool_of_vms(), policy("other", selector=selector, priority=200), policy(datapaths=["vhost"])]
    (made,) = json.loads(run(["namespaces"], "plan", "-o", "json", objects=objects)[1])["vms"]
    assert (made["nics"][0]["verdict"], made["nics"][0]["reason"]) == ("Blocked", "InputUnreadable")


@pytest.mark.parametrize(("given", "shown"), [([], False), (["--pod-network-mtu", "8901"], True)], ids=["not given", "given"])
def test_plan_and_explain_know_the_mtu_of_the_pod_network(run, given, shown):
    words = "with static configuration MTU 1500 to 8901"
    for command in (["plan"], ["plan", "-o", "markdown"], ["explain", "vm", "pod", "-n", "tenants"]):
        assert (words in " ".join(run([], *command, *given)[1].split())) is shown
