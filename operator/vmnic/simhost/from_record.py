"""Description of a simulated host from a HostRecord.

A record may say more than the model can: other models of NICs, or links that no function has. What cannot be simulated is
refused, and what the model makes by itself, such as the MAC addresses of VFs, may differ from the record.
"""

from __future__ import annotations

from ..host.ops import ListDir, ReadFile
from ..records.record import HostRecord, PciDevice, Sriov
from ..records.recorded_host import RecordedHost
from .spec import HostSpec, ImpossibleHostError, PfSpec, profiles

__all__ = ["spec_of"]

_DIRECTORIES = ("/etc/modprobe.d", "/etc/NetworkManager/system-connections", "/etc/sriov-operator/pci", "/etc/udev/rules.d")
"""Directories of files that other programs and vmnic write."""


def spec_of(record: HostRecord) -> HostSpec:
    """Return the description of a host that is like a recorded one.

    Raises:
        ImpossibleHostError: The model has no such NIC or link. The message names the field.
    """
    modules = record.host.modules
    there = {*(modules.loaded or ()), *(modules.built_in or ())}
    functions = [one for one in record.pci_devices if one.sriov is not None and one.physical_function is None]
    for link in record.links:
        if link.parent is None:
            raise ImpossibleHostError(f"links[{link.name}]: a link of kind {link.kind or 'unknown'} is added by a command")
    return HostSpec(
        pfs=tuple(_pf(record, one) for one in functions),
        iommu=record.host.iommu is not False,
        kernel=record.host.kernel or HostSpec().kernel,
        boot_id=record.host.boot_id or "",
        modules=tuple(sorted(there)) if modules.loaded is not None else HostSpec().modules,
        available_modules=modules.available or (),
        refused_modules=tuple(text.split(":")[0] for text in modules.refused or ()),
        files=_files(record),
    )


def _pf(record: HostRecord, device: PciDevice) -> PfSpec:
    where = f"pciDevices[{device.address}]"
    found = [
        name
        for name, one in profiles().items()
        if (one.vendor, one.device) == (device.vendor, device.device) and device.driver in (one.driver, None)
    ]
    if not found:
        raise ImpossibleHostError(f"{where}: no profile of the simulated host is {device.vendor}:{device.device}")
    links = [link for link in record.links if link.parent == device.address]
    if not links:
        raise ImpossibleHostError(f"{where}: it has no link, and a function of the simulated host boots with one")
    link = links[0]
    return PfSpec(
        address=device.address,
        profile=found[0],
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
        shares_iommu_group=_shares_group(record, device),
        no_vf_space=device.unassigned_vf_space,
    )


def _vf_driver(record: HostRecord, device: PciDevice) -> str:
    """Return the driver of a function's VFs, which the model gives to all of them."""
    drivers = {one.driver or "" for one in record.pci_devices if one.physical_function == device.address}
    if len(drivers) > 1:
        raise ImpossibleHostError(f"pciDevices[{device.address}]: its VFs have several drivers: {', '.join(sorted(drivers))}")
    return next(iter(drivers), "")


def _shares_group(record: HostRecord, device: PciDevice) -> bool:
    """Return whether a function shares its IOMMU group with others."""
    members = {one.address for one in record.pci_devices if one.iommu_group == device.iommu_group}
    members |= {one for group in record.iommu_groups if group.id == device.iommu_group for one in group.devices}
    return device.iommu_group is not None and bool(members - {device.address})


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
