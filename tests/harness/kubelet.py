"""A double of the kubelet's device manager and pod-resources socket, with the rules of kubelet 1.36.

It dials back while a plugin registers. When a watch ends, it disconnects the plugin that then has that resource, whichever it
is. Its start removes every socket. It allocates only healthy devices, asks for a preference first, and calls PreStartContainer
before every container start. Allocations outlive a restart, as with the kubelet's checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import time
from dataclasses import dataclass, field
from typing import Any

from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.server import Server

from .kubelet_api import plugin_api, pods_api

_DIAL_S = 10.0
_PRE_START_S = 30.0
_CALLS_PER_S, _BURST = 100, 10


class AdmissionError(Exception):
    """The pod has permanently failed (UnexpectedAdmissionError)."""


class ContainerStartError(Exception):
    """The container does not start now (CreateContainerConfigError).

    The start is retried.
    """


@dataclass
class Plugin:
    """A registered plugin."""

    resource: str
    channel: Channel
    options: Any
    devices: dict[str, Any] = field(default_factory=dict)
    connected: bool = True


@dataclass
class Allocation:
    """Devices of one resource that a pod's container has."""

    resource: str
    devices: tuple[str, ...]
    answer: Any = None
    """Response of Allocate."""


@dataclass
class Pod:
    """A pod that was admitted."""

    name: str
    namespace: str
    allocations: list[Allocation] = field(default_factory=list)
    claims: tuple[str, ...] = ()
    """Devices of dynamic resource allocation."""

    @property
    def devices(self) -> tuple[str, ...]:
        """Return the ids of all its devices."""
        return tuple(device for one in self.allocations for device in one.devices)


class Kubelet:
    """One node's kubelet.

    Args:
        directory: Directory of device plugins.
        pod_resources: Socket of the pod-resources API. None means `pods.sock` in the same directory.
    """

    def __init__(self, directory: pathlib.Path, pod_resources: pathlib.Path | None = None) -> None:
        self.directory = directory
        self.socket = directory / "kubelet.sock"
        self.pod_resources = pod_resources or directory.parent / "pods.sock"
        self.plugins: dict[str, Plugin] = {}
        self.pods: dict[tuple[str, str], Pod] = {}
        self.calls: list[str] = []
        self.limited = False
        """Whether calls of pod-resources are rate-limited, as the kubelet's are."""
        self._tokens, self._refilled = float(_BURST), time.monotonic()
        self._watches: set[asyncio.Task[None]] = set()
        self._servers: list[Server] = []

    async def start(self) -> None:
        """Start as a kubelet does, which removes every existing socket."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for left in self.directory.iterdir():
            if left.is_socket():
                left.unlink()
        self.pod_resources.unlink(missing_ok=True)
        for handlers, path in ((self._registration(), self.socket), (self._lister(), self.pod_resources)):
            server = Server([_Handlers(handlers)])
            await server.start(path=str(path))
            self._servers.append(server)

    async def stop(self) -> None:
        """End as a killed kubelet does, whose connections break."""
        for watch in self._watches:
            watch.cancel()
        for plugin in self.plugins.values():
            plugin.channel.close()
        if self._watches:
            await asyncio.wait(self._watches)
        for server in self._servers:
            server.close()
        self.plugins.clear()
        self._servers.clear()
        self.socket.unlink(missing_ok=True)

    def healthy(self, resource: str) -> set[str]:
        """Return ids that can be allocated or are allocated.

        The set is empty without a plugin.
        """
        plugin = self.plugins.get(resource)
        if plugin is None or not plugin.connected:
            return set()
        return {id_ for id_, device in plugin.devices.items() if device.health == "Healthy"}

    def listed(self, resource: str) -> set[str]:
        """Return all ids."""
        plugin = self.plugins.get(resource)
        return set(plugin.devices) if plugin is not None else set()

    def resources(self) -> dict[str, tuple[int, int]]:
        """Return capacity and allocatable by resource, as in the node's status."""
        return {name: (len(self.listed(name)), len(self.healthy(name))) for name in sorted(self.plugins)}

    async def admit(self, name: str, resource: str, count: int = 1, *, namespace: str = "tenants") -> Pod:
        """Allocate devices to a pod that the scheduler has bound to this node.

        Several resources are allocated one after another.
        """
        plugin = self.plugins.get(resource)
        taken = {device for pod in self.pods.values() for device in pod.devices}
        free = sorted(self.healthy(resource) - taken)
        if plugin is None or len(free) < count:
            raise AdmissionError(f"requested {count} of {resource}, available {len(free)}")
        chosen = await self._prefer(plugin, free, count)
        api = plugin_api()
        request = api["AllocateRequest"](container_requests=[api["ContainerAllocateRequest"](devices_ids=chosen)])
        try:
            answer = await self._call(plugin, "Allocate", request, "AllocateResponse")
        except (GRPCError, OSError, StreamTerminatedError) as error:
            raise AdmissionError(str(error)) from error
        pod = self.pods.setdefault((namespace, name), Pod(name, namespace))
        pod.allocations.append(Allocation(resource, tuple(chosen), answer.container_responses[0]))
        return pod

    async def start_container(self, pod: Pod) -> None:
        """Start or restart the container of a pod."""
        for allocation in pod.allocations:
            await self._pre_start(allocation)

    async def _pre_start(self, allocation: Allocation) -> None:
        plugin = self.plugins.get(allocation.resource)
        if plugin is None or not plugin.connected:
            raise ContainerStartError(f"endpoint of {allocation.resource} is not there")
        if not plugin.options.pre_start_required:
            return
        request = plugin_api()["PreStartContainerRequest"](devices_ids=list(allocation.devices))
        try:
            async with asyncio.timeout(_PRE_START_S):
                await self._call(plugin, "PreStartContainer", request, "PreStartContainerResponse")
        except (GRPCError, OSError, StreamTerminatedError, TimeoutError) as error:
            raise ContainerStartError(str(error)) from error

    def end(self, pod: Pod) -> None:
        """Remove a pod that has ended."""
        self.pods.pop((pod.namespace, pod.name), None)

    async def _prefer(self, plugin: Plugin, free: list[str], count: int) -> list[str]:
        if not plugin.options.get_preferred_allocation_available:
            return free[:count]
        api = plugin_api()
        one = api["ContainerPreferredAllocationRequest"](available_deviceIDs=free, allocation_size=count)
        request = api["PreferredAllocationRequest"](container_requests=[one])
        answer = await self._call(plugin, "GetPreferredAllocation", request, "PreferredAllocationResponse")
        preferred = [id_ for id_ in answer.container_responses[0].deviceIDs if id_ in free]
        return (preferred + [id_ for id_ in free if id_ not in preferred])[:count]

    async def _call(self, plugin: Plugin, name: str, request: Any, response: str) -> Any:
        self.calls.append(name)
        method = f"/v1beta1.DevicePlugin/{name}"
        call: UnaryUnaryMethod[Any, Any] = UnaryUnaryMethod(plugin.channel, method, type(request), plugin_api()[response])
        return await call(request)

    def _registration(self) -> dict[str, Handler]:
        api = plugin_api()

        async def register(stream: Any) -> None:
            request = await stream.recv_message()
            assert request.version == "v1beta1"
            self.calls.append(f"Register {request.resource_name}")
            channel = Channel(path=str(self.directory / request.endpoint))
            try:
                async with asyncio.timeout(_DIAL_S):
                    await channel.__connect__()
            except (OSError, TimeoutError) as error:
                channel.close()
                raise GRPCError(Status.UNKNOWN, f"failed to dial device plugin: {error}") from error
            plugin = Plugin(request.resource_name, channel, request.options)
            self.plugins[plugin.resource] = plugin
            watch = asyncio.create_task(self._watch(plugin))
            self._watches.add(watch)
            watch.add_done_callback(self._watches.discard)
            await stream.send_message(api["Empty"]())

        return {
            "/v1beta1.Registration/Register": Handler(register, Cardinality.UNARY_UNARY, api["RegisterRequest"], api["Empty"])
        }

    async def _watch(self, plugin: Plugin) -> None:
        api = plugin_api()
        method: UnaryStreamMethod[Any, Any] = UnaryStreamMethod(
            plugin.channel, "/v1beta1.DevicePlugin/ListAndWatch", api["Empty"], api["ListAndWatchResponse"]
        )
        with contextlib.suppress(GRPCError, OSError, StreamTerminatedError):
            async with method.open() as stream:
                await stream.send_message(api["Empty"](), end=True)
                async for response in stream:
                    plugin.devices = {device.ID: device for device in response.devices}
        plugin.channel.close()
        # The kubelet finds the plugin by the resource's name here, and so disconnects one that has registered since.
        present = self.plugins.get(plugin.resource)
        if present is not None:
            present.connected = False
            present.channel.close()

    def _lister(self) -> dict[str, Handler]:
        api = pods_api()

        async def list_pods(stream: Any) -> None:
            await stream.recv_message()
            self._limit()
            await stream.send_message(
                api["ListPodResourcesResponse"](pod_resources=[_render(pod) for pod in self.pods.values()])
            )

        async def get(stream: Any) -> None:
            request = await stream.recv_message()
            self._limit()
            pod = self.pods.get((request.pod_namespace, request.pod_name))
            if pod is None:
                raise GRPCError(Status.UNKNOWN, f"pod {request.pod_name} in namespace {request.pod_namespace} not found")
            await stream.send_message(api["GetPodResourcesResponse"](pod_resources=_render(pod)))

        kinds = {"List": (list_pods, "ListPodResources"), "Get": (get, "GetPodResources")}
        return {
            f"/v1.PodResourcesLister/{name}": Handler(
                function, Cardinality.UNARY_UNARY, api[f"{kind}Request"], api[f"{kind}Response"]
            )
            for name, (function, kind) in kinds.items()
        }

    def _limit(self) -> None:
        """Refuse calls above a short burst, as the kubelet does."""
        now = time.monotonic()
        self._tokens = min(_BURST, self._tokens + (now - self._refilled) * _CALLS_PER_S)
        self._refilled = now
        if self.limited and self._tokens < 1:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, "rejected by rate limit")
        self._tokens -= 1


class _Handlers:
    def __init__(self, methods: dict[str, Handler]) -> None:
        self._methods = methods

    def __mapping__(self) -> dict[str, Handler]:
        return self._methods


def _render(pod: Pod) -> Any:
    """Return the pod's message, with an entry of its own for each device."""
    api = pods_api()
    made = api["PodResources"](name=pod.name, namespace=pod.namespace)
    container = made.containers.add(name="compute")
    for allocation in pod.allocations:
        for device in allocation.devices:
            container.devices.add(resource_name=allocation.resource, device_ids=[device])
    for claimed in pod.claims:
        claim = container.dynamic_resources.add(claim_name="nic", claim_namespace=pod.namespace)
        claim.claim_resources.add(driver_name="sriovnetwork.k8snetworkplumbingwg.io", pool_name="n1", device_name=claimed)
    return made
