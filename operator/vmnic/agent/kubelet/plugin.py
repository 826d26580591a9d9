"""The device plugin as the rest of the agent uses it, with devices, fence and recent holders."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pathlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from ...kube.tasks import cancel_and_wait
from .api import KUBELET_SOCKET
from .device_info import DeviceInfoFiles
from .devices import AdvertisedDevices
from .endpoint import Endpoint, is_socket_name
from .inventory import Inventory
from .podresources import Holders
from .socket_watch import DirectoryWatch

__all__ = ["DevicePlugin", "Devices", "NoDevices"]

_log = logging.getLogger(__name__)

_TELL_S = 1.0
"""Seconds that the kubelet has to receive a list. After that only `PreStartContainer` holds pods back."""
_POLL_S = 0.01


class Devices(Protocol):
    """Receives the devices that the node offers."""

    def replace(self, offers: Iterable[AdvertisedDevices], held: Mapping[str, str] | None) -> None:
        """Advertise these devices from now on.

        Args:
            offers: What the PFs offer.
            held: Pods that hold devices, described by PCI address. None if that is unknown now.
        """
        ...


class NoDevices:
    """Implementation of `Devices` for nodes where another device plugin advertises devices."""

    def replace(self, offers: Iterable[AdvertisedDevices], held: Mapping[str, str] | None) -> None:
        """Ignore the devices."""


class DevicePlugin:
    """Advertises the devices of this node's pools to the kubelet.

    Implements `Devices`, `Fence` and `Holders`.

    Args:
        directory: The kubelet's directory of device plugins.
        info_directory: Directory of device-info files.
        holders: Names the holders of devices, except those of recent allocations.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        info_directory: pathlib.Path,
        holders: Holders,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._files = DeviceInfoFiles(info_directory)
        self._holders = holders
        self._inventory = Inventory(clock)
        self._endpoints: dict[str, Endpoint] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def replace(self, offers: Iterable[AdvertisedDevices], held: Mapping[str, str] | None) -> None:
        """Advertise these devices from now on (see `Devices`)."""
        before = set(self._inventory.resources)
        self._inventory.replace(offers, held)
        for name in before | set(self._inventory.resources):
            self._files.keep(name, {device.address for device in self._inventory.listing(name)})

    async def close(self, functions: Collection[str]) -> None:
        """Mark the devices of PFs Unhealthy and hold back containers that were just allocated one.

        The call returns once the kubelet has been sent the new lists, or after a second.
        """
        self._inventory.fence(functions)
        await self._tell()

    async def open(self, functions: Collection[str]) -> None:
        """Advertise the PFs again after the next observation."""
        self._inventory.unfence(functions)

    async def read(self) -> dict[str, str]:
        """Return holders, including those of recent allocations that the kubelet does not name yet.

        Raises:
            HoldersUnknownError: The kubelet does not name the holders now.
        """
        # Taken before the question: the answer says nothing about an allocation that comes after it.
        given = self._inventory.giving
        told = await self._holders.read()
        self._inventory.forget(given, told)
        return self._inventory.given | told

    async def run(self) -> None:
        """Keep every resource registered until cancelled."""
        watch = DirectoryWatch(self._directory, KUBELET_SOCKET)
        # A killed agent leaves its sockets, also those of resources that no longer exist.
        for left in self._directory.glob("*"):
            if is_socket_name(left.name):
                with contextlib.suppress(OSError):
                    left.unlink()
        try:
            while True:
                # Compared again after each `_follow`, during which the resources may change unnoticed.
                if self._endpoints.keys() != self._inventory.resources.keys():
                    await self._follow(watch)
                    continue
                await self._inventory.changed()
        finally:
            await cancel_and_wait(self._tasks.values())
            watch.close()

    async def _follow(self, watch: DirectoryWatch) -> None:
        """Start the endpoints of new resources and end those of removed resources."""
        for name in self._inventory.resources.keys() - self._endpoints.keys():
            endpoint = Endpoint(name, self._directory, self._inventory, self._files, watch)
            self._endpoints[name] = endpoint
            self._tasks[name] = asyncio.create_task(endpoint.run())
        gone = self._endpoints.keys() - self._inventory.resources.keys()
        if gone:
            # The kubelet keeps the capacity of a plugin that ended for five minutes. An empty list removes it at once.
            await self._tell()
        for name in gone:
            del self._endpoints[name]
            await cancel_and_wait([self._tasks.pop(name)])
            _log.info("%s is withdrawn", name, extra={"resource": name})

    async def _tell(self) -> None:
        """Wait until the kubelet has been sent the newest lists."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TELL_S):
                while any(endpoint.has_unsent_update for endpoint in self._endpoints.values()):
                    await asyncio.sleep(_POLL_S)
