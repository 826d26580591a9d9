"""Faults that affect VMs.

Every VM still starts, and no patch is lost or made twice.
"""

import base64
import threading
from datetime import UTC, datetime, timedelta

import pytest

from tests.builders.vm import nic, vm
from tests.cluster.machines import datapaths, instance_of, live_models, machine_of, state_of, wait_until_it_runs
from tests.harness.api import Api, ApiFailure, wait_for
from vmnic.controller.admission.certificates import Lifetimes, make_authority

COUNT = 60


def machines(cluster, namespace, count=COUNT):
    """Create stopped VMs that a policy would change."""
    names = [f"v{number:03}" for number in range(count)]
    for name in names:
        cluster.api.create(vm(name, nic(model="e1000e"), namespace=namespace, run_strategy="Halted"))
    return names


def generations(cluster, namespace):
    return {one["metadata"]["name"]: one["metadata"]["generation"] for one in cluster.api.list("VirtualMachine", namespace)}


def all_changed(cluster, namespace, names):
    found = {one["metadata"]["name"]: one for one in cluster.api.list("VirtualMachine", namespace)}
    interfaces = [found[name]["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"] for name in names]
    return all(one[0]["model"] == "virtio" for one in interfaces)


def changed_once(cluster, namespace, names, before):
    """Check that every VM was changed, and its spec exactly once."""
    wait_for("every VM is changed", lambda: all_changed(cluster, namespace, names), 60)
    after = generations(cluster, namespace)
    assert {name: after[name] - before[name] for name in names} == dict.fromkeys(names, 1)


def test_vm_starts_while_the_webhook_is_down_and_is_reported(cluster, policy, namespace):
    name = policy(f"p-{namespace}", namespace, existing="Leave")
    cluster.kill("controller-1")
    try:
        cluster.api.create(vm("v", nic(model="e1000e"), namespace=namespace))
        wait_until_it_runs(cluster, namespace)
    finally:
        cluster.start_controller()
    wait_for("it is reported", lambda: cluster.api.get("VmNicPolicy", name)["status"]["vms"].get("toChange") == 1)
    assert datapaths(cluster, namespace) == ["e1000e"]
    wait_for("the webhook answers again", lambda: admitted(cluster, namespace))


def admitted(cluster, namespace):
    answer = cluster.api.create(vm("probe", nic(model="e1000e"), namespace=namespace), "?dryRun=All")
    return answer["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0]["model"] == "virtio"


def test_vm_starts_while_the_webhook_is_not_trusted(cluster, policy, namespace):
    policy(f"p-{namespace}", namespace, existing="Leave")
    authority = make_authority(datetime.now(UTC), Lifetimes(timedelta(days=1)))
    stranger = base64.b64encode(authority.certificate).decode()
    configuration = cluster.api.get("MutatingWebhookConfiguration", "vmnic")
    bundles = [webhook["clientConfig"]["caBundle"] for webhook in configuration["webhooks"]]

    def trust(values):
        paths = [f"/webhooks/{number}/clientConfig/caBundle" for number in range(len(values))]
        operations = [{"op": "replace", "path": path, "value": value} for path, value in zip(paths, values, strict=True)]
        cluster.api.patch("MutatingWebhookConfiguration", "vmnic", operations)

    def start_untrusted():
        # The leader restores its authority once a minute, and so perhaps in between.
        trust([stranger] * len(bundles))
        wait_for("the webhook is no longer asked", lambda: not admitted(cluster, namespace))
        cluster.api.create(vm("v", nic(model="e1000e"), namespace=namespace))
        return datapaths(cluster, namespace) == ["e1000e"] or cluster.api.delete("VirtualMachine", "v", namespace)

    try:
        wait_for("a VM was created untouched", start_untrusted)
        wait_until_it_runs(cluster, namespace)
    finally:
        trust(bundles)
    wait_for("the webhook answers again", lambda: admitted(cluster, namespace))


def test_virt_api_may_be_away_in_the_middle(cluster, policy, namespace):
    names = machines(cluster, namespace, 10)
    before = generations(cluster, namespace)
    cluster.processes.kill("virt-api")
    try:
        policy(f"p-{namespace}", namespace)
        wait_for("patches are refused", lambda: "failed calling webhook" in cluster.processes.log("controller-1"))
        assert generations(cluster, namespace) == before
    finally:
        cluster.kubevirt.restart_virt_api()
    changed_once(cluster, namespace, names, before)


def test_api_server_restart_during_a_pass_is_survived(cluster, policy, namespace):
    names = machines(cluster, namespace)
    before = generations(cluster, namespace)
    policy(f"p-{namespace}", namespace)
    cluster.processes.kill("kube-apiserver")
    cluster.plane.start_api()
    changed_once(cluster, namespace, names, before)


def test_overloaded_api_server_is_asked_again_later(cluster, policy, namespace):
    names = machines(cluster, namespace)
    before = generations(cluster, namespace)
    # The API server grants at least one request at a time. All other writes of the controller get a 429.
    group = "flowcontrol.apiserver.k8s.io/v1"
    refuse = {
        "type": "Limited",
        "limited": {
            "nominalConcurrencyShares": 0,
            "lendablePercent": 0,
            "borrowingLimitPercent": 0,
            "limitResponse": {"type": "Reject"},
        },
    }
    account = {"kind": "ServiceAccount", "serviceAccount": {"name": "vmnic-controller", "namespace": "vmnic-system"}}
    rules = [
        {
            "verbs": ["patch", "create"],
            "apiGroups": ["kubevirt.io", "vmnic.dev"],
            "resources": ["*"],
            "clusterScope": True,
            "namespaces": ["*"],
        }
    ]
    schema = {
        "matchingPrecedence": 2, "priorityLevelConfiguration": {"name": "vmnic-busy"},
        "rules": [{"subjects": [account], "resourceRules": rules}],
    }  # fmt: skip
    for kind, plural, spec in (
        ("PriorityLevelConfiguration", "prioritylevelconfigurations", refuse),
        ("FlowSchema", "flowschemas", schema),
    ):
        body = {"apiVersion": group, "kind": kind, "metadata": {"name": "vmnic-busy"}, "spec": spec}
        cluster.api.request("POST", f"/apis/{group}/{plural}", body)
    before_log = len(cluster.processes.log("controller-1"))
    try:
        policy(f"p-{namespace}", namespace)
        changed_once(cluster, namespace, names, before)
        assert "too many requests" in cluster.processes.log("controller-1")[before_log:].lower()
    finally:
        for plural in ("flowschemas", "prioritylevelconfigurations"):
            cluster.api.request("DELETE", f"/apis/{group}/{plural}/vmnic-busy")


def test_vms_deleted_in_the_middle_do_no_harm(cluster, policy, namespace):
    names = machines(cluster, namespace)
    gone, kept = names[::2], names[1::2]
    before = {name: number for name, number in generations(cluster, namespace).items() if name in kept}
    thread = threading.Thread(target=lambda: [cluster.api.delete("VirtualMachine", name, namespace) for name in gone])
    thread.start()
    policy(f"p-{namespace}", namespace)
    thread.join()
    changed_once(cluster, namespace, kept, before)
    assert cluster.processes.running("controller-1")


def test_constant_edits_of_a_vm_only_delay_its_patch(cluster, policy, namespace):
    names = machines(cluster, namespace, 5)
    stop = threading.Event()

    def edit():
        api = Api(cluster.plane.server, cluster.plane.pki / "ca.crt", "admin-token")
        number = 0
        while not stop.is_set():
            number += 1
            for name in names:
                path = "/spec/template/spec/domain/devices/interfaces/0/bootOrder"
                api.patch("VirtualMachine", name, [{"op": "add", "path": path, "value": 1 + number % 5}], namespace)

    thread = threading.Thread(target=edit)
    thread.start()
    try:
        policy(f"p-{namespace}", namespace)
        wait_for("every VM is changed", lambda: all_changed(cluster, namespace, names), 60)
    finally:
        stop.set()
        thread.join()
    for name in names:
        interface = machine_of(cluster, namespace, name)["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0]
        assert (interface["model"], "bootOrder" in interface) == ("virtio", True)


@pytest.mark.parametrize("away_s", [0, 6], ids=["at once", "when the time of the restart is over"])
def test_successor_finishes_the_restart_of_a_killed_leader(cluster, policy, namespace, away_s):
    cluster.api.create(vm("v", nic(model="e1000e"), namespace=namespace))
    old = wait_until_it_runs(cluster, namespace)["metadata"]["uid"]
    policy(f"p-{namespace}", namespace, existing="Rolling")
    restart = wait_for("the restart is written down", lambda: state_of(cluster, namespace).get("restart"))
    cluster.kill("controller-1")
    back = datetime.fromisoformat(restart["at"]) + timedelta(seconds=away_s)
    wait_for("nobody leads for so long", lambda: datetime.now(UTC) >= back)
    cluster.start_controller()
    wait_for("it is done", lambda: state_of(cluster, namespace).get("restart", {}).get("state") == "Done", 60)
    instance = wait_until_it_runs(cluster, namespace)
    assert instance["metadata"]["uid"] != old
    assert [one["model"] for one in instance["spec"]["domain"]["devices"]["interfaces"]] == ["virtio"]


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_webhook_that_hangs_or_dies_keeps_no_vm_from_starting(cluster, policy, namespace, how):
    policy(f"p-{namespace}", namespace)
    (cluster.processes.freeze if how == "freeze" else cluster.kill)("controller-1")
    try:
        cluster.api.create(vm("v", nic(model="e1000e"), namespace=namespace))
        wait_until_it_runs(cluster, namespace)
    finally:
        cluster.processes.resume("controller-1") if how == "freeze" else cluster.start_controller()
    wait_for("the webhook answers again", lambda: admitted(cluster, namespace))


LOCKED = {"vmnic-test/locked": "true"}
ADMISSION = "/apis/admissionregistration.k8s.io/v1"


@pytest.fixture
def lock(cluster):
    """A foreign policy that refuses vmnic's changes of some VMs.

    Returns a function that removes it.
    """
    rules = [{"apiGroups": ["kubevirt.io"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["virtualmachines"]}]
    spec = {
        "matchConstraints": {"resourceRules": rules, "objectSelector": {"matchLabels": LOCKED}},
        "validations": [{"expression": "!request.userInfo.username.endsWith(':vmnic-controller')", "message": "hands off"}],
    }
    binding = {"policyName": "locked", "validationActions": ["Deny"]}
    made = {}
    for kind, plural, one in (
        ("ValidatingAdmissionPolicy", "validatingadmissionpolicies", spec),
        ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", binding),
    ):
        body = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "locked"}, "spec": one}
        cluster.api.request("POST", f"{ADMISSION}/{plural}", body)
        made[plural] = True

    def unlock():
        while made:
            cluster.api.request("DELETE", f"{ADMISSION}/{made.popitem()[0]}/locked")

    yield unlock
    unlock()


def is_locked(cluster, namespace, name):
    """Ask, by a dry run, whether the API server already refuses vmnic's changes of a VM."""
    controller = {
        "Impersonate-User": "system:serviceaccount:vmnic-system:vmnic-controller",
        "Impersonate-Group": "system:masters",
    }
    try:
        cluster.api.merge("VirtualMachine", f"{name}?dryRun=All", {}, namespace, **controller)
    except ApiFailure as failure:
        return "hands off" in str(failure)
    return False


def test_refused_patch_is_reported_and_holds_up_no_other_vm(cluster, policy, namespace, lock):
    for name in ("v0", "v1"):
        cluster.api.create(vm(name, nic(model="e1000e"), namespace=namespace, labels=LOCKED if name == "v0" else {}))
    uids = {name: wait_until_it_runs(cluster, namespace, name)["metadata"]["uid"] for name in ("v0", "v1")}
    wait_for("the lock holds", lambda: is_locked(cluster, namespace, "v0"))
    name = policy(f"p-{namespace}", namespace, existing="Rolling")
    wait_for("the other is changed", lambda: live_models(cluster, namespace, "v1") == ["virtio"], 60)

    def told():
        problems = cluster.api.get("VmNicPolicy", name)["status"].get("problems", [])
        return [(one["vm"], one["reason"]) for one in problems if "hands off" in one["message"]]

    def reasons():
        return [nic.get("reason") for nic in state_of(cluster, namespace, "v0").get("nics", [])]

    assert wait_for("the policy names it", told, 90) == [(f"{namespace}/v0", "PatchRefused")]
    # The policy's status and the VM's own are two writes.
    wait_for("the VM's own status says why", lambda: reasons() == ["PatchRefused"])
    assert instance_of(cluster, namespace, "v0")["metadata"]["uid"] == uids["v0"]
    lock()
    wait_for("it is changed too", lambda: live_models(cluster, namespace, "v0") == ["virtio"], 120)
