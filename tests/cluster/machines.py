"""Helpers that read VMs and what belongs to them."""

import copy
import json

from tests.builders.vm import nad
from tests.harness.api import wait_for


def machine_of(cluster, namespace, name="v"):
    return cluster.api.get("VirtualMachine", name, namespace)


def instance_of(cluster, namespace, name="v"):
    """Return the VM's instance once it runs."""
    instance = cluster.api.get("VirtualMachineInstance", name, namespace)
    return instance if instance and instance.get("status", {}).get("phase") == "Running" else None


def node_of(cluster, namespace, name="v"):
    return (instance_of(cluster, namespace, name) or {}).get("status", {}).get("nodeName")


def wait_until_it_runs(cluster, namespace, name="v"):
    return wait_for(f"{name} runs", lambda: instance_of(cluster, namespace, name))


def interfaces(machine):
    return machine["spec"]["template"]["spec"]["domain"]["devices"].get("interfaces", [])


def datapaths(cluster, namespace, name="v"):
    """Return the datapaths of the NICs in the VM's own spec."""
    return [
        "sriov" if "sriov" in one else one.get("binding", {}).get("name") or one.get("model")
        for one in interfaces(machine_of(cluster, namespace, name))
    ]


def live_models(cluster, namespace, name="v"):
    instance = instance_of(cluster, namespace, name)
    return [one.get("model") for one in instance["spec"]["domain"]["devices"]["interfaces"]] if instance else None


def launcher_of(cluster, namespace, name="v"):
    """Return the VM's pod."""
    pods = cluster.api.list("Pod", namespace)
    return next((pod for pod in pods if pod["metadata"]["labels"].get("vm.kubevirt.io/name") == name), None)


def requests_of(pod):
    compute = next(one for one in pod["spec"]["containers"] if one["name"] == "compute")
    return compute["resources"]["requests"]


def networks_of(pod):
    """Return the networks that Multus attaches to a pod."""
    return [one["name"] for one in json.loads(pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"])]


def in_namespace(machine, namespace):
    machine = copy.deepcopy(machine)
    machine["metadata"]["namespace"] = namespace
    return machine


def make_networks(cluster, namespace):
    """Create networks of one segment, one for every datapath."""
    for body in (
        nad("br", namespace=namespace, segment="blue"),
        nad("fast", namespace=namespace, cni="sriov", resource="vmnic.dev/fast", segment="blue"),
        nad("tap", namespace=namespace, cni="macvtap", resource="macvtap.network.kubevirt.io/ens1f0", segment="blue"),
    ):
        cluster.api.create(body)


def reasons(cluster, policy):
    problems = cluster.api.get("VmNicPolicy", policy).get("status", {}).get("problems") or []
    return [problem["reason"] for problem in problems]


def state_of(cluster, namespace, name="v"):
    """Return the status of the VM's VmNicState."""
    return (cluster.api.get("VmNicState", name, namespace) or {}).get("status", {})
