"""Resources and devices that are advertised to the kubelet, from pool specs and observed state.

A device stays listed as long as its pool wants it, and is Unhealthy while it cannot be used. A device that a pod holds stays
listed even longer, because removing it would lower the allocatable count below the number of free devices. The functions here
have no side effects.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from ...api.node_state import VFIO, PfSpec, VfGroup
from ...nodes.observed import ObservedPf, ObservedVf
from ...nodes.planning.actions import wrong_driver
from ...nodes.planning.groups import describe_obstacle
from ...nodes.state import indexes_of

__all__ = ["AdvertisedDevices", "Device", "Resource", "list_resources"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One VF, or one whole NIC with those that share its IOMMU group and its pool."""

    address: str
    """PCI address, which is also the device id for the kubelet. The lowest one if there are others."""
    pool: str = ""
    """Pool that offers it."""
    pf: str
    """PCI address of the PF that the device belongs to, or is."""
    index: int | None = None
    """Index of the VF. None for a whole NIC."""
    numa_node: int | None = None
    """None if unknown, or if the pool excludes topology."""
    vfio: bool = True
    """Whether a process opens it through VFIO. Otherwise it is a network link."""
    group: str = ""
    """IOMMU group."""
    vfio_device: str = ""
    """Name below /dev/vfio/devices. Empty if the kernel creates none."""
    fault: str = ""
    """Why no pod can use it now. Empty if it is healthy."""
    others: tuple[Device, ...] = ()
    """The other whole NICs of its IOMMU group, which a container gets with it."""

    @property
    def members(self) -> tuple[Device, ...]:
        """Return the device and those that a container gets with it."""
        return (self, *self.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """An extended resource of the node."""

    name: str
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvertisedDevices:
    """Devices that pools offer from one PF."""

    spec: PfSpec
    pf: ObservedPf | None
    """None if the PF does not exist or does not answer."""
    fault: str = ""
    """Why none of its devices can be used now. Empty if each of them may be healthy."""


def list_resources(
    offers: Iterable[AdvertisedDevices], before: Mapping[str, Resource], held: Mapping[str, str] | None
) -> dict[str, Resource]:
    """List the resources to advertise from now on.

    Args:
        offers: What the pools of this node offer.
        before: The resources listed so far.
        held: Pods that hold devices, described by PCI address. None if that is unknown now.
    """
    before = {name: _split(resource) for name, resource in before.items()}
    fresh: dict[str, dict[str, Device]] = {}
    for offer in offers:
        for group in offer.spec.groups:
            if group.device_plugin == "Embedded":
                devices = fresh.setdefault(group.resource, {})
                devices |= {device.address: device for device in _devices(offer, group, before.get(group.resource), held)}
    for name, resource in before.items():
        for device in resource.devices:
            # While holders are unknown, any device may be held, so none is removed.
            if device.address not in fresh.get(name, {}) and (held is None or device.address in held):
                # Another pool may offer the VF by now, but a pod still has it.
                for others in fresh.values():
                    others.pop(device.address, None)
                gone = replace(device, fault=f"{device.address} is no longer offered as {name}")
                fresh.setdefault(name, {})[device.address] = gone
    _join_groups(fresh)
    return {
        name: Resource(name=name, devices=tuple(devices[address] for address in sorted(devices)))
        for name, devices in sorted(fresh.items())
        if devices
    }


def _split(resource: Resource) -> Resource:
    """Return a resource with each whole NIC as a device of its own."""
    parts = (replace(one, others=()) for device in resource.devices for one in device.members)
    return replace(resource, devices=tuple(parts))


def _join_groups(devices: Mapping[str, dict[str, Device]]) -> None:
    """Make one device of the whole NICs that share an IOMMU group and a pool."""
    groups: dict[tuple[str, str], list[tuple[Device, dict[str, Device]]]] = {}
    for named in devices.values():
        for device in named.values():
            if device.index is None and device.group:
                groups.setdefault((device.pool, device.group), []).append((device, named))
    for members in groups.values():
        # With resourcePerPF, each of them has a resource of its own. The first one's stands for all.
        (first, place), *others = sorted(members, key=lambda pair: pair[0].address)
        for device, named in others:
            del named[device.address]
        fault = next((device.fault for device, _ in members if device.fault), "")
        place[first.address] = replace(first, others=tuple(device for device, _ in others), fault=fault)


def _devices(
    offer: AdvertisedDevices, group: VfGroup, before: Resource | None, held: Mapping[str, str] | None
) -> Iterator[Device]:
    known = [device for device in before.devices if device.pf == offer.spec.pci_address] if before is not None else []
    if offer.spec.function == "Physical":
        present = [_whole(offer.pf, group, held)] if offer.pf is not None else []
        wanted: Collection[int | None] = (None,)
    else:
        wanted = indexes_of(offer.spec, group)
        present = [_virtual(offer.pf, vf, group, held) for vf in offer.pf.vfs if vf.index in wanted] if offer.pf else []
    seen = {device.address for device in present}
    missing = [device for device in known if device.address not in seen and device.index in wanted]
    yield from (replace(device, fault=offer.fault or device.fault) for device in present)
    yield from (replace(device, fault=offer.fault or f"{device.address} is not there") for device in missing)


def _whole(pf: ObservedPf, group: VfGroup, held: Mapping[str, str] | None) -> Device:
    fault = "" if pf.driver == VFIO else f"{pf.pci_address} is on {pf.driver or 'no driver'}, not on {VFIO}"
    return Device(
        address=pf.pci_address,
        pool=group.pool,
        pf=pf.pci_address,
        numa_node=None if group.exclude_topology else pf.numa_node,
        group=pf.group,
        vfio_device=pf.vfio_device,
        fault=fault or describe_obstacle(pf, pf.group) or _fault_of_holder(pf.pci_address, pf.held, held),
    )


def _virtual(pf: ObservedPf, vf: ObservedVf, group: VfGroup, held: Mapping[str, str] | None) -> Device:
    wrong = wrong_driver(group.driver, vf)
    fault = f"{vf.pci_address} is on {vf.driver or 'no driver'}, not on {_driver_words(group)}" if wrong else ""
    if not fault and group.driver == VFIO:
        fault = describe_obstacle(pf, vf.group)
    return Device(
        address=vf.pci_address,
        pool=group.pool,
        pf=pf.pci_address,
        index=vf.index,
        # A VF is always on the NUMA node of its PF.
        numa_node=None if group.exclude_topology else pf.numa_node,
        vfio=group.driver == VFIO,
        group=vf.group,
        vfio_device=vf.vfio_device,
        fault=fault or _fault_of_holder(vf.pci_address, vf.held, held),
    )


def _driver_words(group: VfGroup) -> str:
    return VFIO if group.driver == VFIO else "its kernel driver"


def _fault_of_holder(address: str, is_held: bool, held: Mapping[str, str] | None) -> str:
    """Return the fault of a device that is open in a process other than a pod, or an empty string.

    A pod could not open it.
    """
    # While holders are unknown, the opener may be a pod, so the device stays healthy.
    return f"{address} is held by a process outside any pod" if is_held and held is not None and address not in held else ""
