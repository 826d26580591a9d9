"""Checks of what the platform provides.

The guest's architecture, KubeVirt's feature gates and lists, memory, quotas, kernel modules and pools.
"""

from __future__ import annotations

from ..facts import INJECTION_GATE, ClusterFacts, Datapath, Platform, VmFacts
from ..reasons import Reason
from ..sentences import join_sentences
from .check_input import CheckInput, Finding

__all__ = [
    "binding_missing",
    "feature_gate_off",
    "host_device_not_permitted",
    "host_device_provider_conflict",
    "instancetype_owns_field",
    "memory_overcommit",
    "net_resource_injector_missing",
    "no_vhost_net",
    "not_on_architecture",
    "plugin_not_registered",
    "pool_not_ready",
    "quota_exceeded",
]

_VFIO_BYTES = 2**30
"""Memory that KubeVirt adds to the pod of a VM with any device on vfio-pci."""
_NEEDS_BINDING = (1, 9)
"""From this version on, KubeVirt refuses an interface without a binding."""


def not_on_architecture(question: CheckInput) -> Finding | None:
    """Exclude emulated models beyond x86.

    KubeVirt's QEMU has only virtio there (KubeVirt #8916), and distributions of Linux build theirs without e1000e and rtl8139.
    """
    architecture = question.vm.architecture
    # A domain's present model is one that its QEMU has.
    if not architecture.is_other or (question.is_current and question.vm.platform is Platform.LIBVIRT):
        return None
    model = question.nic.present.model if question.is_current else question.rule.emulated_model
    where = f"architecture {architecture.name} ({architecture.source})"
    text = f"model {model} does not exist on {where}, so the VM would not start: name vhost in spec.datapaths"
    return Finding(Reason.NOT_ON_ARCHITECTURE, text)


def plugin_not_registered(question: CheckInput) -> Finding | None:
    """Exclude macvtap if its network binding plugin is not registered.

    KubeVirt accepts a VM with an unknown plugin and then fails to start it.
    """
    kubevirt = question.cluster.kubevirt
    # Without the KubeVirt resource, as among files, nothing is known to be missing.
    if "macvtap" in kubevirt.plugins or not kubevirt.is_given:
        return None
    where = "spec.configuration.network.binding of the KubeVirt resource"
    text = f"KubeVirt has no network binding plugin macvtap: register it in {where}"
    return Finding(Reason.PLUGIN_NOT_REGISTERED, text)


def feature_gate_off(question: CheckInput) -> Finding | None:
    """Exclude host devices if the feature gate HostDevices is off.

    The gate is off by default in 1.8 and in 1.9.
    """
    kubevirt = question.cluster.kubevirt
    if "HostDevices" in kubevirt.gates or not kubevirt.is_given:
        return None
    return Finding(Reason.FEATURE_GATE_OFF, "KubeVirt's feature gate HostDevices is off: add it to featureGates")


def host_device_not_permitted(question: CheckInput) -> Finding | None:
    """Exclude a host device that KubeVirt does not permit.

    KubeVirt accepts such a VM and then fails to create its pod.
    """
    kubevirt = question.cluster.kubevirt
    if question.resource in kubevirt.permitted or not kubevirt.is_given:
        return None
    text = f"{question.resource} is not in KubeVirt's permittedHostDevices.pciHostDevices: add it with externalResourceProvider"
    return Finding(Reason.HOST_DEVICE_NOT_PERMITTED, text)


def host_device_provider_conflict(question: CheckInput) -> Finding | None:
    """Exclude a resource that KubeVirt's own device plugin would serve too.

    Two device plugins must not serve one resource.
    """
    if question.cluster.kubevirt.permitted.get(question.resource) is not False:
        return None
    flag = "externalResourceProvider: true"
    text = f"permittedHostDevices lists {question.resource} without {flag}, so KubeVirt would serve it itself"
    return Finding(Reason.HOST_DEVICE_PROVIDER_CONFLICT, text)


def net_resource_injector_missing(question: CheckInput) -> Finding | None:
    """Exclude VFs if no injector adds their resource to the VM's pod.

    From 1.9 on virt-controller no longer reads the resource that a network asks for, unless the gate is disabled.
    """
    kubevirt = question.cluster.kubevirt
    # None means unknown, for example if only files are given, and excludes nothing.
    if INJECTION_GATE not in kubevirt.gates or kubevirt.injector is not False:
        return None
    missing = "network-resources-injector is not installed: the VM's pod would get no device"
    text = f"KubeVirt's gate {INJECTION_GATE} is on and {missing}"
    return Finding(Reason.NET_RESOURCE_INJECTOR_MISSING, text)


def binding_missing(vm: VmFacts, cluster: ClusterFacts) -> Finding | None:
    """Return why KubeVirt refuses each change of a VM one of whose interfaces has no binding."""
    # Of a version that is not known, only what every version accepts is written.
    version = cluster.kubevirt.highest_version
    if vm.platform is not Platform.KUBEVIRT or (version is not None and version < _NEEDS_BINDING):
        return None
    name = next((nic.name for nic in vm.nics if nic.lacks_binding), None)
    if name is None:
        return None
    unknown = ", and its version is not known" if version is None else ""
    text = f"NIC {name} has no binding: from 1.9 on, KubeVirt refuses each change of such a VM{unknown}"
    remedy = "write the one that its network needs, such as `masquerade: {}` or `bridge: {}`"
    return Finding(Reason.BINDING_MISSING, join_sentences(text, f"Remedy: {remedy}"))


def instancetype_owns_field(question: CheckInput) -> Finding | None:
    """Exclude host devices if the VM's instancetype lists host devices.

    KubeVirt does not allow a VM and its instancetype to list them both.
    """
    if not question.vm.instancetype_host_devices:
        return None
    return Finding(Reason.INSTANCETYPE_OWNS_FIELD, "the VM's instancetype lists hostDevices, so the VM itself must not")


def memory_overcommit(question: CheckInput) -> Finding | None:
    """Exclude devices on vfio-pci if the VM's memory is overcommitted.

    vfio-pci locks all memory of the guest.
    """
    where = question.vm.overcommit or ("KubeVirt's memoryOvercommit" if question.cluster.kubevirt.memory_overcommit else "")
    if not where:
        return None
    text = f"a device on vfio-pci locks all guest memory, but {where} promises the guest more than its pod has"
    return Finding(Reason.MEMORY_OVERCOMMIT, text)


def quota_exceeded(question: CheckInput) -> Finding | None:
    """Exclude a device if the pod would then exceed the namespace's quotas."""
    vm = question.vm
    left = vm.quota.get("memory")
    # KubeVirt adds this memory once for each VM, so a second device costs none.
    if left is not None and not vm.has_vfio and left < _VFIO_BYTES:
        text = f"the namespace's quota leaves {max(left, 0) >> 20} MiB, but a device on vfio-pci adds 1024 MiB to the VM's pod"
        return Finding(Reason.QUOTA_EXCEEDED, text)
    # A quantity in the VM's `resources` is what its pod gets, with this NIC or without it.
    if question.resource not in vm.requests.fixed and vm.quota.get(question.resource, 1) < 1:
        return Finding(Reason.QUOTA_EXCEEDED, f"the namespace's quota leaves no {question.resource}")
    return None


def no_vhost_net(question: CheckInput) -> Finding | None:
    """Exclude vhost and macvtap if no node has vhost_net.

    KubeVirt's pods ask for /dev/vhost-net, so the VM would stay Pending.
    """
    if question.cluster.vhost_net is not False:
        return None
    return Finding(
        Reason.NO_VHOST_NET, "no node has the kernel module vhost_net, so the VM would stay Pending: load the module"
    )


def pool_not_ready(question: CheckInput) -> Finding | None:
    """Exclude a device whose pool is missing, of the other kind, or without a usable function.

    A NIC never loses the device that it has already.
    """
    if question.is_current or not question.resource:
        return None
    named = question.rule.passthrough_pool if question.datapath is Datapath.PASSTHROUGH else question.rule.sriov_pool
    pool = question.cluster.pools.get(named) if named else question.pool
    # Without a name it is another operator's resource, of whose readiness nothing is known.
    if pool is None:
        return Finding(Reason.POOL_NOT_READY, f"there is no pool {named}: `kubectl get snp` lists them") if named else None
    physical = question.datapath is Datapath.PASSTHROUGH
    if pool.physical is not physical:
        kind = "Physical" if physical else "Virtual"
        return Finding(
            Reason.POOL_NOT_READY, f"{question.datapath} needs a pool with function: {kind}, and {pool.name} is not one"
        )
    return Finding(Reason.POOL_NOT_READY, f"pool {pool.name}: {pool.blocker}") if pool.blocker else None
