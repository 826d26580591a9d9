"""Facts from KubeVirt's objects: guest OS, models, queues and networks."""

import msgspec
import pytest

from tests.builders.decide import decision
from tests.builders.vm import kubevirt, nic, policy, vm, vmi
from vmnic.kubevirt.gather import MachineInput, gather_vm_facts
from vmnic.kubevirt.networks import read_network
from vmnic.kubevirt.vm import Instancetype, Preference, VirtualMachine, decode_machine
from vmnic.kubevirt.vmi import VirtualMachineInstance


def preference(*, model=None, multiqueue=None, os_type=None, annotation=None, autoattach=None):
    devices = {
        "preferredInterfaceModel": model,
        "preferredNetworkInterfaceMultiQueue": multiqueue,
        "preferredAutoattachPodInterface": autoattach,
    }
    labels = {"instancetype.kubevirt.io/os-type": os_type} if os_type else {}
    annotations = {"vm.kubevirt.io/os": annotation} if annotation else {}
    raw = {"metadata": {"name": "p", "labels": labels}, "spec": {"devices": devices, "annotations": annotations}}
    return msgspec.convert(raw, Preference)


def gather(machine, instance=None, **changes):
    converted = msgspec.convert(machine, VirtualMachine)
    live = msgspec.convert(instance, VirtualMachineInstance) if instance else None
    return gather_vm_facts(MachineInput(machine=converted, instance=live, **changes))


def present(machine, **changes):
    one = gather(machine, **changes).nics[0].present
    return (one.datapath.value, one.model, one.queues)


@pytest.mark.parametrize(
    ("machine", "instance", "changes", "guest"),
    [
        (vm(os="windows"), vmi(guest="fedora"), {}, "linux"),
        (vm(os="linux"), vmi(guest="mswindows"), {}, "windows"),
        (vm(os="linux"), None, {"preference": preference(os_type="windows")}, "windows"),
        (vm(os=None), None, {"preference": preference(annotation="windows.2k22")}, "windows"),
        (vm(os="windows2k22"), None, {}, "windows"),
        (vm(os="rhel9"), None, {}, "linux"),
        (vm(os=None, labels={"os.template.kubevirt.io/win2k19": "true"}), None, {}, "windows"),
        (vm(os=None, labels={"os.template.kubevirt.io/win2k19": "false"}), None, {}, "unknown"),
        (vm(os=None, labels={"kubevirt.io/os": "ubuntu"}), None, {}, "linux"),
        (vm(os=None), None, {}, "unknown"),
        (vm(os="temple"), None, {}, "unknown"),
    ],
    ids=[
        "the guest agent before the annotation", "the agent says Windows", "the preference before the annotation",
        "the preference's annotation", "the template's annotation", "a Linux by name", "a template label", "a label that is false",
        "the old label", "nothing", "a name that nobody knows",
    ],
)  # fmt: skip
def test_the_guest_os_comes_from_the_most_reliable_source(machine, instance, changes, guest):
    assert gather(machine, instance, **changes).guest_os.value == guest


def test_hyperv_features_indicate_windows():
    machine = vm(os=None)
    machine["spec"]["template"]["spec"]["domain"]["features"] = {"hyperv": {"relaxed": {}}}
    assert gather(machine).guest_os.value == "windows"


@pytest.mark.parametrize(
    ("machine", "changes", "expected"),
    [
        (vm("v", nic(model="e1000")), {}, ("emulated", "e1000", 1)),
        (vm(), {}, ("vhost", "virtio", 1)),
        (vm(), {"preference": preference(model="e1000e")}, ("emulated", "e1000e", 1)),
        (vm("v", nic(model="virtio")), {"preference": preference(model="e1000e")}, ("vhost", "virtio", 1)),
        (vm("v", nic(binding="sriov", network="x", model="e1000")), {}, ("sriov", None, 1)),
        (vm("v", nic(binding="binding", network="x")), {}, ("other", "virtio", 1)),
        (vm("v", nic(binding="passtBinding")), {}, ("other", "virtio", 1)),
        (vm(), {"preference": preference(multiqueue=True)}, ("vhost", "virtio", 2)),
    ],
    ids=[
        "an explicit model", "no model is virtio", "no model is the preference's", "an explicit model wins", "a VF has no model",
        "a plugin's NIC", "a passt NIC", "queues of the preference",
    ],
)  # fmt: skip
def test_the_present_state_of_a_nic_is_read(machine, changes, expected):
    assert present(machine, **changes) == expected


def multiqueue(wanted, cores=4):
    machine = vm()
    domain = machine["spec"]["template"]["spec"]["domain"]
    domain["devices"]["networkInterfaceMultiqueue"] = wanted
    domain["cpu"] = {"sockets": 2, "cores": cores, "threads": 2}
    return machine


def test_queues_equal_vcpus_up_to_the_tap_limit():
    assert present(multiqueue(True))[2] == 16
    assert present(multiqueue(True, cores=100))[2] == 256
    assert present(multiqueue(False), preference=preference(multiqueue=True))[2] == 1


def test_an_instancetype_determines_the_vcpus():
    kind = msgspec.convert({"metadata": {"name": "u1"}, "spec": {"cpu": {"guest": 6}}}, Instancetype)
    assert present(multiqueue(True), instancetype=kind)[2] == 6


def test_a_vm_without_nics_has_kubevirts_default_nic():
    machine = vm()
    spec = machine["spec"]["template"]["spec"]
    spec["networks"], spec["domain"]["devices"] = [], {}
    assert [(one.name, one.index) for one in gather(machine).nics] == [("default", None)]
    spec["domain"]["devices"] = {"autoattachPodInterface": False}
    assert gather(machine).nics == ()


def test_a_preference_can_disable_the_default_nic():
    machine = vm()
    spec = machine["spec"]["template"]["spec"]
    spec["networks"], spec["domain"]["devices"] = [], {}
    assert gather(machine, preference=preference(autoattach=False)).nics == ()
    spec["domain"]["devices"] = {"autoattachPodInterface": True}
    assert [one.name for one in gather(machine, preference=preference(autoattach=False)).nics] == ["default"]


def test_a_network_without_a_namespace_is_in_the_vms_namespace():
    raw = {
        "metadata": {"name": "fast", "namespace": "nets", "annotations": {"k8s.v1.cni.cncf.io/resourceName": "vmnic.dev/fast"}}
    }
    known = {("nets", "fast"): read_network(raw)}
    machine = vm("v", nic("a", binding="bridge", network="nets/fast"), nic("b", binding="bridge", network="fast"))
    nics = gather(machine, find_network=lambda namespace, name: known.get((namespace, name))).nics
    assert [(one.network.namespace, one.network.resource_name) for one in nics] == [("nets", "vmnic.dev/fast"), ("tenants", "")]


def test_the_running_nics_mac_and_model_are_read():
    one = gather(vm(), vmi("web", macs={"default": "02:00:00:00:00:01"}, models={"default": "e1000e"})).nics[0]
    assert (one.live_mac, one.live.model) == ("02:00:00:00:00:01", "e1000e")


@pytest.mark.parametrize(
    ("phase", "running"), [("Running", True), ("Scheduling", True), ("Succeeded", False), ("Failed", False)]
)
def test_a_vmi_that_has_ended_does_not_run(phase, running):
    assert gather(vm(), vmi("web", phase=phase)).running is running


def test_a_missing_object_that_a_vm_refers_to_is_a_problem():
    machine = vm(preference={"name": "gone"}, instancetype={"name": "lost"})
    assert [(one.reason, one.message.split()[1]) for one in gather(machine).problems] == [
        ("PreferenceUnknown", "gone"),
        ("PreferenceUnknown", "lost"),
    ]


def test_the_error_of_a_malformed_vm_has_the_path_of_the_field():
    machine = vm()
    machine["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"] = "none"
    with pytest.raises(msgspec.ValidationError, match=r"\$.spec.template.spec.domain.devices.interfaces"):
        decode_machine(msgspec.json.encode(machine))


def test_memory_is_the_instancetypes_else_the_vms_else_requested():
    machine = vm()
    domain = machine["spec"]["template"]["spec"]["domain"]
    kind = msgspec.convert(
        {"metadata": {"name": "u1"}, "spec": {"cpu": {"guest": 1}, "memory": {"guest": "4Gi"}}}, Instancetype
    )
    seen = [gather(machine, instancetype=kind).memory_bytes, gather(machine).memory_bytes]
    domain["memory"], domain["resources"] = {}, {"requests": {"memory": "2Gi"}}
    seen.append(gather(machine).memory_bytes)
    domain["resources"] = {}
    assert [*seen, gather(machine).memory_bytes] == [4 << 30, 1 << 30, 2 << 30, None]


def managed(manager, operation, *, fields=True, last_applied=False):
    machine = vm()
    owned = (
        {"f:spec": {"f:template": {"f:spec": {"f:domain": {"f:devices": {"f:interfaces": {}}}}}}}
        if fields
        else {"f:metadata": {}}
    )
    machine["metadata"]["managedFields"] = [
        {"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": owned}
    ]
    if last_applied:
        machine["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
    return decode_machine(msgspec.json.encode(machine)).applier


@pytest.mark.parametrize(
    ("applier", "found"),
    [
        (managed("argocd-controller", "Apply"), "argocd-controller"),
        (managed("kubectl-client-side-apply", "Update", last_applied=True), "kubectl-client-side-apply"),
        (managed("kubectl-edit", "Update"), ""),
        (managed("argocd-controller", "Apply", fields=False), ""),
        (managed("vmnic-controller", "Update", last_applied=True), ""),
    ],
    ids=["server-side apply", "client-side apply", "an edit", "an applier of other fields", "ourselves"],
)
def test_the_applier_of_the_nic_list_is_read_from_managed_fields(applier, found):
    assert applier == found


def sized(cpu=None, memory=None, **resources):
    """Return a VM that asks for multiqueue, with the given size."""
    machine = vm()
    domain = machine["spec"]["template"]["spec"]["domain"]
    domain["devices"]["networkInterfaceMultiqueue"] = True
    domain |= {"cpu": cpu, "memory": memory, "resources": resources}
    return machine


@pytest.mark.parametrize(
    ("machine", "vcpus"),
    [
        (sized(requests={"cpu": "4"}), 4),
        (sized(requests={"cpu": "250m"}, limits={"cpu": "16"}), 16),
        (sized(cpu={"model": "host-passthrough"}, limits={"cpu": 8}), 8),
        (sized(requests={"cpu": "1500m"}), 2),
        (sized(requests={"cpu": "0.1"}), 1),
        (sized(cpu={"threads": 2}, limits={"cpu": "8"}), 2),
        (sized(limits={"cpu": "0"}, requests={"cpu": "4"}), 1),
        (sized(limits={"memory": "1Gi"}, requests={"cpu": "4"}), 4),
        (sized(limits={"cpu": "9E"}), 65535),
        (sized(limits=None, requests=None), 1),
        (sized(), 1),
    ],
    ids=[
        "the request", "the limit before the request", "a model is no topology", "rounded up", "at least one",
        "a topology before resources", "a limit of zero counts", "a limit of memory only", "bounded", "null is nothing", "nothing",
    ],
)  # fmt: skip
def test_vcpus_come_from_resources_without_a_topology(machine, vcpus):
    found = gather(machine)
    assert (found.vcpus, found.nics[0].present.queues) == (vcpus, min(vcpus, 256))


def test_a_cpu_quantity_that_is_none_is_unknown_where_it_counts():
    assert gather(sized(limits={"cpu": "many"})).unknown == "spec.template.spec.domain.resources.limits.cpu is not a quantity"
    assert (
        gather(sized(requests={"cpu": "many"})).unknown == "spec.template.spec.domain.resources.requests.cpu is not a quantity"
    )
    assert gather(sized(limits={"cpu": "2"}, requests={"cpu": "many"})).unknown == ""
    assert gather(sized(cpu={"cores": 2}, limits={"cpu": "many"})).unknown == ""


@pytest.mark.parametrize(
    ("machine", "mebibytes"),
    [
        (sized(memory={"guest": "1Gi"}, requests={"memory": "2Gi"}), 1024),
        (sized(requests={"memory": "2Gi"}, limits={"memory": "4Gi"}), 2048),
        (sized(limits={"memory": "512Mi"}), 512),
        (sized(requests={"memory": "0"}, limits={"memory": "512Mi"}), 512),
        (sized(memory={"hugepages": {"pageSize": "2Mi"}}, limits={"memory": "512Mi"}), 512),
        (sized(memory={"hugepages": {"pageSize": "2Mi"}}), 2),
        (sized(memory={"guest": "much"}, requests={"memory": "2Gi"}), None),
        (sized(requests={"memory": "much"}, limits={"memory": "2Gi"}), None),
        (sized(), None),
    ],
    ids=[
        "its own", "the request before the limit", "the limit", "a request of zero is skipped", "the limit before a huge page",
        "a huge page", "its own cannot be read", "the request cannot be read", "nothing",
    ],
)  # fmt: skip
def test_memory_comes_from_the_spec_else_from_resources(machine, mebibytes):
    assert gather(machine).memory_bytes == (mebibytes and mebibytes << 20)


def queues_with(cpu_request, *, cpu=None, **resources):
    machine = vm()
    domain = machine["spec"]["template"]["spec"]["domain"]
    domain |= {"cpu": cpu or {}, "resources": resources}
    return decision(machine, policy(networkPressure="High"), kubevirt(cpuRequest=cpu_request)).vm.vcpus


@pytest.mark.parametrize(
    ("vcpus", "found"),
    [
        (queues_with("3"), 3),
        (queues_with("2500m"), 3),
        (queues_with(4), 4),
        (queues_with("100m"), 1),
        (queues_with("3", requests={"cpu": "2"}), 2),
        (queues_with("3", limits={"cpu": "2"}), 2),
        (queues_with("3", cpu={"cores": 2}), 2),
        (queues_with("3", cpu={"dedicatedCpuPlacement": True}), 1),
        (queues_with("3", cpu={"dedicatedCpuPlacement": True}, requests={"cpu": "2"}), 2),
    ],
    ids=["whole", "rounded up", "a number", "the default", "request", "limit", "topology", "dedicated", "dedicated with one"],
)
def test_a_vm_without_cpu_fields_gets_the_clusters_request(vcpus, found):
    assert vcpus == found
