"""Kinds that vmnic reads or writes, and their API paths."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from .errors import BadNameError

__all__ = [
    "CLUSTER_INSTANCETYPES",
    "CLUSTER_PREFERENCES",
    "CONFIG_MAPS",
    "CONTROLLER_REVISIONS",
    "DAEMON_SETS",
    "DEFINITIONS",
    "EVENTS",
    "INSTANCETYPES",
    "KUBEVIRTS",
    "LEASES",
    "MACHINE_SUBRESOURCES",
    "MUTATING_WEBHOOKS",
    "NAMESPACES",
    "NETWORKS",
    "NODES",
    "NODE_NIC_STATES",
    "PODS",
    "POLICIES",
    "POOLS",
    "PREFERENCES",
    "RESOURCE_QUOTAS",
    "SECRETS",
    "VIRTUAL_MACHINES",
    "VIRTUAL_MACHINE_INSTANCES",
    "VIRTUAL_MACHINE_POOLS",
    "VM_NIC_STATES",
    "Resource",
]

_LONGEST_NAME = 253
"""Maximum length of a name in Kubernetes, in characters."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object in the API."""

    group: str
    """Empty for the core group."""
    version: str
    plural: str
    kind: str
    namespaced: bool = False

    # Two methods, so that an empty name never becomes the path of a collection, which DELETE would empty.
    def collection_path(self, namespace: str = "") -> str:
        """Return the URL path of the objects in a namespace, or of all objects.

        Raises:
            BadNameError: no namespace can have this name.
        """
        root = f"/apis/{self.group}" if self.group else "/api"
        place = f"/namespaces/{_segment('a namespace', namespace)}" if self.namespaced and namespace else ""
        return f"{root}/{self.version}{place}/{self.plural}"

    def path(self, namespace: str, name: str, subresource: str = "") -> str:
        """Return the URL path of one object.

        Raises:
            BadNameError: no object can have this name, or the namespace that the kind needs is missing.
        """
        if self.namespaced and not namespace:
            raise BadNameError("a namespace", namespace)
        below = f"/{subresource}" if subresource else ""
        return f"{self.collection_path(namespace)}/{_segment('a name', name)}{below}"


def _segment(what: str, name: str) -> str:
    """Quote a name as one segment of a URL path.

    The names `.` and `..` are refused, because they would lead to another path.
    """
    if name in ("", ".", "..") or len(name) > _LONGEST_NAME:
        raise BadNameError(what, name)
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:
        # JSON text may contain half of a surrogate pair, which has no UTF-8 form.
        raise BadNameError(what, name) from None


POOLS = Resource("vmnic.dev", "v1alpha1", "sriovnetworkpools", "SriovNetworkPool")
POLICIES = Resource("vmnic.dev", "v1alpha1", "vmnicpolicies", "VmNicPolicy")
NODE_NIC_STATES = Resource("vmnic.dev", "v1alpha1", "nodenicstates", "NodeNicState")
VM_NIC_STATES = Resource("vmnic.dev", "v1alpha1", "vmnicstates", "VmNicState", namespaced=True)
MACHINE_SUBRESOURCES = Resource("subresources.kubevirt.io", "v1", "virtualmachines", "VirtualMachine", namespaced=True)
"""VMs in KubeVirt's own API server, with the subresources restart and expand-spec."""
KUBEVIRTS = Resource("kubevirt.io", "v1", "kubevirts", "KubeVirt", namespaced=True)
VIRTUAL_MACHINES = Resource("kubevirt.io", "v1", "virtualmachines", "VirtualMachine", namespaced=True)
VIRTUAL_MACHINE_INSTANCES = Resource("kubevirt.io", "v1", "virtualmachineinstances", "VirtualMachineInstance", namespaced=True)
# KubeVirt serves this version beside v1beta1, which it has since 1.7.
VIRTUAL_MACHINE_POOLS = Resource("pool.kubevirt.io", "v1alpha1", "virtualmachinepools", "VirtualMachinePool", namespaced=True)
_INSTANCETYPE = ("instancetype.kubevirt.io", "v1beta1")
INSTANCETYPES = Resource(*_INSTANCETYPE, "virtualmachineinstancetypes", "VirtualMachineInstancetype", namespaced=True)
CLUSTER_INSTANCETYPES = Resource(*_INSTANCETYPE, "virtualmachineclusterinstancetypes", "VirtualMachineClusterInstancetype")
PREFERENCES = Resource(*_INSTANCETYPE, "virtualmachinepreferences", "VirtualMachinePreference", namespaced=True)
CLUSTER_PREFERENCES = Resource(*_INSTANCETYPE, "virtualmachineclusterpreferences", "VirtualMachineClusterPreference")
NETWORKS = Resource("k8s.cni.cncf.io", "v1", "network-attachment-definitions", "NetworkAttachmentDefinition", namespaced=True)
NODES = Resource("", "v1", "nodes", "Node")
PODS = Resource("", "v1", "pods", "Pod", namespaced=True)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace")
RESOURCE_QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota", namespaced=True)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", namespaced=True)
SECRETS = Resource("", "v1", "secrets", "Secret", namespaced=True)
CONTROLLER_REVISIONS = Resource("apps", "v1", "controllerrevisions", "ControllerRevision", namespaced=True)
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet", namespaced=True)
DEFINITIONS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition")
EVENTS = Resource("events.k8s.io", "v1", "events", "Event", namespaced=True)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", namespaced=True)
MUTATING_WEBHOOKS = Resource(
    "admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration"
)
