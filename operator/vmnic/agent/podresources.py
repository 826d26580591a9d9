"""Who holds a device, asked of the kubelet: its pod-resources socket, service v1.PodResourcesLister.

The few messages are described here as data and made at run time, so no generated code is kept. A device id is what a device
plugin chose; vmnic's and sriov-network-device-plugin's are PCI addresses.
"""

from __future__ import annotations

import asyncio
import functools
import pathlib
from typing import Any, Protocol

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import GRPCError, StreamTerminatedError

__all__ = ["Holders", "KubeletHolders", "NoHolders", "message_classes"]

_TIMEOUT_S = 3.0
_MESSAGES: dict[str, tuple[tuple[str, str, bool], ...]] = {
    "ListPodResourcesRequest": (),
    "ContainerDevices": (("resource_name", "string", False), ("device_ids", "string", True)),
    "ContainerResources": (("name", "string", False), ("devices", "ContainerDevices", True)),
    "PodResources": (("name", "string", False), ("namespace", "string", False), ("containers", "ContainerResources", True)),
    "ListPodResourcesResponse": (("pod_resources", "PodResources", True),),
}
"""Message → fields (name, type, repeated), numbered from 1 as in the kubelet's API v1; unknown fields are skipped."""


class Holders(Protocol):
    """Tells who holds devices."""

    async def read(self) -> dict[str, str]:
        """Give holders in words, by device id; nobody where nothing can be learnt."""
        ...


class NoHolders:
    """For nodes without a kubelet."""

    async def read(self) -> dict[str, str]:
        """Name nobody."""
        return {}


class KubeletHolders:
    """Asks the kubelet of this node."""

    def __init__(self, socket: pathlib.Path) -> None:
        self._socket = socket

    async def read(self) -> dict[str, str]:
        """Give the pods that hold devices; names only, the fact that a VF is held comes from the kernel."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                response = await self._list()
        except (OSError, GRPCError, StreamTerminatedError, TimeoutError):
            return {}
        return {
            device: f"pod {pod.namespace}/{pod.name}"
            for pod in response.pod_resources
            for container in pod.containers
            for devices in container.devices
            for device in devices.device_ids
        }

    async def _list(self) -> Any:
        classes = message_classes()
        async with Channel(path=str(self._socket)) as channel:
            method: UnaryUnaryMethod[Any, Any] = UnaryUnaryMethod(
                channel,
                "/v1.PodResourcesLister/List",
                classes["ListPodResourcesRequest"],
                classes["ListPodResourcesResponse"],
            )
            return await method(classes["ListPodResourcesRequest"]())


@functools.cache
def message_classes() -> dict[str, type[Any]]:
    """Make the message classes of the kubelet's API from their description."""
    file = descriptor_pb2.FileDescriptorProto(name="podresources.proto", package="v1", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind, repeated) in enumerate(fields, 1):
            label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED if repeated else None
            made = message.field.add(name=field, number=number, label=label or 1)
            if kind == "string":
                made.type = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
            else:
                made.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
                made.type_name = f".v1.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"v1.{name}")) for name in _MESSAGES}
