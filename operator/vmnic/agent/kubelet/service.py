"""The kubelet's DevicePlugin API for one resource.

`Allocate` answers at once and never refuses, because an error there fails the pod for good and its controller creates another
one without a pause (seen with kubelet 1.36: 356 failed pods). A container that must not start yet is held back in
`PreStartContainer`, whose errors the kubelet retries.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from .allocation import device_nodes, environment, prefer
from .api import HEALTHY, UNHEALTHY, method, plugin_classes
from .device_info import DeviceInfoFiles
from .devices import Device
from .inventory import Inventory

__all__ = ["Service"]

_PRE_START_S = 10.0
"""Seconds for which the start of a container waits before it is refused. The kubelet would wait for 30 s."""
_METHODS = (
    ("GetDevicePluginOptions", "options", Cardinality.UNARY_UNARY, "Empty", "DevicePluginOptions"),
    ("ListAndWatch", "list_and_watch", Cardinality.UNARY_STREAM, "Empty", "ListAndWatchResponse"),
    ("Allocate", "allocate", Cardinality.UNARY_UNARY, "AllocateRequest", "AllocateResponse"),
    ("GetPreferredAllocation", "prefer", Cardinality.UNARY_UNARY, "PreferredAllocationRequest", "PreferredAllocationResponse"),
    ("PreStartContainer", "pre_start", Cardinality.UNARY_UNARY, "PreStartContainerRequest", "PreStartContainerResponse"),
)


class Service:
    """The service of one resource. One instance serves one registration.

    Args:
        resource: Name of the resource.
        inventory: Its devices.
        files: The device-info files.
    """

    def __init__(self, resource: str, inventory: Inventory, files: DeviceInfoFiles) -> None:
        self._resource = resource
        self._inventory = inventory
        self._files = files
        self._classes = plugin_classes()
        self._stopped = asyncio.Event()
        self._streams = 0
        self._sent: tuple[Device, ...] | None = None
        self.opened = asyncio.Event()
        """Set once the kubelet watches the list."""
        self.closed = asyncio.Event()
        """Set once the kubelet no longer watches the list."""

    def __mapping__(self) -> dict[str, Handler]:
        """Return the methods, for grpclib."""
        return {
            method(name): Handler(getattr(self, f"_{own}"), cardinality, self._classes[request], self._classes[response])
            for name, own, cardinality, request, response in _METHODS
        }

    def stop(self) -> None:
        """End the streams, so that the kubelet learns at once that the plugin has ended."""
        self._stopped.set()

    @property
    def has_unsent_update(self) -> bool:
        """Return whether the kubelet watches and has not been sent the newest list."""
        return bool(self._streams) and self._sent != self._inventory.listing(self._resource)

    def make_options(self) -> Any:
        """Return which of the optional methods are served."""
        return self._classes["DevicePluginOptions"](pre_start_required=True, get_preferred_allocation_available=True)

    async def _options(self, stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        await stream.send_message(self.make_options())

    async def _list_and_watch(self, stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        self._streams += 1
        self.opened.set()
        sent = None
        try:
            while not self._stopped.is_set():
                listing = self._inventory.listing(self._resource)
                if listing != sent:
                    await stream.send_message(self._render_list(listing))
                    # No wait follows: the inventory may have changed while the message was sent.
                    self._sent = sent = listing
                    continue
                await self._change()
        finally:
            self._streams -= 1
            if not self._streams:
                self.closed.set()

    async def _change(self) -> None:
        """Wait until the list changes or the service is stopped."""
        tasks = [asyncio.ensure_future(self._inventory.changed()), asyncio.ensure_future(self._stopped.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def _render_list(self, listing: tuple[Device, ...]) -> Any:
        response = self._classes["ListAndWatchResponse"]()
        for device in listing:
            made = response.devices.add(ID=device.address, health=UNHEALTHY if device.fault else HEALTHY)
            # Under single-numa-node the kubelet refuses every pod with a device on node -1 (sysfs's "none").
            if device.numa_node is not None:
                made.topology.nodes.add(ID=device.numa_node)
        return response

    async def _allocate(self, stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        response = self._classes["AllocateResponse"]()
        for container in request.container_requests if request is not None else ():
            addresses = list(container.devices_ids)
            # Recorded before the answer, because the kubelet names the pod as holder only some time after it.
            self._inventory.give(addresses)
            devices = self._inventory.find(self._resource, addresses)
            for device in devices:
                # Multus reads the file when it adds the pod's networks, which follows the allocation.
                self._files.write(self._resource, device)
            # Devices that are not listed are named too: `PreStartContainer` holds the container back, and is retried.
            answer = response.container_responses.add(envs=environment(self._resource, addresses, devices))
            for path in device_nodes(devices):
                answer.devices.add(container_path=path, host_path=path, permissions="rw")
        await stream.send_message(response)

    async def _prefer(self, stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        response = self._classes["PreferredAllocationResponse"]()
        for container in request.container_requests if request is not None else ():
            must = list(container.must_include_deviceIDs)
            devices = self._inventory.find(self._resource, dict.fromkeys([*must, *container.available_deviceIDs]))
            response.container_responses.add(deviceIDs=prefer(devices, must, container.allocation_size))
        await stream.send_message(response)

    async def _pre_start(self, stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        addresses = list(request.devices_ids) if request is not None else []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PRE_START_S):
                while self._faults(addresses):
                    await self._inventory.changed()
        faults = self._faults(addresses)
        if faults:
            raise GRPCError(Status.UNAVAILABLE, f"vmnic: {', '.join(faults)}; the container starts when this is over")
        await stream.send_message(self._classes["PreStartContainerResponse"]())

    def _faults(self, addresses: list[str]) -> list[str]:
        devices = {device.address: device for device in self._inventory.find(self._resource, addresses)}
        unlisted = [f"{address} is not there" for address in addresses if address not in devices]
        return unlisted + [device.fault for device in devices.values() if device.fault]
