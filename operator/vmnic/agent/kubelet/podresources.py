"""Holders of devices, from the kubelet's pod-resources socket (service v1.PodResourcesLister).

A device plugin chooses its device ids. Those of vmnic and sriov-network-device-plugin are PCI addresses, those of KubeVirt are
IOMMU groups. Those of macvtap-cni are returned with the name of their resource before them.
"""

from __future__ import annotations

import asyncio
import functools
import pathlib
import re
from typing import Any, Protocol

from grpclib.client import Channel, UnaryUnaryMethod

from ...nodes.observed import MACVTAP
from .api import KUBELET_SOCKET
from .messages import Fields, make_classes

__all__ = ["Holders", "HoldersUnknownError", "KubeletHolders", "NoHolders", "message_classes"]

_CHECKPOINT = "kubelet_internal_checkpoint"
"""Checkpoint that the kubelet's device manager keeps beside its socket."""
_TIMEOUT_S = 3.0
_TRIES = 3
_PAUSE_S = 0.2
"""Pause before a retry, in seconds. The kubelet refuses calls above a short burst (RESOURCE_EXHAUSTED)."""
_MESSAGES: dict[str, Fields] = {
    "ListPodResourcesRequest": (),
    "ContainerDevices": ((1, "resource_name", "string"), (2, "device_ids", "repeated string")),
    "ClaimResource": ((2, "driver_name", "string"), (4, "device_name", "string")),
    "DynamicResource": ((4, "claim_resources", "repeated ClaimResource"),),
    "ContainerResources": (
        (1, "name", "string"),
        (2, "devices", "repeated ContainerDevices"),
        (5, "dynamic_resources", "repeated DynamicResource"),
    ),
    "PodResources": ((1, "name", "string"), (2, "namespace", "string"), (3, "containers", "repeated ContainerResources")),
    "ListPodResourcesResponse": ((1, "pod_resources", "repeated PodResources"),),
}
"""The messages of the kubelet's API podresources/v1, with only the fields that are read."""
_CLAIMED = re.compile(r"^([0-9a-f]{4})-([0-9a-f]{2})-([0-9a-f]{2})-([0-7])$")
"""Devices of dynamic resource allocation are named by their PCI address with dashes."""


class HoldersUnknownError(Exception):
    """A source of holders does not answer. The message names it."""


class Holders(Protocol):
    """Names the holders of devices."""

    async def read(self) -> dict[str, str]:
        """Return the holders, described by device id.

        Raises:
            HoldersUnknownError: A source of holders does not answer now.
        """
        ...


class NoHolders:
    """Implementation of `Holders` for nodes without a kubelet."""

    async def read(self) -> dict[str, str]:
        """Return no holders."""
        return {}


class KubeletHolders:
    """Names the pods that hold devices, from this node's kubelet.

    A kubelet that starts creates its sockets again, so a missing socket does not prove that no pod holds a device. A node has
    no kubelet only if the directory of device plugins contains none of its files: its other socket, and the checkpoint that it
    writes with the first plugin and keeps afterwards. The directories themselves prove nothing, because mounting them may
    create them.

    Args:
        socket: Socket of its pod-resources API.
        plugins: Its directory of device plugins.
    """

    def __init__(self, socket: pathlib.Path, plugins: pathlib.Path) -> None:
        self._socket = socket
        self._marks = (plugins / KUBELET_SOCKET, plugins / _CHECKPOINT)

    async def read(self) -> dict[str, str]:
        """Return the pods that hold devices, or none without a kubelet (see `Holders`)."""
        if not self._socket.exists() and not any(mark.exists() for mark in self._marks):
            return {}
        for last in (False,) * (_TRIES - 1) + (True,):
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    return _holders(await self._list())
            except Exception as error:
                # The libraries below raise many kinds of errors. After any of them the holders are unknown.
                if last:
                    raise HoldersUnknownError(
                        f"the kubelet does not report at {self._socket} which pods hold devices"
                    ) from error
            await asyncio.sleep(_PAUSE_S)
        return {}

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


def _holders(response: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for pod in response.pod_resources:
        words = f"pod {pod.namespace}/{pod.name}"
        for container in pod.containers:
            for devices in container.devices:
                # The ID of a macvtap does not say what it is on, but the resource may.
                place = f"{devices.resource_name}/" if devices.resource_name.startswith(MACVTAP) else ""
                found |= {f"{place}{device}": words for device in devices.device_ids}
            # A VF may also be held through the DRA driver of another project, which is not among the devices.
            for claim in (claim for resource in container.dynamic_resources for claim in resource.claim_resources):
                match = _CLAIMED.match(claim.device_name)
                if match is not None:
                    domain, bus, device, function = match.groups()
                    found[f"{domain}:{bus}:{device}.{function}"] = words
    return found


@functools.cache
def message_classes() -> dict[str, type[Any]]:
    """Build the message classes of the kubelet's API from their description."""
    return make_classes("v1", _MESSAGES)
