"""The device plugin as the rest of the agent sees it: takes what was observed, is the fence, and names fresh holders."""

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
"""How long the kubelet has to take a list; after that `PreStartContainer` alone keeps pods off."""
_POLL_S = 0.01


class Devices(Protocol):
    """Takes what the node offers."""

    def replace(self, offers: Iterable[AdvertisedDevices], held: Mapping[str, str] | None) -> None:
        """Offer this from now on.

        Args:
            offers: What the physical functions offer.
            held: Which pods hold devices, in words by PCI address; None: that cannot be learnt now.
        """
        ...


class NoDevices:
    """For nodes where another device plugin hands out devices."""

    def replace(self, offers: Iterable[AdvertisedDevices], held: Mapping[str, str] | None) -> None:
        """Do nothing."""


class DevicePlugin:
    """Offers the devices of this node's pools to the kubelet. Implements `Devices`, `Fence` and `Holders`.

    Args:
        directory: The kubelet's directory of device plugins.
        info_directory: Directory of device-info files.
        holders: Names who holds devices, besides those that were given away a moment ago.
        clock: Seconds, monotonic.
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
        """Offer this from now on; see `Devices`."""
        before = set(self._inventory.resources)
        self._inventory.replace(offers, held)
        for name in before | set(self._inventory.resources):
            self._files.keep(name, {device.address for device in self._inventory.listing(name)})

    async def close(self, functions: Collection[str]) -> None:
        """Make what functions offer Unhealthy, and hold back containers that just got it; returns once the kubelet knows."""
        self._inventory.fence(functions)
        await self._tell()

    async def open(self, functions: Collection[str]) -> None:
        """Let them be had again, once the next look has found them."""
        self._inventory.lift(functions)

    async def read(self) -> dict[str, str]:
        """Name holders; what was given away a moment ago is held, also where the kubelet does not name the pod yet.

        Raises:
            HoldersUnknownError: there are holders that cannot be learnt now.
        """
        given = self._inventory.giving
        told = await self._holders.read()
        self._inventory.forget(given, told)
        return self._inventory.given | told

    async def run(self) -> None:
        """Keep every resource registered, until cancelled."""
        watch = DirectoryWatch(self._directory, KUBELET_SOCKET)
        for left in self._directory.glob("*"):
            if is_socket_name(left.name):
                with contextlib.suppress(OSError):
                    left.unlink()
        try:
            while True:
                if self._endpoints.keys() != self._inventory.resources.keys():
                    await self._follow(watch)
                    continue
                await self._inventory.changed()
        finally:
            await cancel_and_wait(self._tasks.values())
            watch.close()

    async def _follow(self, watch: DirectoryWatch) -> None:
        """Start the endpoints of new resources and end those of resources that are gone."""
        for name in self._inventory.resources.keys() - self._endpoints.keys():
            endpoint = Endpoint(name, self._directory, self._inventory, self._files, watch)
            self._endpoints[name] = endpoint
            self._tasks[name] = asyncio.create_task(endpoint.run())
        gone = self._endpoints.keys() - self._inventory.resources.keys()
        if gone:
            # The kubelet keeps the capacity of a plugin that ended for five minutes; an empty list takes it away at once.
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
