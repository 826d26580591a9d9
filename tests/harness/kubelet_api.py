"""Messages of the kubelet, described independently of the agent, so that a wrong field number is detected.

`tests/cluster/test_kubelet_api.py` compares both with the kubelet's published protocol files.
"""

import functools

from vmnic.agent.kubelet.messages import make_classes

_PLUGIN = """
Empty:
DevicePluginOptions: pre_start_required=1 bool, get_preferred_allocation_available=2 bool
RegisterRequest: version=1 string, endpoint=2 string, resource_name=3 string, options=4 DevicePluginOptions
NUMANode: ID=1 int64
TopologyInfo: nodes=1 repeated NUMANode
Device: ID=1 string, health=2 string, topology=3 TopologyInfo
ListAndWatchResponse: devices=1 repeated Device
PreStartContainerRequest: devices_ids=1 repeated string
PreStartContainerResponse:
ContainerPreferredAllocationRequest: available_deviceIDs=1 repeated string, must_include_deviceIDs=2 repeated string, allocation_size=3 int32
PreferredAllocationRequest: container_requests=1 repeated ContainerPreferredAllocationRequest
ContainerPreferredAllocationResponse: deviceIDs=1 repeated string
PreferredAllocationResponse: container_responses=1 repeated ContainerPreferredAllocationResponse
ContainerAllocateRequest: devices_ids=1 repeated string
AllocateRequest: container_requests=1 repeated ContainerAllocateRequest
Mount: container_path=1 string, host_path=2 string, read_only=3 bool
DeviceSpec: container_path=1 string, host_path=2 string, permissions=3 string
ContainerAllocateResponse: envs=1 map, mounts=2 repeated Mount, devices=3 repeated DeviceSpec, annotations=4 map
AllocateResponse: container_responses=1 repeated ContainerAllocateResponse
"""
_PODS = """
ListPodResourcesRequest:
ContainerDevices: resource_name=1 string, device_ids=2 repeated string
ClaimResource: driver_name=2 string, pool_name=3 string, device_name=4 string
DynamicResource: claim_name=2 string, claim_namespace=3 string, claim_resources=4 repeated ClaimResource
ContainerResources: name=1 string, devices=2 repeated ContainerDevices, cpu_ids=3 repeated int64, dynamic_resources=5 repeated DynamicResource
PodResources: name=1 string, namespace=2 string, containers=3 repeated ContainerResources
ListPodResourcesResponse: pod_resources=1 repeated PodResources
GetPodResourcesRequest: pod_name=1 string, pod_namespace=2 string
GetPodResourcesResponse: pod_resources=1 PodResources
"""


@functools.cache
def plugin_api():
    """Return the message classes of deviceplugin/v1beta1."""
    return make_classes("v1beta1", _parse(_PLUGIN))


@functools.cache
def pods_api():
    """Return the message classes of podresources/v1."""
    return make_classes("v1", _parse(_PODS))


def _parse(text):
    messages = {}
    for line in text.strip().splitlines():
        name, _, fields = line.partition(":")
        messages[name] = tuple(_field(field.strip()) for field in fields.split(",") if field.strip())
    return messages


def _field(text):
    name, _, rest = text.partition("=")
    number, _, kind = rest.partition(" ")
    return int(number), name, kind
