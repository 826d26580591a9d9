"""The kubelet's device plugin API v1beta1, with its messages, methods and constants."""

from __future__ import annotations

import functools
from typing import Any

from .messages import Fields, make_classes

__all__ = ["HEALTHY", "KUBELET_SOCKET", "REGISTER", "UNHEALTHY", "VERSION", "method", "plugin_classes"]

VERSION = "v1beta1"
HEALTHY = "Healthy"
UNHEALTHY = "Unhealthy"
KUBELET_SOCKET = "kubelet.sock"
"""Name of the kubelet's own socket in the directory of device plugins."""
REGISTER = f"/{VERSION}.Registration/Register"

_MESSAGES: dict[str, Fields] = {
    "Empty": (),
    "DevicePluginOptions": ((1, "pre_start_required", "bool"), (2, "get_preferred_allocation_available", "bool")),
    "RegisterRequest": (
        (1, "version", "string"),
        (2, "endpoint", "string"),
        (3, "resource_name", "string"),
        (4, "options", "DevicePluginOptions"),
    ),
    "NUMANode": ((1, "ID", "int64"),),
    "TopologyInfo": ((1, "nodes", "repeated NUMANode"),),
    "Device": ((1, "ID", "string"), (2, "health", "string"), (3, "topology", "TopologyInfo")),
    "ListAndWatchResponse": ((1, "devices", "repeated Device"),),
    "ContainerAllocateRequest": ((1, "devices_ids", "repeated string"),),
    "AllocateRequest": ((1, "container_requests", "repeated ContainerAllocateRequest"),),
    "DeviceSpec": ((1, "container_path", "string"), (2, "host_path", "string"), (3, "permissions", "string")),
    # Mounts (2), annotations (4) and CDI devices (5) are left out, because vmnic sets none.
    "ContainerAllocateResponse": ((1, "envs", "map"), (3, "devices", "repeated DeviceSpec")),
    "AllocateResponse": ((1, "container_responses", "repeated ContainerAllocateResponse"),),
    "ContainerPreferredAllocationRequest": (
        (1, "available_deviceIDs", "repeated string"),
        (2, "must_include_deviceIDs", "repeated string"),
        (3, "allocation_size", "int32"),
    ),
    "PreferredAllocationRequest": ((1, "container_requests", "repeated ContainerPreferredAllocationRequest"),),
    "ContainerPreferredAllocationResponse": ((1, "deviceIDs", "repeated string"),),
    "PreferredAllocationResponse": ((1, "container_responses", "repeated ContainerPreferredAllocationResponse"),),
    "PreStartContainerRequest": ((1, "devices_ids", "repeated string"),),
    "PreStartContainerResponse": (),
}


@functools.cache
def plugin_classes() -> dict[str, type[Any]]:
    """Build the message classes of the API."""
    return make_classes(VERSION, _MESSAGES)


def method(name: str) -> str:
    """Return the path of a method that a plugin serves."""
    return f"/{VERSION}.DevicePlugin/{name}"
