"""VMs are decided, patched at admission and while stopped, and validated by KubeVirt's own virt-api."""

import copy
import subprocess

import pytest
import yaml

from tests.builders.vm import nic, vm
from tests.harness.api import ApiFailure, wait_for


def models(cluster, name, namespace):
    devices = cluster.api.get("VirtualMachine", name, namespace)["spec"]["template"]["spec"]["domain"]["devices"]
    return [interface.get("model") for interface in devices["interfaces"]]


def counts(cluster, policy):
    return cluster.api.get("VmNicPolicy", policy).get("status", {}).get("vms", {})


@pytest.mark.parametrize(
    ("machine", "after"),
    [
        (vm("v", nic(model="e1000e")), ["virtio"]),
        (vm("v", nic(model="virtio"), os="windows"), ["e1000e"]),
        (vm("v", nic(), os="windows"), ["e1000e"]),
        (vm("v", nic(model="e1000"), os="windows"), ["e1000"]),
        (vm("v", nic(model="e1000e"), os=None), ["e1000e"]),
        (vm("v", nic(model="e1000e"), nic("second", binding="bridge", network="br", model="rtl8139")), ["virtio", "virtio"]),
        (vm("v", nic(model="e1000e"), nic("vf", binding="sriov", network="fast")), ["virtio", None]),
    ],
    ids=[
        "Linux is taken off e1000e",
        "Windows is taken off virtio",
        "Windows without a model gets one",
        "Windows keeps any emulated model",
        "an unknown guest is left alone",
        "every convertible NIC is changed",
        "a VF keeps its network",
    ],
)
def test_new_vm_is_compliant_from_its_first_boot(cluster, policy, namespace, machine, after):
    policy(f"p-{namespace}", namespace)
    machine = copy.deepcopy(machine)
    machine["metadata"]["namespace"] = namespace
    machine["spec"]["runStrategy"] = "Halted"
    cluster.api.create(machine)
    assert models(cluster, "v", namespace) == after


def devices(cluster, name, namespace):
    return cluster.api.get("VirtualMachine", name, namespace)["spec"]["template"]["spec"]["domain"]["devices"]


def test_linux_vm_under_high_pressure_gets_queues_and_vhost_net(cluster, policy, namespace):
    policy(f"p-{namespace}", namespace, networkPressure="High")
    small = vm("v", nic(model="e1000e"), namespace=namespace, run_strategy="Halted")
    small["spec"]["template"]["spec"]["domain"]["memory"] = {"guest": "256Mi"}
    cluster.api.create(small)
    assert (models(cluster, "v", namespace), devices(cluster, "v", namespace).get("networkInterfaceMultiqueue")) == (
        ["virtio"],
        None,
    )
    cluster.api.create(vm("w", nic(model="e1000e"), namespace=namespace))
    found = devices(cluster, "w", namespace)
    assert (found["networkInterfaceMultiqueue"], found["interfaces"][0]["model"]) == (True, "virtio")
    wait_for("it runs", lambda: _running(cluster, "w", namespace))
    pod = next(pod for pod in cluster.api.list("Pod", namespace) if pod["metadata"]["labels"].get("vm.kubevirt.io/name") == "w")
    assert pod["spec"]["containers"][0]["resources"]["requests"]["devices.kubevirt.io/vhost-net"] == "1"


def test_excluded_vm_is_left_alone(cluster, policy, namespace):
    policy(f"p-{namespace}", namespace)
    machine = vm("v", nic(model="e1000e"), namespace=namespace, run_strategy="Halted")
    machine["metadata"]["annotations"] = {"vmnic.dev/exclude": "true"}
    cluster.api.create(machine)
    assert models(cluster, "v", namespace) == ["e1000e"]


def test_implicit_default_nic_is_written_out(cluster, policy, namespace):
    policy(f"p-{namespace}", namespace)
    machine = vm("v", namespace=namespace, os="windows", run_strategy="Halted")
    machine["spec"]["template"]["spec"]["networks"] = []
    machine["spec"]["template"]["spec"]["domain"]["devices"] = {}
    cluster.api.create(machine)
    assert models(cluster, "v", namespace) == ["e1000e"]


def test_dry_run_is_patched_and_stores_nothing(cluster, policy, namespace):
    policy(f"p-{namespace}", namespace)
    answer = cluster.api.create(vm("v", nic(model="e1000e"), namespace=namespace), "?dryRun=All")
    assert answer["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0]["model"] == "virtio"
    assert cluster.api.get("VirtualMachine", "v", namespace) is None


def test_refusal_by_kubevirt_reaches_the_user(cluster, policy, namespace):
    policy(f"p-{namespace}", namespace)
    with pytest.raises(ApiFailure, match="vmxnet3 that is not supported"):
        cluster.api.create(vm("v", nic(model="vmxnet3"), namespace=namespace, os=None))


def test_running_vm_waits_and_is_changed_once_it_stops(cluster, policy, namespace):
    cluster.api.create(vm("v", nic(model="e1000e"), namespace=namespace))
    wait_for(
        "it runs",
        lambda: (cluster.api.get("VirtualMachineInstance", "v", namespace) or {}).get("status", {}).get("phase") == "Running",
    )
    name = policy(f"p-{namespace}", namespace)
    wait_for("the policy has counted it", lambda: counts(cluster, name).get("toChange") == 1)
    problem = cluster.api.get("VmNicPolicy", name)["status"]["problems"][0]
    assert (problem["vm"], problem["reason"]) == (f"{namespace}/v", "WaitsForStop")
    assert models(cluster, "v", namespace) == ["e1000e"]
    cluster.api.merge("VirtualMachine", "v", {"spec": {"runStrategy": "Halted"}}, namespace)
    wait_for("it is changed", lambda: models(cluster, "v", namespace) == ["virtio"])
    wait_for("the policy is satisfied", lambda: counts(cluster, name).get("compliant") == 1)


def test_immediately_changes_a_running_vm_and_keeps_its_mac(cluster, policy, namespace):
    cluster.api.create(vm("v", nic(model="e1000e"), namespace=namespace))
    instance = wait_for("it runs", lambda: _running(cluster, "v", namespace))
    policy(f"p-{namespace}", namespace, existing="Immediately")
    wait_for("its spec is changed", lambda: models(cluster, "v", namespace) == ["virtio"])
    interface = cluster.api.get("VirtualMachine", "v", namespace)["spec"]["template"]["spec"]["domain"]["devices"][
        "interfaces"
    ][0]
    assert interface["macAddress"] == instance["status"]["interfaces"][0]["mac"]
    wait_for("KubeVirt asks for a restart", lambda: _condition(cluster, "v", namespace, "RestartRequired"))


def _running(cluster, name, namespace):
    instance = cluster.api.get("VirtualMachineInstance", name, namespace)
    return instance if instance and instance.get("status", {}).get("phase") == "Running" else None


def _condition(cluster, name, namespace, kind):
    status = cluster.api.get("VirtualMachine", name, namespace).get("status", {})
    return any(c["type"] == kind and c["status"] == "True" for c in status.get("conditions", []))


def test_audit_reports_and_changes_nothing(cluster, policy, namespace):
    name = policy(f"p-{namespace}", namespace, action="Audit", existing="Immediately")
    cluster.api.create(vm("v", nic(model="e1000e"), namespace=namespace, run_strategy="Halted"))
    wait_for("the policy has counted it", lambda: counts(cluster, name).get("toChange") == 1)
    assert models(cluster, "v", namespace) == ["e1000e"]


def test_leave_protects_a_vm_that_has_run_before(cluster, policy, namespace):
    cluster.api.create(vm("v", nic(model="e1000e"), namespace=namespace, run_strategy="Halted"))
    name = policy(f"p-{namespace}", namespace, existing="Leave")
    wait_for("the policy has counted it", lambda: counts(cluster, name).get("toChange") == 1)
    assert models(cluster, "v", namespace) == ["e1000e"]


def test_preference_counts_and_is_not_written_to_the_vm(cluster, policy, namespace):
    meta = {"name": "win", "namespace": namespace, "labels": {"instancetype.kubevirt.io/os-type": "windows"}}
    spec = {"devices": {"preferredInterfaceModel": "e1000e"}}
    kind = "VirtualMachinePreference"
    cluster.api.create({"apiVersion": "instancetype.kubevirt.io/v1beta1", "kind": kind, "metadata": meta, "spec": spec})
    name = policy(f"p-{namespace}", namespace)
    machine = vm("v", namespace=namespace, os=None, run_strategy="Halted", preference={"name": "win", "kind": kind})
    cluster.api.create(machine)
    wait_for("the policy is satisfied", lambda: counts(cluster, name).get("compliant") == 1)
    assert models(cluster, "v", namespace) == [None]


def applied(cluster, namespace, how):
    """Apply a stopped VM, as GitOps tools do."""
    machine = vm("v", nic(model="e1000e"), namespace=namespace, run_strategy="Halted")
    if how == "server-side":
        cluster.api.apply(machine)
    else:
        subprocess.run(
            [str(cluster.programs.kubectl), f"--kubeconfig={cluster.plane.kubeconfig}", "apply", "-f", "-"],
            input=yaml.safe_dump(machine), text=True, check=True, capture_output=True,
        )  # fmt: skip


@pytest.mark.parametrize("how", ["server-side", "client-side"])
def test_vm_that_git_owns_is_left_to_git(cluster, policy, namespace, how):
    applied(cluster, namespace, how)
    name = policy(f"p-{namespace}", namespace)
    wait_for(
        "it is told",
        lambda: (cluster.api.get("VmNicPolicy", name)["status"].get("problems") or [{}])[0].get("reason") == "OwnedByGit",
    )
    assert models(cluster, "v", namespace) == ["e1000e"]
    cluster.api.merge("VmNicPolicy", name, {"spec": {"enforcement": {"gitOwned": "Override"}}})
    wait_for("it is patched", lambda: models(cluster, "v", namespace) == ["virtio"])


def test_git_apply_keeps_the_assigned_datapath(cluster, policy, namespace):
    policy(f"p-{namespace}", namespace)
    applied(cluster, namespace, "server-side")
    generation = cluster.api.get("VirtualMachine", "v", namespace)["metadata"]["generation"]
    for how in ("server-side", "client-side", "server-side"):
        applied(cluster, namespace, how)
        machine = cluster.api.get("VirtualMachine", "v", namespace)
        assert (models(cluster, "v", namespace), machine["metadata"]["generation"]) == (["virtio"], generation)


def insist(cluster, namespace):
    """Write another model than the policy's, as a user who insists on it."""
    path = "/spec/template/spec/domain/devices/interfaces/0/model"
    cluster.api.patch("VirtualMachine", "v", [{"op": "replace", "path": path, "value": "rtl8139"}], namespace)


def test_user_who_reverts_a_vm_twice_wins(cluster, policy, namespace):
    name = f"p-{namespace}"
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    enforcement = {"action": "Patch", "existingVMs": "WhenStopped", "gitOwned": "Override"}
    applied(cluster, namespace, "server-side")
    policy(name, namespace, selector=selector, enforcement=enforcement)
    for _ in range(2):
        wait_for("it is patched", lambda: models(cluster, "v", namespace) == ["virtio"])
        insist(cluster, namespace)
    wait_for(
        "it gives in",
        lambda: (cluster.api.get("VmNicPolicy", name)["status"].get("problems") or [{}])[0].get("reason") == "OwnedByGit",
    )
    assert models(cluster, "v", namespace) == ["rtl8139"]
