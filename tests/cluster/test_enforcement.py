"""When and how VMs are changed (Admit, Rolling, windows), and the warnings for a policy's author."""

import json
import threading
import time

import pytest

from tests.builders.vm import nic, vm
from tests.cluster.machines import (
    datapaths,
    instance_of,
    live_models,
    machine_of,
    make_networks,
    reasons,
    state_of,
    wait_until_it_runs,
)
from tests.harness.api import ApiFailure, wait_for

_LOOKS = 20
"""Reconciles by virt-controller of a VM whose instance differs from its spec."""


def old_vms(cluster, namespace, count, **options):
    """Create VMs that run before any policy exists."""
    names = [f"v{number}" for number in range(count)]
    for name in names:
        cluster.api.create(vm(name, nic(model="e1000e"), namespace=namespace, **options))
    return {name: wait_until_it_runs(cluster, namespace, name)["metadata"]["uid"] for name in names}


def in_force(policy, namespace, existing, action="Patch", **enforcement):
    name = f"p-{namespace}"
    body = {"action": action, "existingVMs": existing, **enforcement}
    return policy(name, namespace, enforcement=body)


def spec_of(cluster, namespace, name="v"):
    """Return the part of a VM that Git contains: its spec, labels and annotations."""
    machine = machine_of(cluster, namespace, name)
    notes = {
        key: value for key, value in machine["metadata"].get("annotations", {}).items() if not key.startswith("kubevirt.io/")
    }
    return json.dumps([machine["spec"], machine["metadata"].get("labels"), notes], sort_keys=True)


def let_virt_controller_look(cluster, namespace, touched):
    """Make a change without effect, and wait until virt-controller has observed the VM's current version."""
    notes = {"touched": touched}
    cluster.api.merge("VirtualMachine", "v", {"spec": {"template": {"metadata": {"annotations": notes}}}}, namespace)

    def has_looked():
        machine = machine_of(cluster, namespace)
        return machine["status"].get("desiredGeneration") == machine["metadata"]["generation"]

    wait_for("virt-controller has looked", has_looked)


def test_admit_changes_the_instance_and_kubevirt_accepts_it(cluster, policy, namespace):
    in_force(policy, namespace, "Leave", "Admit")
    machine = vm("v", nic(model="e1000e"), nic("b", binding="bridge", network="br", model="rtl8139"), namespace=namespace)
    before = [one["model"] for one in machine["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"]]
    make_networks(cluster, namespace)
    cluster.api.create(machine)
    wait_until_it_runs(cluster, namespace)
    assert (live_models(cluster, namespace), datapaths(cluster, namespace)) == (["virtio", "virtio"], before)
    seen, uid = spec_of(cluster, namespace), instance_of(cluster, namespace)["metadata"]["uid"]
    for touched in (*map(str, range(_LOOKS)), None):
        let_virt_controller_look(cluster, namespace, touched)
        running = instance_of(cluster, namespace)["metadata"]["uid"]
        assert (live_models(cluster, namespace), datapaths(cluster, namespace), running) == (["virtio", "virtio"], before, uid)
        assert not cluster.api.list("VirtualMachineInstanceMigration", namespace)
    assert spec_of(cluster, namespace) == seen
    conditions = {one["type"] for one in machine_of(cluster, namespace)["status"]["conditions"] if one["status"] == "True"}
    assert "RestartRequired" not in conditions
    wait_for(
        "the policy is satisfied",
        lambda: cluster.api.get("VmNicPolicy", f"p-{namespace}")["status"]["vms"].get("compliant") == 1,
    )


def test_admit_leaves_a_vm_alone_that_is_older_than_the_policy(cluster, policy, namespace):
    old_vms(cluster, namespace, 1)
    made = machine_of(cluster, namespace, "v0")["metadata"]["creationTimestamp"]
    wait_for("another second has begun", lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) > made)
    name = in_force(policy, namespace, "Leave", "Admit")
    wait_for("it is told", lambda: reasons(cluster, name) == ["ExistingVm"])
    cluster.api.request("PUT", f"/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachines/v0/restart", {})
    uid = instance_of(cluster, namespace, "v0")
    wait_for(
        "it runs again",
        lambda: (
            (instance_of(cluster, namespace, "v0") or uid or {"metadata": {"uid": ""}})["metadata"]["uid"]
            != (uid or {"metadata": {"uid": ""}})["metadata"]["uid"]
        ),
    )
    assert live_models(cluster, namespace, "v0") == ["e1000e"]


def busy_at_a_time(cluster, namespace, uids, stop, seen):
    """Count from outside how many VMs are down at a time."""
    while not stop.is_set():
        try:
            away = sum(instance_of(cluster, namespace, name) is None for name in uids)
        except (ApiFailure, OSError):
            continue
        seen.append(away)


@pytest.mark.parametrize("action", ["Patch", "Admit"])
def test_rolling_restarts_one_vm_after_the_other_and_each_once(cluster, policy, namespace, action):
    uids = old_vms(cluster, namespace, 3)
    stop, seen = threading.Event(), []
    observer = threading.Thread(target=busy_at_a_time, args=(cluster, namespace, uids, stop, seen))
    observer.start()
    try:
        name = in_force(policy, namespace, "Rolling", action)
        for one in uids:
            wait_for(f"{one} is changed", lambda one=one: live_models(cluster, namespace, one) == ["virtio"], 60)
        wait_for("the policy is satisfied", lambda: cluster.api.get("VmNicPolicy", name)["status"]["vms"].get("compliant") == 3)
    finally:
        stop.set()
        observer.join()
    assert max(seen) == 1
    restarts = {one: state_of(cluster, namespace, one).get("restart", {}) for one in uids}
    if action == "Patch":
        assert {one["state"] for one in restarts.values()} == {"Done"}
        assert {name: one["instance"] for name, one in restarts.items()} == uids


def test_vm_that_does_not_come_back_stops_the_rollout(cluster, policy, namespace):
    cluster.api.create(stuck := vm("v0", nic(model="e1000e"), namespace=namespace, annotations={}))
    assert stuck
    wait_until_it_runs(cluster, namespace, "v0")
    old = cluster.api.get("VirtualMachine", "v0", namespace)
    notes = old["spec"]["template"]["metadata"]["annotations"] | {"player.vmnic.dev/starts": "1"}
    cluster.api.merge("VirtualMachine", "v0", {"spec": {"template": {"metadata": {"annotations": notes}}}}, namespace)
    cluster.api.create(vm("v1", nic(model="e1000e"), namespace=namespace))
    wait_until_it_runs(cluster, namespace, "v1")
    name = in_force(policy, namespace, "Rolling")
    wait_for("the rollout has stopped", lambda: condition(cluster, name, "Stalled") == ("True", "VmDidNotComeBack"), 60)
    assert live_models(cluster, namespace, "v1") == ["e1000e"]
    cluster.api.merge(
        "VirtualMachine",
        "v0",
        {"spec": {"template": {"metadata": {"annotations": {"player.vmnic.dev/starts": None}}}}},
        namespace,
    )
    pod = next(pod for pod in cluster.api.list("Pod", namespace) if pod["metadata"]["labels"]["vm.kubevirt.io/name"] == "v0")
    cluster.api.merge(
        "Pod", pod["metadata"]["name"], {"metadata": {"annotations": {"player.vmnic.dev/starts": None}}}, namespace
    )
    for one in ("v0", "v1"):
        wait_for(f"{one} is changed", lambda one=one: live_models(cluster, namespace, one) == ["virtio"], 60)
    wait_for("nothing is stalled", lambda: condition(cluster, name, "Stalled")[0] == "False")


def condition(cluster, name, kind):
    found = cluster.api.get("VmNicPolicy", name).get("status", {}).get("conditions", [])
    return next(((one["status"], one["reason"]) for one in found if one["type"] == kind), None)


def test_rolling_waits_for_its_window(cluster, policy, namespace):
    old_vms(cluster, namespace, 1)
    closed = {"schedule": "0 0 1 1 *", "duration": "1m"}
    name = in_force(policy, namespace, "Rolling", window=closed)
    wait_for("it waits", lambda: reasons(cluster, name) == ["WaitsForWindow"])
    assert (datapaths(cluster, namespace, "v0"), live_models(cluster, namespace, "v0")) == (["e1000e"], ["e1000e"])
    open_now = {"schedule": "* * * * *", "duration": "10m"}
    cluster.api.merge("VmNicPolicy", name, {"spec": {"enforcement": {"window": open_now}}})
    wait_for("it is changed", lambda: live_models(cluster, namespace, "v0") == ["virtio"], 60)


def test_tenant_may_forbid_restarts(cluster, policy, namespace):
    machine = vm("v", nic(model="e1000e"), namespace=namespace)
    machine["metadata"]["annotations"] = {"vmnic.dev/restart": "Never"}
    cluster.api.create(machine)
    wait_until_it_runs(cluster, namespace)
    name = in_force(policy, namespace, "Rolling")
    wait_for("it waits", lambda: reasons(cluster, name) == ["WaitsForStop"])
    assert datapaths(cluster, namespace) == ["e1000e"]


def test_decision_is_reported_in_the_namespace_within_2_kib(cluster, policy, namespace):
    make_networks(cluster, namespace)
    nics = [nic(model="e1000e")] + [
        nic(f"nic-{number}", binding="bridge", network="br", model="e1000e") for number in range(20)
    ]
    cluster.api.create(vm("v", *nics, namespace=namespace))
    wait_until_it_runs(cluster, namespace)
    in_force(policy, namespace, "WhenStopped")
    found = wait_for("it is told", lambda: state_of(cluster, namespace))
    assert len(json.dumps(found, separators=(",", ":"))) <= 2048
    assert found["summary"] == "21 Change"
    assert found["nics"][0]["reason"] == "WaitsForStop"
    cluster.api.delete("VmNicState", "v", namespace)
    wait_for("what somebody has taken away is written anew", lambda: state_of(cluster, namespace))


def warnings_of(cluster, body):
    import yaml

    path = cluster.directory / "policy.yaml"
    path.write_text(yaml.safe_dump(body))
    return cluster.kubectl("apply", "-f", str(path), check=False)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"datapaths": ["sriov"], "sriov": {"pool": "nowhere"}},
            "Warning: spec.sriov.pool: there is no SriovNetworkPool nowhere yet",
        ),
        (
            {"datapaths": ["passthrough"], "passthrough": {"pool": "fast"}},
            "Warning: spec.passthrough.pool: pool fast is not a pool with function: Physical",
        ),
        ({"selector": {"vmSelector": {"matchLabels": {"no": "vm"}}}}, "Warning: spec.selector matches no existing VM"),
        ({"passthrough": {"pool": "fast"}, "datapaths": ["vhost"]}, "Warning: spec.passthrough has no effect"),
        (
            {"enforcement": {"window": {"schedule": "every night at two"}}},
            "spec.enforcement.window.schedule 'every night at two' is no cron expression",
        ),
    ],
    ids=["no such pool", "another function", "no VM", "no effect", "no schedule"],
)
def test_author_of_a_policy_is_warned(cluster, pool, namespace, spec, words):
    pool()
    cluster.api.create(vm("v", namespace=namespace, run_strategy="Halted"))
    wait_for("the pool is known", lambda: cluster.api.get("SriovNetworkPool", "fast").get("status"))
    body = {
        "apiVersion": "vmnic.dev/v1alpha1",
        "kind": "VmNicPolicy",
        "metadata": {"name": f"w-{namespace}"},
        "spec": {"selector": {"networks": ["*"]}} | spec,
    }
    try:
        printed = warnings_of(cluster, body)
    finally:
        cluster.api.delete("VmNicPolicy", f"w-{namespace}")
    assert words in printed
    assert ("created" in printed) is printed.startswith("Warning")
