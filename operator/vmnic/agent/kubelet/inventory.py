"""What is listed now, what is fenced, and what was given away a moment ago: the state that all services share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import replace

from .devices import AdvertisedDevices, Device, Resource, list_resources

__all__ = ["Inventory"]

_RECENT_S = 10.0
"""The kubelet names a pod's devices some milliseconds after `Allocate`; a pod that it refused after all is never named."""
_FENCED = "is about to be changed"


class Inventory:
    """The devices of one node.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._resources: dict[str, Resource] = {}
        self._fenced: set[str] = set()
        self._lifted: set[str] = set()
        """Fenced, and to be had again once they have been looked at. Both are physical functions, by PCI address."""
        self._given: dict[str, float] = {}
        self._changed = asyncio.Event()

    @property
    def resources(self) -> Mapping[str, Resource]:
        """Resources by name, as they were last offered."""
        return self._resources

    def replace(self, offers: Iterable[AdvertisedDevices], held: Mapping[str, str] | None) -> None:
        """List what is offered from now on; see `list_resources`."""
        self._fenced -= self._lifted
        self._lifted.clear()
        held = {**self.given, **held} if held is not None else None
        self._resources = list_resources(offers, self._resources, held)
        self._announce()

    def fence(self, functions: Collection[str]) -> None:
        """Let nobody have a device of these functions."""
        self._fenced |= set(functions)
        self._lifted -= set(functions)
        self._announce()

    def lift(self, functions: Collection[str]) -> None:
        """Let what the next look finds of them be had again."""
        self._lifted |= self._fenced & set(functions)

    def listing(self, name: str) -> tuple[Device, ...]:
        """Give the devices of a resource as the kubelet is to know them; none for an unknown one."""
        resource = self._resources.get(name)
        devices = resource.devices if resource is not None else ()
        return tuple(
            replace(device, fault=device.fault or f"{device.address} {_FENCED}") if device.pf in self._fenced else device
            for device in devices
        )

    def find(self, name: str, addresses: Iterable[str]) -> list[Device]:
        """Give those of the devices that are listed."""
        by_address = {device.address: device for device in self.listing(name)}
        return [by_address[address] for address in addresses if address in by_address]

    def give(self, addresses: Iterable[str]) -> None:
        """Remember that a pod was just given these devices."""
        self._given |= dict.fromkeys(addresses, self._clock())

    def forget(self, given: Mapping[str, float], named: Collection[str]) -> None:
        """Forget what was given away before the kubelet was asked, as far as it names it: from then on its word counts."""
        for address in given.keys() & set(named):
            if self._given.get(address) == given[address]:
                del self._given[address]

    @property
    def giving(self) -> Mapping[str, float]:
        """When which device was given away, as far as the kubelet may not have named it."""
        return dict(self._given)

    @property
    def given(self) -> dict[str, str]:
        """Holders, in words, of what was given away so recently that the kubelet may not name them yet."""
        oldest = self._clock() - _RECENT_S
        self._given = {address: at for address, at in self._given.items() if at > oldest}
        return dict.fromkeys(self._given, "a pod that is being started")

    def changed(self) -> Awaitable[object]:
        """Give what waits for the next change from now on."""
        return self._changed.wait()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
