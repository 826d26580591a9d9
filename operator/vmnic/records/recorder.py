"""Recording of what vmnic can read of a host."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from ..checked.devices import is_pci_address
from ..checked.quantities import read_integer
from ..host.client import HostAccess
from ..host.ops import (
    Channels,
    LinkInfo,
    ListDir,
    Op,
    ReadChannels,
    ReadEswitchMode,
    ReadFile,
    ReadLink,
    ReadUnicast,
    ReadVfs,
    Value,
    VfInfo,
)
from ..inspection.errno_hints import errno_name
from ..inspection.holder_files import read_records
from ..inspection.modules import MODULES
from ..inspection.networkmanager import Port, find_manager, read_profiles
from ..inspection.pci_files import has_unassigned_vf_space, virtfn_entries
from ..inspection.sysfs import DEVICES, SysfsReader, is_absent
from ..nodes.nics import model_of
from ..nodes.udev_rules import find_rules, pool_of
from .record import (
    RECORD_VERSION,
    HostPart,
    HostRecord,
    IommuGroup,
    LinkChannels,
    LinkRecord,
    LinkVf,
    Metadata,
    Modules,
    OwnerRecords,
    PciDevice,
    RecordedHolder,
    Sriov,
)

__all__ = ["record_host"]

_NETWORK_CLASS: Final = "0x02"
_VFIO: Final = "vfio-pci"
_LARGEST: Final = 2**31 - 1
_MISC: Final = {"tun": "tun", "vhost-net": "vhost_net"}
"""Modules by their names in /proc/misc."""
_OPERATOR: Final = "/etc/sriov-operator/pci"
_RULES: Final = "/etc/udev/rules.d"
_ADDRESS = re.compile(r"\b[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]\b", re.ASCII)
_MODPROBE: Final = "/etc/modprobe.d"
_BATCH: Final = 64


async def record_host(host: HostAccess, name: str, holders: Mapping[str, str]) -> HostRecord:
    """Read a host and write what it is down. What cannot be read is left out, or named in `errors`.

    Args:
        host: The host.
        name: Name of the node.
        holders: Holders by device ID, as the kubelet reports them.

    Raises:
        OSError: The host as a whole cannot be read.
        OperationTimedOutError, WorkerGoneError: The host does not answer.
    """
    async with host.session("record", write=False) as session:
        recorder = _Recorder(SysfsReader(session))
        return await recorder.record(name, holders)


class _Recorder:
    """Reads one host in one session."""

    def __init__(self, reader: SysfsReader) -> None:
        self._reader = reader
        self._answers: dict[Op, Value | OSError] = {}
        self._errors: dict[str, str] = {}

    async def record(self, name: str, holders: Mapping[str, str]) -> HostRecord:
        listed = await self._reader.names(DEVICES)
        await self._read([ReadFile(f"{DEVICES}/{address}/class") for address in listed])
        links = await self._read_links()
        # A modem has a link, but another class.
        parents = {link.pci_address for link in links}
        network = [one for one in listed if one in parents or self._text(f"{DEVICES}/{one}/class").startswith(_NETWORK_CLASS)]
        await self._read([op for one in network for op in _device_reads(one)])
        await self._read([op for one in network for op in self._further_reads(one)])
        groups = sorted({number for one in network if (number := self._group(one)) is not None})
        await self._read([op for number in groups for op in _group_reads(number)])
        members = {number: self._names(f"/sys/kernel/iommu_groups/{number}/devices") for number in groups}
        others = sorted({one for found in members.values() for one in found if is_pci_address(one)} - set(network))
        await self._read([op for one in others for op in _device_reads(one)])
        await self._read([op for link in links for op in _link_reads(link)])
        # A function that has disappeared meanwhile has no vendor any more.
        devices = [self._device(one) for one in sorted({*network, *others}) if self._text(f"{DEVICES}/{one}/vendor")]
        drivers = {one.driver for one in devices if one.driver and one.driver != _VFIO}
        drivers |= {known.vf_driver for one in devices if (known := model_of(one.vendor, one.device)) and known.vf_driver}
        modules = sorted({*MODULES, *(driver.replace("-", "_") for driver in drivers)})
        await self._read([op for module in modules for op in _module_reads(module)])
        await self._read(_MACHINE_READS)
        return HostRecord(
            api_version=RECORD_VERSION,
            kind="HostRecord",
            metadata=Metadata(name=name),
            host=self._host(modules),
            pci_devices=tuple(devices),
            links=tuple(self._link(link) for link in sorted(links, key=lambda link: link.index)),
            iommu_groups=tuple(self._iommu_group(number, found) for number, found in members.items()),
            holders=await self._holders(holders),
            owners=await self._owners(devices, links),
            errors=self._errors,
        )

    async def _read(self, ops: Sequence[Op]) -> None:
        for start in range(0, len(ops), _BATCH):
            batch = ops[start : start + _BATCH]
            self._answers |= dict(zip(batch, await self._reader.attempt(batch), strict=True))

    def _text(self, path: str) -> str:
        found = self._answers.get(ReadFile(path))
        return found.strip() if isinstance(found, str) else ""

    def _number(self, path: str, least: int = 0) -> int | None:
        return read_integer(self._text(path), least, _LARGEST)

    def _names(self, path: str) -> tuple[str, ...]:
        found = self._answers.get(ListDir(path))
        return tuple(map(str, found)) if isinstance(found, tuple) else ()

    def _target(self, path: str) -> str:
        found = self._answers.get(ReadLink(path))
        return found.rsplit("/", 1)[-1] if isinstance(found, str) else ""

    def _fault(self, op: Op) -> OSError | None:
        found = self._answers.get(op)
        return found if isinstance(found, OSError) and not is_absent(found) else None

    def _group(self, address: str) -> int | None:
        return read_integer(self._target(f"{DEVICES}/{address}/iommu_group"), 0, _LARGEST)

    def _further_reads(self, address: str) -> list[Op]:
        path = f"{DEVICES}/{address}"
        virtfns = virtfn_entries(self._names(path))
        vfio = [ReadFile(f"{path}/vfio-dev/{name}/dev") for name in self._names(f"{path}/vfio-dev")]
        return [*(ReadLink(f"{path}/{entry}") for entry in virtfns), *vfio]

    def _device(self, address: str) -> PciDevice:
        path = f"{DEVICES}/{address}"
        fault = self._fault(ListDir(path))
        if fault is not None:
            self._errors[f"device:{address}"] = errno_name(fault)
        driver = self._target(f"{path}/driver") if self._fault(ReadLink(f"{path}/driver")) is None else None
        enabled = self._number(f"{path}/enable")
        entries = virtfn_entries(self._names(path))
        vfs = [vf for entry in entries if is_pci_address(vf := self._target(f"{path}/{entry}"))]
        names = self._names(f"{path}/vfio-dev")
        sriov = self._sriov(path)
        return PciDevice(
            address=address,
            vendor=self._text(f"{path}/vendor").removeprefix("0x"),
            device=self._text(f"{path}/device").removeprefix("0x"),
            class_=self._text(f"{path}/class").removeprefix("0x"),
            driver=driver,
            numa_node=self._number(f"{path}/numa_node", -1),
            iommu_group=self._group(address),
            physical_function=self._target(f"{path}/physfn") or None,
            # `enable` counts the openers of a function on vfio-pci. With a kernel driver it is always 1.
            held=enabled > 0 if driver == _VFIO and enabled is not None else None,
            unassigned_vf_space=has_unassigned_vf_space(self._text(f"{path}/resource")),
            vfio_device=next((name for name in names if self._text(f"{path}/vfio-dev/{name}/dev")), None),
            sriov=sriov,
            virtual_functions=tuple(vfs) if sriov is not None else None,
            eswitch_mode=self._eswitch_mode(address),
        )

    def _eswitch_mode(self, address: str) -> str | None:
        found = self._noted(ReadEswitchMode(address), f"eswitch:{address}")
        return found if isinstance(found, str) and found else None

    def _noted(self, op: Op, name: str) -> Value:
        """Return an answer, or None after noting in `errors` what the kernel refused."""
        found = self._answers.get(op)
        if isinstance(found, OSError):
            if not is_absent(found):
                self._errors[name] = errno_name(found)
            return None
        return found

    def _sriov(self, path: str) -> Sriov | None:
        if not any(name.startswith("sriov_") for name in self._names(path)):
            return None
        autoprobe = self._text(f"{path}/sriov_drivers_autoprobe")
        return Sriov(
            total_vfs=self._number(f"{path}/sriov_totalvfs"),
            num_vfs=self._number(f"{path}/sriov_numvfs"),
            drivers_autoprobe=autoprobe != "0" if autoprobe else None,
            offset=self._number(f"{path}/sriov_offset"),
            stride=self._number(f"{path}/sriov_stride"),
            vf_device=self._text(f"{path}/sriov_vf_device") or None,
        )

    def _iommu_group(self, number: int, members: Sequence[str]) -> IommuGroup:
        fault = self._fault(ListDir(f"/sys/kernel/iommu_groups/{number}/devices"))
        if fault is not None:
            self._errors[f"group:{number}"] = errno_name(fault)
            members = self._answers_of_group(number)
        path = f"/sys/kernel/iommu_groups/{number}/reserved_regions"
        known = isinstance(self._answers.get(ReadFile(path)), str)
        # A line is `0xSTART 0xEND TYPE`.
        regions = [line.split() for line in self._text(path).splitlines()]
        found = (f"{_hex(one[0])}-{_hex(one[1])} {one[2]}" for one in regions if len(one) == 3)
        devices = tuple(one for one in members if is_pci_address(one))
        return IommuGroup(id=number, devices=devices, reserved_regions=tuple(found) if known else None)

    def _answers_of_group(self, number: int) -> list[str]:
        """Return the functions that are known to be in a group whose members cannot be listed."""
        ends = (op for op, found in self._answers.items() if isinstance(op, ReadLink) and op.path.endswith("/iommu_group"))
        return sorted(op.path.split("/")[-2] for op in ends if self._target(op.path) == str(number))

    async def _read_links(self) -> tuple[LinkInfo, ...]:
        try:
            return await self._reader.links()
        except OSError as error:
            self._errors["links"] = errno_name(error)
            return ()

    def _link(self, link: LinkInfo) -> LinkRecord:
        path = f"/sys/class/net/{link.name}"
        channels = self._answers.get(ReadChannels(link.name))
        vfs = self._noted(ReadVfs(link.name), f"vfs:{link.name}")
        filters = self._noted(ReadUnicast(link.name), f"unicast:{link.name}")
        return LinkRecord(
            index=link.index,
            name=link.name,
            type=_link_type(link.type),
            phys_port_name=link.phys_port_name,
            phys_switch_id=link.phys_switch_id,
            dev_port=link.dev_port or self._number(f"{path}/dev_port") or 0,
            unicast_addresses=tuple(map(str, filters)) if isinstance(filters, tuple) else (),
            promiscuity=link.promiscuity,
            kind=link.kind,
            lower=link.lower,
            master=link.master,
            parent=link.pci_address,
            alt_names=link.alt_names,
            addresses=link.addresses,
            learned_addresses=link.learnt,
            default_route=link.default_route,
            learned_default_route=link.learnt_route,
            mac=link.mac or None,
            permanent_mac=self._permanent_mac(link),
            mtu=link.mtu,
            up=link.up,
            carrier=link.carrier,
            speed_mbps=read_integer(self._text(f"{path}/speed"), 1, _LARGEST),
            channels=LinkChannels(combined=channels.combined, max_combined=channels.max_combined)
            if isinstance(channels, Channels)
            else None,
            vfs=tuple(_link_vf(one) for one in vfs or () if isinstance(one, VfInfo)) if isinstance(vfs, tuple) else (),
        )

    def _host(self, modules: Sequence[str]) -> HostPart:
        loaded = [
            one for one in modules if self._text(f"/sys/module/{one}/initstate") or self._text(f"/sys/module/{one}/refcnt")
        ]
        misc = {line.split()[-1] for line in self._text("/proc/misc").splitlines() if line.split()}
        there = {module for device, module in _MISC.items() if device in misc}
        there |= {"macvtap"} if isinstance(self._answers.get(ListDir("/sys/class/macvtap")), tuple) else set()
        there |= {"vfio_pci"} if isinstance(self._answers.get(ListDir("/sys/bus/pci/drivers/vfio-pci")), tuple) else set()
        there |= {one for one in modules if isinstance(self._answers.get(ListDir(f"/sys/module/{one}")), tuple)}
        iommus = self._answers.get(ListDir("/sys/class/iommu"))
        is_off = isinstance(iommus, OSError) and iommus.errno == errno.ENOENT
        return HostPart(
            kernel=self._text("/proc/sys/kernel/osrelease") or None,
            architecture=self._text("/proc/sys/kernel/arch") or None,
            iommu=bool(iommus) if isinstance(iommus, tuple) else False if is_off else None,
            boot_id=self._text("/proc/sys/kernel/random/boot_id") or None,
            modules=Modules(loaded=tuple(loaded), built_in=tuple(sorted(there - set(loaded)))),
        )

    async def _holders(self, told: Mapping[str, str]) -> tuple[RecordedHolder, ...]:
        """Return holders that the kubelet reports, and those that files of other programs name."""
        found = (await read_records(self._reader)).holders
        words = {address: text.removeprefix("libvirt ") for address, text in found.items()}
        return tuple(_holder(device, by) for device, by in sorted((words | dict(told)).items()))

    async def _owners(self, devices: Sequence[PciDevice], links: Sequence[LinkInfo]) -> OwnerRecords:
        profiles = await read_profiles(self._reader)
        rules = [f"{_RULES}/{name}" for name in await self._names_of(_RULES) if name.endswith(".rules")]
        pfs = [one for one in devices if one.sriov is not None]
        drivers = sorted({one.driver for one in pfs if one.driver})
        options = {driver: f"{_MODPROBE}/vmnic-{driver}.conf" for driver in drivers}
        claims = {one.address: f"{_OPERATOR}/{one.address}" for one in pfs}
        await self._read([ReadFile(path) for path in (*rules, *options.values(), *claims.values())])
        foreign: dict[str, str] = {}
        for pf in pfs:
            if self._text(claims[pf.address]):
                foreign[pf.address] = "sriov-network-operator"
            elif any(find_manager(profiles, port)[0] for port in self._ports(pf, links)):
                foreign[pf.address] = "NetworkManager"
        return OwnerRecords(
            module_options={
                driver: text.removeprefix(f"options {driver} ")
                for driver, path in options.items()
                if (text := self._text(path))
            },
            foreign=foreign,  # type: ignore[arg-type]
            udev_rules={
                path: address for path in rules if not _pool_of_path(path) and (address := _address_of_rule(self._text(path)))
            },
            own_udev_rules={
                pool: found
                for path in rules
                if (pool := _pool_of_path(path)) and (found := _own_rules(pool, self._text(path), [pf.address for pf in pfs]))
            },
        )

    def _ports(self, pf: PciDevice, links: Sequence[LinkInfo]) -> list[Port]:
        """Return what NetworkManager's profiles compare of the links of a function."""
        own = [link for link in links if link.pci_address == pf.address]
        return [
            Port(name=one.name, mac=self._permanent_mac(one) or "", pci_address=pf.address, driver=pf.driver or "")
            for one in own
        ]

    def _permanent_mac(self, link: LinkInfo) -> str | None:
        # Kernels before 5.6 do not tell it, but mark an address that was not changed.
        is_permanent = self._text(f"/sys/class/net/{link.name}/addr_assign_type") == "0"
        return link.permanent_mac or (link.mac if is_permanent else None) or None

    async def _names_of(self, path: str) -> tuple[str, ...]:
        await self._read([ListDir(path)])
        return self._names(path)


def _holder(device: str, by: str) -> RecordedHolder:
    """Return a holder. The key of a macvtap is its resource and its device ID."""
    resource, slash, name = device.rpartition("/")
    return RecordedHolder(device=name, resource=resource, by=by) if slash else RecordedHolder(device=device, by=by)


def _pool_of_path(path: str) -> str:
    """Return the pool whose file of udev rules has a path, or an empty string for a file of another owner."""
    return pool_of(path.rpartition("/")[2])


def _own_rules(pool: str, text: str, addresses: Sequence[str]) -> tuple[str, ...]:
    """Return vmnic's rules in a file, with the PCI address in place of the pool's name."""
    return tuple(
        f"{address} {rule.removeprefix(f'{pool} ')}" for address in addresses for rule in find_rules(pool, text, address)
    )


def _address_of_rule(text: str) -> str:
    """Return the first PCI address for which udev rules create VFs, or an empty string."""
    for line in text.splitlines():
        found = _ADDRESS.search(line) if "sriov_numvfs" in line and not line.lstrip().startswith("#") else None
        if found is not None:
            return found[0]
    return ""


def _device_reads(address: str) -> list[Op]:
    path = f"{DEVICES}/{address}"
    own = ("vendor", "device", "class", "numa_node", "enable", "resource")
    sriov = ("totalvfs", "numvfs", "drivers_autoprobe", "offset", "stride", "vf_device")
    files = (*own, *(f"sriov_{name}" for name in sriov))
    return [
        *(ListDir(one) for one in (path, f"{path}/vfio-dev")),
        *(ReadFile(f"{path}/{name}") for name in files),
        *(ReadLink(f"{path}/{name}") for name in ("driver", "iommu_group", "physfn")),
        ReadEswitchMode(address),
    ]


def _group_reads(number: int) -> list[Op]:
    path = f"/sys/kernel/iommu_groups/{number}"
    return [ListDir(f"{path}/devices"), ReadFile(f"{path}/reserved_regions")]


def _link_reads(link: LinkInfo) -> list[Op]:
    files = [ReadFile(f"/sys/class/net/{link.name}/{name}") for name in ("speed", "addr_assign_type", "dev_port")]
    name = link.name
    return [*files, ReadChannels(name), ReadVfs(name), ReadUnicast(name)] if link.pci_address is not None else []


def _module_reads(name: str) -> list[Op]:
    path = f"/sys/module/{name}"
    return [ListDir(path), ReadFile(f"{path}/initstate"), ReadFile(f"{path}/refcnt")]


_MACHINE_READS: Final[tuple[Op, ...]] = (
    ReadFile("/proc/sys/kernel/osrelease"),
    ReadFile("/proc/sys/kernel/arch"),
    ReadFile("/proc/sys/kernel/random/boot_id"),
    ReadFile("/proc/misc"),
    ListDir("/sys/class/iommu"),
    ListDir("/sys/class/macvtap"),
    ListDir("/sys/bus/pci/drivers/vfio-pci"),
)


def _hex(text: str) -> str:
    """Return a hexadecimal number without its prefix and leading zeros."""
    return text.removeprefix("0x").lstrip("0") or "0"


def _link_type(found: str | None) -> Literal["ether", "infiniband"] | int | None:
    words: dict[str, Literal["ether", "infiniband"]] = {"ether": "ether", "infiniband": "infiniband"}
    return words.get(found or "") or read_integer(found or "", 0, 65_535)


def _link_vf(one: VfInfo) -> LinkVf:
    return LinkVf(
        index=one.vf,
        mac=one.mac or None,
        vlan=one.vlan,
        vlan_qos=one.qos,
        vlan_protocol=one.vlan_protocol,
        link_state=one.link_state,
        trust=one.trust,
        spoof_check=one.spoof_check,
        min_tx_rate_mbps=one.min_tx_rate_mbit,
        max_tx_rate_mbps=one.max_tx_rate_mbit,
    )
