"""The listed devices, the fenced PFs and the recent allocations, which all services share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import replace

from .devices import AdvertisedDevices, Device, Resource, list_resources

__all__ = ["Inventory"]

_RECENT_S = 10.0
"""Age in seconds after which an allocation that the kubelet never named is dropped. The kubelet names a pod's devices some
milliseconds after `Allocate`, and never names a pod that it refused after all."""
_FENCED = "is about to be changed"


class Inventory:
    """The devices of one node.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._resources: dict[str, Resource] = {}
        self._fenced: set[str] = set()
        self._lifted: set[str] = set()
        """Fenced PFs, by PCI address, that are advertised again after the next observation."""
        self._given: dict[str, float] = {}
        self._changed = asyncio.Event()

    @property
    def resources(self) -> Mapping[str, Resource]:
        """Return the resources as last advertised, by name."""
        return self._resources

    def replace(self, offers: Iterable[AdvertisedDevices], held: Mapping[str, str] | None) -> None:
        """List the devices to advertise from now on (see `list_resources`)."""
        # A fence ends here and not with the change, because only an observation shows which VFs are left.
        self._fenced -= self._lifted
        self._lifted.clear()
        # The kubelet's answer names the pod, so it replaces the entry of a recent allocation.
        held = {**self.given, **held} if held is not None else None
        self._resources = list_resources(offers, self._resources, held)
        self._announce()

    def fence(self, functions: Collection[str]) -> None:
        """Keep all devices of these PFs from being allocated."""
        self._fenced |= set(functions)
        # A PF may be fenced again before the next observation, which must not lift the new fence.
        self._lifted -= set(functions)
        self._announce()

    def unfence(self, functions: Collection[str]) -> None:
        """Advertise these PFs again after the next observation."""
        self._lifted |= self._fenced & set(functions)

    def listing(self, name: str) -> tuple[Device, ...]:
        """Return the devices of a resource as the kubelet must see them.

        An unknown resource has none.
        """
        resource = self._resources.get(name)
        devices = resource.devices if resource is not None else ()
        return tuple(
            replace(device, fault=device.fault or f"{device.address} {_FENCED}")
            if any(one.pf in self._fenced for one in device.members)
            else device
            for device in devices
        )

    def find(self, name: str, addresses: Iterable[str]) -> list[Device]:
        """Return the devices that are listed among the given addresses."""
        by_address = {device.address: device for device in self.listing(name)}
        return [by_address[address] for address in addresses if address in by_address]

    def give(self, addresses: Iterable[str]) -> None:
        """Record that the kubelet just allocated these devices."""
        self._given |= dict.fromkeys(addresses, self._clock())

    def forget(self, given: Mapping[str, float], named: Collection[str]) -> None:
        """Drop allocations that the kubelet names by now, because from then on its answer counts.

        Args:
            given: Allocations, with their times, from before the kubelet was asked.
            named: Devices for which the kubelet named a holder.
        """
        for address in given.keys() & set(named):
            # The device may have been allocated again while the kubelet answered.
            if self._given.get(address) == given[address]:
                del self._given[address]

    @property
    def giving(self) -> Mapping[str, float]:
        """Return the times of allocations that the kubelet may not name yet, by PCI address."""
        return dict(self._given)

    @property
    def given(self) -> dict[str, str]:
        """Return holders for allocations so recent that the kubelet may not name them yet."""
        oldest = self._clock() - _RECENT_S
        self._given = {address: at for address, at in self._given.items() if at > oldest}
        return dict.fromkeys(self._given, "a pod that is starting")

    def changed(self) -> Awaitable[object]:
        """Return an awaitable that ends at the next change from now on."""
        return self._changed.wait()

    def _announce(self) -> None:
        # With a new event for the next change, every waiter of this one wakes, however late it runs.
        self._changed.set()
        self._changed = asyncio.Event()
