"""A host that answers reads from a HostRecord.

So decisions about a record use the readers of real hosts. What the record does not know is an error, which the readers report
with the name of the field. Every write fails with EROFS.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from ..host.ops import (
    Channels,
    CheckGateway,
    LinkInfo,
    ListDir,
    Op,
    ReadChannels,
    ReadEswitchMode,
    ReadFile,
    ReadLink,
    ReadLinks,
    ReadUnicast,
    ReadVfs,
    Value,
    VfInfo,
)
from ..nodes.addresses import vf_addresses
from ..nodes.udev_rules import file_of, replace_rule
from .record import HostRecord, LinkRecord, LinkVf, PciDevice, Sriov

__all__ = ["RecordedHost", "unknown_holders", "virtual_functions"]

_SYS: Final = "/sys/bus/pci/devices"
_VFIO: Final = "vfio-pci"
_UNKNOWN_PROCESS: Final = "an unknown process"
_MISC: Final = {"tun": "tun", "vhost_net": "vhost-net", "vfio": "vfio"}
"""Names in /proc/misc by module (the device is made when the module starts, also if it is built in)."""
_UNSET = "0x0000000000000000 0x0000000000003fff 0x0000000020140204"
"""A register window that the firmware gave no address (IORESOURCE_UNSET)."""
_CHANGED: Final = 'KERNELS=="{}", ATTR{{device/sriov_numvfs}}="recorded"\n{}'
"""A rule that vmnic would not write, and the rules after it."""
_PERMANENT, _SET = "0", "3"
"""NET_ADDR_PERM and NET_ADDR_SET of linux/netdevice.h."""


def virtual_functions(device: PciDevice) -> tuple[str, ...] | None:
    """Return the addresses of a function's VFs, or None if some are unknown."""
    count = device.sriov.num_vfs if device.sriov is not None else 0
    given = device.virtual_functions or ()
    if count is None:
        return None
    if len(given) == count:
        return given
    sriov = device.sriov or Sriov()
    if sriov.offset is None or sriov.stride is None:
        return None
    # The first VF is one offset away from the function, and each further one a stride.
    (first, *_) = vf_addresses(device.address, sriov.offset, [1]) or ("",)
    return vf_addresses(first, sriov.stride, range(count))


def unknown_holders(record: HostRecord) -> dict[str, str]:
    """Return holders of the functions for which the record does not say whether they are held.

    They count as held, because a plan that takes them away must not be taken for harmless.
    """
    found: dict[str, str] = {}
    devices = {one.address: one for one in record.pci_devices}
    for pf in record.pci_devices:
        for address in virtual_functions(pf) or ():
            vf = devices.get(address)
            if vf is None:
                found[address] = f"{_UNKNOWN_PROCESS} ({address} is not in pciDevices)"
            elif vf.driver is None:
                found[address] = f"{_UNKNOWN_PROCESS} (its driver is not recorded)"
    for one in record.pci_devices:
        if one.driver == _VFIO and one.held is None:
            found[one.address] = f"{_UNKNOWN_PROCESS} (held is not recorded)"
    return found


class RecordedHost:
    """A read-only host made of a record."""

    def __init__(self, record: HostRecord) -> None:
        self._record = record
        self._devices = {one.address: one for one in record.pci_devices}
        self._by_name = {one.name: one for one in record.links}
        self._files: dict[str, str] = {}
        self._links: dict[str, str] = {}
        self._directories: dict[str, set[str]] = {}
        self._refused: dict[str, OSError] = {}
        """Answers that are errors, by path."""
        self._add_machine()
        self._add_modules()
        for device in record.pci_devices:
            self._add_device(device)
        self._add_groups()
        for link in record.links:
            self._add_link(link)
        self._add_owners()

    def perform(self, op: Op) -> Value:
        """Answer a read.

        Raises:
            OSError: The kernel refused the read when the record was made, the record does not know the answer (EIO), nothing
                is there (ENOENT), or the operation is a write (EROFS).
        """
        match op:
            case ReadFile(path) | ListDir(path) | ReadLink(path):
                return self._perform_on_file(op, self._resolved(path, follow_last=not isinstance(op, ReadLink)))
            case ReadLinks():
                self._refuse("links")
                return tuple(self._link_info(link) for link in self._record.links)
            case ReadVfs(name):
                self._refuse(f"vfs:{name}")
                return tuple(_vf_info(one) for one in self._find_link(name).vfs)
            case ReadUnicast(name):
                self._refuse(f"unicast:{name}")
                return self._find_link(name).unicast_addresses
            case ReadEswitchMode(address):
                self._refuse(f"eswitch:{address}")
                device = self._devices.get(address)
                if device is None or device.eswitch_mode is None:
                    raise OSError(errno.EOPNOTSUPP, f"the mode of the switch in {address} is not recorded")
                return device.eswitch_mode
            case ReadChannels(name):
                found = self._find_link(name).channels
                if found is None:
                    raise OSError(errno.EOPNOTSUPP, f"channels of {name} are not recorded")
                return Channels(combined=found.combined, max_combined=found.max_combined)
            case CheckGateway():
                return ""
        raise OSError(errno.EROFS, "a recorded host cannot be changed")

    def _find_link(self, name: str) -> LinkRecord:
        if name not in self._by_name:
            raise OSError(errno.ENODEV, f"no link is called {name}")
        return self._by_name[name]

    def _refuse(self, read: str) -> None:
        """Raise what the kernel answered to a read when the record was made."""
        code = self._record.errors.get(read)
        if code is not None:
            raise _error(code)

    def _perform_on_file(self, op: ReadFile | ListDir | ReadLink, path: str) -> Value:
        if path in self._refused:
            raise self._refused[path]
        match op:
            case ReadFile() if path in self._files:
                return self._files[path]
            case ListDir() if path in self._directories:
                return tuple(sorted(self._directories[path]))
            case ReadLink() if path in self._links:
                return self._links[path]
        raise OSError(errno.ENOENT, path)

    def _resolved(self, path: str, *, follow_last: bool) -> str:
        """Follow the symbolic links of a path, which are absolute here, as far as there are any."""
        done = ""
        parts = [part for part in path.split("/") if part]
        for number, part in enumerate(parts):
            done = f"{done}/{part}"
            if follow_last or number < len(parts) - 1:
                done = self._links.get(done, done)
        return done

    def _file(self, path: str, text: str) -> None:
        self._files[path] = text
        self._enter(path)

    def _link(self, path: str, target: str) -> None:
        self._links[path] = target
        self._enter(path)

    def _enter(self, path: str) -> None:
        """Add a path to the directories above it."""
        above, _, name = path.rpartition("/")
        while above and name not in self._directories.setdefault(above, set()):
            self._directories[above].add(name)
            above, _, name = above.rpartition("/")

    def _unknown(self, path: str, field: str) -> None:
        """Make a file whose content the record does not know."""
        self._enter(path)
        self._refused[path] = OSError(errno.EIO, f"{field} is not recorded")

    def _add_machine(self) -> None:
        host = self._record.host
        self._file("/proc/sys/kernel/osrelease", host.kernel or "")
        self._file("/proc/sys/kernel/arch", host.architecture or "")
        self._file("/proc/sys/kernel/random/boot_id", host.boot_id or "")
        self._directories.setdefault(_SYS, set())
        if host.iommu is None:
            self._unknown("/sys/class/iommu", "host.iommu")
        elif host.iommu:
            self._directories["/sys/class/iommu"] = {"iommu0"}

    def _add_modules(self) -> None:
        modules = self._record.host.modules
        for name in modules.loaded or ():
            self._file(f"/sys/module/{name}/refcnt", "0")
            self._file(f"/sys/module/{name}/initstate", "live")
        # A module that is built in has no entry in /sys/module, unless it has parameters. Its devices are there.
        there = {*(modules.loaded or ()), *(modules.built_in or ())}
        there |= {"vfio_pci"} if any(one.driver == _VFIO for one in self._record.pci_devices) else set()
        is_known = modules.loaded is not None and modules.built_in is not None
        for name, path in (("macvtap", "/sys/class/macvtap"), ("vfio_pci", "/sys/bus/pci/drivers/vfio-pci")):
            if name in there:
                self._directories[path] = set()
                self._enter(path)
            elif not is_known:
                self._unknown(path, "host.modules")
        if is_known:
            numbers = (f"{number:3} {_MISC[name]}" for number, name in enumerate(sorted(there & _MISC.keys()), 196))
            self._file("/proc/misc", "\n".join(numbers))
        else:
            self._unknown("/proc/misc", "host.modules")

    def _add_device(self, device: PciDevice) -> None:
        path, where = f"{_SYS}/{device.address}", f"pciDevices[{device.address}]"
        for name, text in (("vendor", device.vendor), ("device", device.device), ("class", device.class_)):
            self._file(f"{path}/{name}", f"0x{text}")
        if device.numa_node is not None:
            self._file(f"{path}/numa_node", str(device.numa_node))
        self._add_driver(device.address, device.driver, where)
        if device.iommu_group is not None:
            self._link(f"{path}/iommu_group", f"/sys/kernel/iommu_groups/{device.iommu_group}")
        if device.physical_function is not None:
            self._link(f"{path}/physfn", f"{_SYS}/{device.physical_function}")
        if device.vfio_device is not None:
            self._file(f"{path}/vfio-dev/{device.vfio_device}/dev", "511:0")
        self._file(f"{path}/enable", str(int(device.held is True or device.driver not in ("", _VFIO))))
        windows = ["0x0 0x0 0x0"] * 7 + [_UNSET if device.unassigned_vf_space else "0x0 0x0 0x0"] * 6
        self._file(f"{path}/resource", "\n".join(windows))
        if device.driver not in ("", _VFIO, None):
            # A network driver has a link, which may be in another network namespace.
            self._directories.setdefault(f"{path}/net", set())
            self._enter(f"{path}/net")
        if device.sriov is not None:
            self._add_sriov(device, device.sriov, path, where)
        code = self._record.errors.get(f"device:{device.address}")
        if code is not None:
            self._refused[path] = _error(code)

    def _add_driver(self, address: str, driver: str | None, where: str) -> None:
        if driver is None:
            self._unknown(f"{_SYS}/{address}/driver", f"{where}.driver")
        elif driver:
            self._link(f"{_SYS}/{address}/driver", f"/sys/bus/pci/drivers/{driver}")
            self._link(f"/sys/bus/pci/drivers/{driver}/{address}", f"{_SYS}/{address}")

    def _add_sriov(self, device: PciDevice, sriov: Sriov, path: str, where: str) -> None:
        autoprobe = None if sriov.drivers_autoprobe is None else int(sriov.drivers_autoprobe)
        needed = (("totalvfs", sriov.total_vfs), ("numvfs", sriov.num_vfs), ("drivers_autoprobe", autoprobe))
        names = {"totalvfs": "totalVfs", "numvfs": "numVfs", "drivers_autoprobe": "driversAutoprobe"}
        for name, number in needed:
            if number is None:
                self._unknown(f"{path}/sriov_{name}", f"{where}.sriov.{names[name]}")
            else:
                self._file(f"{path}/sriov_{name}", str(number))
        more = (("offset", sriov.offset), ("stride", sriov.stride), ("vf_device", sriov.vf_device))
        for name, value in more:
            if value is not None:
                self._file(f"{path}/sriov_{name}", str(value))
        found = virtual_functions(device)
        if found is None:
            count = len(device.virtual_functions or ())
            fault = (
                f"{count} of {sriov.num_vfs if sriov.num_vfs is not None else 'unknown'} addresses in {where}.virtualFunctions"
            )
            self._refused[path] = OSError(errno.EIO, f"{fault}: the others are not recorded")
        for index, address in enumerate(found or ()):
            self._link(f"{path}/virtfn{index}", f"{_SYS}/{address}")
            if address not in self._devices:
                self._file_of_unrecorded(address, device)

    def _file_of_unrecorded(self, address: str, pf: PciDevice) -> None:
        """Give a VF that has no entry what is known of it. Its holders are unknown (`unknown_holders`)."""
        self._files[f"{_SYS}/{address}/enable"] = "0"
        self._links[f"{_SYS}/{address}/physfn"] = f"{_SYS}/{pf.address}"

    def _add_groups(self) -> None:
        members: dict[int, set[str]] = {}
        regions: dict[int, str] = {}
        for device in self._record.pci_devices:
            if device.iommu_group is not None:
                members.setdefault(device.iommu_group, set()).add(device.address)
        for group in self._record.iommu_groups:
            members.setdefault(group.id, set()).update(group.devices)
            if group.reserved_regions is not None:
                texts = (f"0x{one.replace('-', ' 0x', 1)}" for one in group.reserved_regions)
                regions[group.id] = "\n".join(texts)
        known = set(self._devices)
        known |= {address for one in self._record.pci_devices for address in virtual_functions(one) or ()}
        for number, addresses in members.items():
            path = f"/sys/kernel/iommu_groups/{number}/devices"
            for address in addresses:
                self._link(f"{path}/{address}", f"{_SYS}/{address}")
                if address not in known:
                    # Nothing is known of it, so it counts as an obstacle.
                    self._links[f"{_SYS}/{address}/driver"] = "/sys/bus/pci/drivers/unknown"
            lines = f"/sys/kernel/iommu_groups/{number}/reserved_regions"
            if number in regions:
                self._file(lines, regions[number])
            else:
                self._unknown(lines, f"iommuGroups[{number}].reservedRegions")
            code = self._record.errors.get(f"group:{number}")
            if code is not None:
                self._refused[path] = _error(code)

    def _add_link(self, link: LinkRecord) -> None:
        path = f"/sys/class/net/{link.name}"
        if link.parent is not None:
            own = f"{_SYS}/{link.parent}/net/{link.name}"
            self._link(path, own)
            self._link(f"{own}/device", f"{_SYS}/{link.parent}")
            path = own
        if link.mac is not None:
            self._file(f"{path}/address", link.mac)
            is_permanent = link.permanent_mac == link.mac
            self._file(f"{path}/addr_assign_type", _PERMANENT if is_permanent else _SET)
        if link.speed_mbps is not None:
            self._file(f"{path}/speed", str(link.speed_mbps))
        self._file(f"{path}/dev_port", str(link.dev_port))
        if link.mtu is not None:
            self._file(f"{path}/mtu", str(link.mtu))
        if link.carrier is not None:
            self._file(f"{path}/carrier", str(int(link.carrier)))

    def _add_owners(self) -> None:
        for driver, options in self._record.owners.module_options.items():
            self._file(f"/etc/modprobe.d/vmnic-{driver}.conf", f"options {driver} {options}")
        for address, owner in self._record.owners.foreign.items():
            if owner == "NetworkManager":
                text = f"[connection]\nid=recorded\n[match]\npath=pci-{address}\n[sriov]\ntotal-vfs=0"
                name = address.replace(":", "-")
                self._file(f"/etc/NetworkManager/system-connections/{name}.nmconnection", text)
            else:
                self._file(f"/etc/sriov-operator/pci/{address}", "recorded")
        for pool, rules in self._record.owners.own_udev_rules.items():
            text = ""
            for rule in rules:
                address, _, made = rule.partition(" ")
                text = _CHANGED.format(address, text) if made == "changed" else replace_rule(text, address, pool, made)
            self._file(file_of(pool), text)
        for path, address in self._record.owners.udev_rules.items():
            self._file(path, f'KERNELS=="{address}", ATTR{{device/sriov_numvfs}}="recorded"')

    def _link_info(self, link: LinkRecord) -> LinkInfo:
        def index_of(other: int | str | None) -> int | None:
            return self._by_name[other].index if isinstance(other, str) else other

        return LinkInfo(
            index=link.index,
            name=link.name,
            alt_names=link.alt_names,
            type=None if link.type is None else str(link.type),
            mac=link.mac,
            permanent_mac=link.permanent_mac,
            mtu=link.mtu,
            up=link.up,
            carrier=link.carrier,
            promiscuity=link.promiscuity,
            phys_port_name=link.phys_port_name,
            phys_switch_id=link.phys_switch_id,
            dev_port=link.dev_port,
            kind=link.kind,
            master=index_of(link.master),
            lower=index_of(link.lower),
            pci_address=link.parent,
            addresses=link.addresses,
            default_route=link.default_route,
            learnt=link.learned_addresses,
            learnt_route=link.learned_default_route,
        )


def _error(code: str) -> OSError:
    """Return the error with which the kernel refused a read when the host was recorded."""
    number: int = getattr(errno, code)
    return OSError(number, os.strerror(number))


def _vf_info(one: LinkVf) -> VfInfo:
    return VfInfo(
        vf=one.index,
        mac=one.mac,
        vlan=one.vlan,
        qos=one.vlan_qos,
        vlan_protocol=one.vlan_protocol,
        spoof_check=one.spoof_check,
        trust=one.trust,
        link_state=one.link_state,
        min_tx_rate_mbit=one.min_tx_rate_mbps,
        max_tx_rate_mbit=one.max_tx_rate_mbps,
    )
