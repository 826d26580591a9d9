"""Selection of the pods that a drain may evict.

They are those that the API server lists on the node as launchers of VMs with a device of the pool. An agent names holders in
text of its own, which is only compared with the pods that the API server lists and never becomes part of a request.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from ...kube.reflector import ObjectKey
from ...kubevirt.vmi import VirtualMachineInstance

__all__ = ["LauncherPod", "decode_pod", "find_obstacle"]

_MACVTAP = "macvtap.network.kubevirt.io/"


class _Owner(msgspec.Struct, frozen=True, rename="camel"):
    kind: str = ""
    api_version: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class _PodMeta(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    namespace: str = ""
    uid: str = ""
    owner_references: tuple[_Owner, ...] = ()


class _Resources(msgspec.Struct, frozen=True):
    requests: dict[str, Any] = {}


class _Container(msgspec.Struct, frozen=True):
    resources: _Resources = _Resources()


class _PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    node_name: str = ""
    containers: tuple[_Container, ...] = ()
    init_containers: tuple[_Container, ...] = ()


class _PodStatus(msgspec.Struct, frozen=True):
    phase: str = ""


class LauncherPod(msgspec.Struct, frozen=True):
    """The parts of a Pod that decide whether a drain may evict it."""

    metadata: _PodMeta
    spec: _PodSpec = _PodSpec()
    status: _PodStatus = _PodStatus()

    @property
    def requests(self) -> set[str]:
        """Return the names of the resources that its containers request."""
        containers = (*self.spec.containers, *self.spec.init_containers)
        return {name for container in containers for name in container.resources.requests}

    @property
    def ended(self) -> bool:
        """Return whether all its containers have terminated."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def instance(self) -> _Owner | None:
        """Return the VirtualMachineInstance that controls it, or None."""
        return next((owner for owner in self.metadata.owner_references if _is_instance(owner)), None)


decode_pod = msgspec.json.Decoder(LauncherPod).decode


def find_obstacle(
    pod: LauncherPod | None, node: str, resources: Collection[str], instances: Mapping[ObjectKey, VirtualMachineInstance]
) -> str:
    """Return why a pod that an agent names as a holder must not be evicted, or an empty string.

    Args:
        pod: The pod as the API server lists it. None if it is not on the node.
        node: The node that is drained.
        resources: The resources of the functions that change.
        instances: The VirtualMachineInstances that the controller sees.
    """
    if pod is None or pod.spec.node_name != node:
        return f"it is not on node {node}"
    owner = pod.instance
    if owner is None:
        return "no VirtualMachineInstance controls it"
    instance = instances.get(ObjectKey(pod.metadata.namespace, owner.name))
    # The uid differs if the pod is still that of an earlier instance of the same name.
    if instance is None or instance.status.node_name != node or instance.metadata.uid != owner.uid:
        return f"its VirtualMachineInstance is not on node {node}"
    # A macvtap resource has the name of its network configuration, and so tells nothing about the pool.
    if not any(name in resources or name.startswith(_MACVTAP) for name in pod.requests):
        return "it requests no resource of the pool"
    return ""


def _is_instance(owner: _Owner) -> bool:
    group, _, _version = owner.api_version.partition("/")
    return owner.controller is True and owner.kind == "VirtualMachineInstance" and group == "kubevirt.io"
