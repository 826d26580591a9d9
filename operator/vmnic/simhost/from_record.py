"""Description of a simulated host from a HostRecord.

A record may say more than the model can, such as links that no function has. What cannot be simulated is refused, and
what the model makes by itself, such as the MAC addresses of VFs, may differ from the record.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection
from typing import Final, Literal

import msgspec

from ..api.node_state import VFIO
from ..host.ops import ListDir, ReadFile
from ..nodes.addresses import routing_id
from ..nodes.nics import model_of
from ..records.record import HostRecord, LinkRecord, PciDevice, Sriov
from ..records.recorded_host import RecordedHost, virtual_functions
from .spec import DeviceSpec, HostSpec, ImpossibleHostError, IommuGroupSpec, NicProfile, PfSpec, PortSpec, profiles

__all__ = ["spec_of"]

_DIRECTORIES = ("/etc/modprobe.d", "/etc/NetworkManager/system-connections", "/etc/sriov-operator/pci", "/etc/udev/rules.d")
"""Directories of files that other programs and vmnic write."""
_NETWORK: Final = "02"
_REPRESENTOR = re.compile(r"(?:c[0-9]{1,3})?pf[0-9]{1,3}vf([0-9]{1,4})", re.ASCII)
_SPEED_MBPS: Final = 1000
_OFFSET, _STRIDE = 128, 8
"""Distances that keep the VFs of all functions of a device apart, for a record that gives none."""


def spec_of(record: HostRecord) -> HostSpec:
    """Return the description of a host that is like a recorded one.

    Raises:
        ImpossibleHostError: The model has no such link or function. The message names the field.
    """
    modules = record.host.modules
    there = {*(modules.loaded or ()), *(modules.built_in or ())}
    parents = {link.parent for link in record.links}
    functions = [
        one
        for one in record.pci_devices
        if one.physical_function is None and (one.address in parents or one.class_.startswith(_NETWORK))
    ]
    for link in record.links:
        if link.parent is None:
            raise ImpossibleHostError(f"links[{link.name}]: a link of kind {link.kind or 'unknown'} is added by a command")
    profiles_of = {one.address: _profile(record, one) for one in functions}
    vfs = {one.address for one in record.pci_devices if one.physical_function is not None}
    pfs = {one.address for one in functions}
    return HostSpec(
        pfs=tuple(_pf(record, one, profiles_of[one.address][0]) for one in functions),
        devices=tuple(
            DeviceSpec(address=one.address, vendor=one.vendor, device=one.device, pci_class=one.class_, driver=one.driver or "")
            for one in record.pci_devices
            if one.address not in pfs | vfs
        ),
        profiles={name: profile for name, profile in profiles_of.values() if name not in profiles()},
        iommu=record.host.iommu is not False,
        iommu_groups=_groups(record, vfs),
        vf_groups={
            one.address: one.iommu_group for one in record.pci_devices if one.address in vfs and one.iommu_group is not None
        },
        kernel=record.host.kernel or HostSpec().kernel,
        boot_id=record.host.boot_id or "",
        modules=tuple(sorted(there)) if modules.loaded is not None else HostSpec().modules,
        available_modules=modules.available or (),
        refused_modules=tuple(text.split(":")[0] for text in modules.refused or ()),
        files=_files(record),
    )


def _groups(record: HostRecord, vfs: Collection[str]) -> tuple[IommuGroupSpec, ...]:
    """Return the IOMMU groups. VFs join theirs when they are created."""
    members: dict[int, list[str]] = {group.id: [] for group in record.iommu_groups}
    for one in record.pci_devices:
        if one.iommu_group is not None and one.address not in vfs:
            members.setdefault(one.iommu_group, []).append(one.address)
    regions = {group.id: group.reserved_regions for group in record.iommu_groups if group.reserved_regions is not None}
    usual = IommuGroupSpec(devices=()).reserved_regions
    return tuple(
        IommuGroupSpec(id=number, devices=tuple(found), reserved_regions=regions.get(number, usual))
        for number, found in sorted(members.items())
    )


def _profile(record: HostRecord, device: PciDevice) -> tuple[str, NicProfile]:
    """Return the name and the profile of a function.

    What the record says takes the place of the model's values.
    """
    ids, driver = (device.vendor, device.device), device.driver
    known = [
        (name, one) for name, one in profiles().items() if (one.vendor, one.device) == ids and driver in (one.driver, None)
    ]
    name, base = known[0] if known else (device.address, _unknown_profile(record, device))
    sriov = device.sriov
    # Without SR-IOV although the model has it: the firmware may have switched it off.
    total = 0 if sriov is None else base.max_vfs if sriov.total_vfs is None else sriov.total_vfs
    most = max(total, base.capability_vfs) if sriov is not None else 0
    made = msgspec.structs.replace(base, pci_class=device.class_, max_vfs=total, capability_vfs=most)
    offset, stride = _distances(device)
    if offset is not None and offset != base.vf_offset + int(device.address[-1]) * base.port_offset:
        made = msgspec.structs.replace(made, vf_offset=offset, port_offset=0)
    made = made if stride is None else msgspec.structs.replace(made, vf_stride=stride)
    return (name, base) if known and made == base else (device.address, made)


def _distances(device: PciDevice) -> tuple[int | None, int | None]:
    """Return the distances to the first VF and between two VFs, as far as they are known."""
    sriov = device.sriov or Sriov()
    own, *others = (routing_id(one) for one in (device.address, *(virtual_functions(device) or ())))
    if not others or (device.virtual_functions or (device.address,))[0][:4] != device.address[:4]:
        return sriov.offset, sriov.stride
    return others[0] - own, others[1] - others[0] if len(others) > 1 else sriov.stride


def _unknown_profile(record: HostRecord, device: PciDevice) -> NicProfile:
    """Return the profile of an unknown model, as far as the record describes it."""
    link = next((one for one in record.links if one.parent == device.address), None)
    vf = next((one for one in record.pci_devices if one.physical_function == device.address), None)
    model = model_of(device.vendor, device.device, device.driver or "")
    channels = link.channels.max_combined if link is not None and link.channels is not None else 0
    sriov = device.sriov or Sriov()
    of_vf = vf.driver if vf is not None and vf.driver not in (None, "", VFIO) else None
    return NicProfile(
        vendor=device.vendor,
        device=device.device,
        driver=device.driver or (model.driver if model is not None else "unknown"),
        speed_mbps=(link.speed_mbps if link is not None else None) or _SPEED_MBPS,
        channels=channels,
        channels_with_vfs=channels,
        vf_device=sriov.vf_device or (vf.device if vf is not None else ""),
        vf_driver=of_vf or (model.vf_driver if model is not None else ""),
        vf_offset=_OFFSET,
        vf_stride=_STRIDE,
        rate_limit=True,
    )


def _pf(record: HostRecord, device: PciDevice, profile: str) -> PfSpec:
    where = f"pciDevices[{device.address}]"
    links = [link for link in record.links if link.parent == device.address]
    if not links:
        raise ImpossibleHostError(f"{where}: it has no link, and a function of the simulated host boots with one")
    found = {index: one for one in links if (index := _represented(one)) is not None}
    others = [one for one in links if one not in found.values()]
    if not others:
        raise ImpossibleHostError(f"{where}: its links are representors only, and a function boots with a link of its own")
    link = min(others, key=lambda one: (one.phys_port_name.startswith("pf"), one.dev_port, one.index))
    names = itertools.takewhile(found.__contains__, itertools.count())
    first = next(iter(virtual_functions(device) or ()), "")
    return PfSpec(
        address=device.address,
        profile=profile,
        name=link.name,
        alt_names=link.alt_names,
        mac=link.permanent_mac or link.mac or PfSpec(address="", profile="", name="").mac,
        numa_node=-1 if device.numa_node is None else device.numa_node,
        vfs=(device.sriov or Sriov()).num_vfs or 0,
        vf_driver=_vf_driver(record, device),
        mtu=1500 if link.mtu is None else link.mtu,
        up=link.up is not False,
        cable=link.carrier is not False or link.up is False,
        addresses=link.addresses,
        default_route=link.default_route,
        router=link.learned_default_route,
        no_vf_space=device.unassigned_vf_space,
        link_type="ether" if link.type is None else str(link.type),
        phys_port_name=link.phys_port_name,
        eswitch=_eswitch(device),
        ports=tuple(
            PortSpec(
                name=one.name, mac=one.mac or PortSpec(name="").mac, phys_port_name=one.phys_port_name, addresses=one.addresses
            )
            for one in others
            if one is not link
        ),
        representors=tuple(found[index].name for index in names),
        reports_flags=all(vf.trust is not None or vf.spoof_check is not None for vf in link.vfs),
        vf_domain=int(first[:4], 16) if first and first[:4] != device.address[:4] else None,
    )


def _represented(link: LinkRecord) -> int | None:
    """Return the index of the VF that a link represents, or None if it represents none."""
    found = _REPRESENTOR.fullmatch(link.phys_port_name)
    return int(found[1]) if found is not None else None


def _eswitch(device: PciDevice) -> Literal["", "legacy", "switchdev"]:
    mode = device.eswitch_mode or ""
    return "switchdev" if mode.startswith("switchdev") else "legacy" if mode else ""


def _vf_driver(record: HostRecord, device: PciDevice) -> str:
    """Return the driver of a function's VFs, which the model gives to all of them."""
    drivers = {one.driver or "" for one in record.pci_devices if one.physical_function == device.address}
    if len(drivers) > 1:
        raise ImpossibleHostError(f"pciDevices[{device.address}]: its VFs have several drivers: {', '.join(sorted(drivers))}")
    return next(iter(drivers), "")


def _files(record: HostRecord) -> dict[str, str]:
    """Return the files of other programs, as a recorded host shows them."""
    host = RecordedHost(record)
    found: dict[str, str] = {}
    for directory in _DIRECTORIES:
        try:
            names = host.perform(ListDir(directory))
        except FileNotFoundError:
            continue
        paths = [f"{directory}/{name}" for name in names] if isinstance(names, tuple) else []
        found |= {path: str(host.perform(ReadFile(path))) for path in paths}
    return found
