"""What the host says now. "Cannot read" is never "absent": a function that does not answer is reported as unreadable.

Each physical function is read in a session of its own, so one that hangs in the kernel harms no other.
"""

from __future__ import annotations

import configparser
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ..host.client import HostAccess, OperationTimedOutError
from ..host.ops import LinkInfo, VfInfo
from ..nodes.nics import model_of
from ..nodes.observed import ObservedPf, ObservedVf, VfAttributes
from ..nodes.state import HostFacts
from .modules import MODULES
from .reader import DEVICES, Reader
from .records import read_records

__all__ = ["Observation", "observe_host", "read_pf"]

_NETWORK_CLASS = "0x02"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One look at the host."""

    boot_id: str
    host: HostFacts
    pfs: tuple[ObservedPf, ...]
    records: Mapping[str, str] = field(default_factory=dict)
    """Who holds which function, as files of other programs tell."""
    unreadable: dict[str, OperationTimedOutError | OSError] = field(default_factory=dict)
    """Functions that did not answer, by PCI address."""


async def observe_host(host: HostAccess, *, leave_out: Collection[str]) -> Observation:
    """Look at everything that decisions need.

    Args:
        host: The node.
        leave_out: Functions with a call in the kernel that has not returned: a further read would hang too.

    Raises:
        OSError: the host as such cannot be read.
        OperationTimedOutError: likewise.
    """
    async with host.session("observe", write=False) as session:
        reader = Reader(session)
        boot_id = await reader.text("/proc/sys/kernel/random/boot_id")
        facts = await _host_facts(reader)
        addresses = await _find_pfs(reader)
        links = await reader.links()
        records = await read_records(reader)
    pfs, unreadable = [], {}
    for address in addresses:
        if address in leave_out:
            continue
        try:
            async with host.session(address, write=False) as session:
                pfs.append(await read_pf(Reader(session), address, links))
        except (OperationTimedOutError, OSError) as error:
            unreadable[address] = error
    return Observation(boot_id=boot_id, host=facts, pfs=tuple(pfs), records=records, unreadable=unreadable)


async def _host_facts(reader: Reader) -> HostFacts:
    modules = [name for name in MODULES if await reader.names(f"/sys/module/{name}")]
    return HostFacts(
        kernel=await reader.text("/proc/sys/kernel/osrelease"),
        iommu=await _or_unknown(lambda: reader.names("/sys/class/iommu")),
        modules=tuple(modules),
    )


async def _or_unknown(read: Callable[[], Awaitable[Sequence[str]]]) -> bool | None:
    try:
        return bool(await read())
    except OSError:
        return None


async def _find_pfs(reader: Reader) -> list[str]:
    """Find the network functions that can have VFs; their VFs have no `sriov_totalvfs`."""
    found = []
    for address in await reader.names(DEVICES):
        kind = await reader.optional_text(f"{DEVICES}/{address}/class")
        if kind and kind.startswith(_NETWORK_CLASS):
            total = await reader.optional_text(f"{DEVICES}/{address}/sriov_totalvfs")
            if total is not None:
                found.append(address)
    return found


async def read_pf(reader: Reader, address: str, links: Sequence[LinkInfo]) -> ObservedPf:
    """Read one physical function with its VFs.

    Raises:
        OSError: it cannot be read.
        OperationTimedOutError: it did not answer.
    """
    path = f"{DEVICES}/{address}"
    link = next((link for link in links if link.pci_address == address), None)
    name = link.name if link is not None else next(iter(await reader.names(f"{path}/net")), "")
    numa = int(await reader.optional_text(f"{path}/numa_node") or -1)
    entries = await reader.names(path)
    infos = {info.vf: info for info in link.vfs} if link is not None else {}
    vfs = [await _read_vf(reader, path, entry, infos) for entry in entries if entry.startswith("virtfn")]
    channels = await reader.channels(link.name) if link is not None else None
    driver = await reader.link_name(f"{path}/driver")
    vendor, device = [(await reader.text(f"{path}/{name}")).removeprefix("0x") for name in ("vendor", "device")]
    known = model_of(vendor, device)
    return ObservedPf(
        pci_address=address,
        name=name,
        alt_names=link.alt_names if link is not None else (),
        vendor=vendor,
        device=device,
        driver=driver,
        held=await _is_held(reader, address, driver),
        group=await reader.link_name(f"{path}/iommu_group"),
        vfio_device=await _vfio_device(reader, address, driver),
        numa_node=numa if numa >= 0 else None,
        link_speed_mbps=await _speed(reader, name),
        mac=link.mac if link is not None else "",
        mtu=link.mtu if link is not None else None,
        up=link.up if link is not None else None,
        queues=channels.combined if channels is not None else None,
        max_queues=channels.max_combined if channels is not None else None,
        module_options=await _module_options(reader, driver),
        by_module=known is not None and known.vfs_by == "module",
        unassigned_vf_space=_has_unassigned_space(await reader.optional_text(f"{path}/resource") or ""),
        foreign_owner=await _foreign_owner(reader, address, name),
        total_vfs=int(await reader.text(f"{path}/sriov_totalvfs")),
        num_vfs=int(await reader.text(f"{path}/sriov_numvfs")),
        autoprobe=await reader.optional_text(f"{path}/sriov_drivers_autoprobe") != "0",
        shares_iommu_group=await _shares_group(reader, path, address, {vf.pci_address for vf in vfs}),
        vfs=tuple(sorted(vfs, key=lambda vf: vf.index)),
        host_use=_host_use(link, links),
    )


async def _module_options(reader: Reader, driver: str) -> str:
    """Read what vmnic's own file tells the driver when it is loaded; see `options` in modprobe.d(5)."""
    text = await reader.optional_text(f"/etc/modprobe.d/vmnic-{driver}.conf") if driver else None
    return (text or "").removeprefix(f"options {driver} ").strip()


async def _read_vf(reader: Reader, path: str, entry: str, infos: Mapping[int, VfInfo]) -> ObservedVf:
    address = await reader.link_name(f"{path}/{entry}")
    driver = await reader.link_name(f"{DEVICES}/{address}/driver")
    index = int(entry.removeprefix("virtfn"))
    return ObservedVf(
        index=index,
        pci_address=address,
        driver=driver,
        held=await _is_held(reader, address, driver) or await _is_elsewhere(reader, address, driver),
        group=await reader.link_name(f"{DEVICES}/{address}/iommu_group"),
        vfio_device=await _vfio_device(reader, address, driver),
        attributes=_attributes(infos[index]) if index in infos else None,
    )


def _attributes(info: VfInfo) -> VfAttributes:
    return VfAttributes(
        mac=info.mac,
        vlan=info.vlan,
        qos=info.qos,
        spoof_check=info.spoof_check,
        trust=info.trust,
        link_state=info.link_state,
        min_tx_rate_mbit=info.min_tx_rate_mbit,
        max_tx_rate_mbit=info.max_tx_rate_mbit,
    )


async def _is_elsewhere(reader: Reader, address: str, driver: str) -> bool:
    """A network driver makes a link; one that is not in the host's namespace is in a pod's."""
    return driver not in ("", "vfio-pci") and not await reader.names(f"{DEVICES}/{address}/net")


_UNSET = 0x20000000
"""IORESOURCE_UNSET of linux/ioport.h: the window has no address."""
_VF_WINDOWS = slice(7, 13)
"""Lines of `resource` after six BARs and the ROM (PCI_IOV_RESOURCES)."""


def _has_unassigned_space(resource: str) -> bool:
    """Read a function's `resource`: each line has start, end and flags of a window."""
    return any(int(line.split()[2], 16) & _UNSET for line in resource.splitlines()[_VF_WINDOWS])


async def _foreign_owner(reader: Reader, address: str, name: str) -> str:
    """Say which other program manages a function's VFs, as far as its own files tell."""
    if await reader.optional_text(f"/etc/sriov-operator/pci/{address}"):
        return f"sriov-network-operator (/etc/sriov-operator/pci/{address})"
    for directory in _PROFILES:
        for file in await reader.names(directory):
            text = await reader.optional_text(f"{directory}/{file}") or ""
            if file.endswith(".nmconnection") and _configures_sriov(text, name):
                return f"NetworkManager or nmstate ({directory}/{file})"
    return ""


_PROFILES = ("/etc/NetworkManager/system-connections", "/run/NetworkManager/system-connections")


def _configures_sriov(profile: str, name: str) -> bool:
    """Whether a NetworkManager profile makes VFs of this link; nmstate writes such ones."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(profile)
    except configparser.Error:
        return False
    return bool(name) and parser.has_section("sriov") and parser.get("connection", "interface-name", fallback="") == name


async def _is_held(reader: Reader, address: str, driver: str) -> bool:
    """`enable` counts openers of a function that vfio-pci drives; with a kernel driver it is 1 all the time."""
    return driver == "vfio-pci" and await reader.optional_text(f"{DEVICES}/{address}/enable") not in (None, "0")


async def _vfio_device(reader: Reader, address: str, driver: str) -> str:
    """Name the character device of a function on vfio-pci; only kernels with VFIO_DEVICE_CDEV give it a device number."""
    for name in await reader.names(f"{DEVICES}/{address}/vfio-dev") if driver == "vfio-pci" else ():
        if await reader.optional_text(f"{DEVICES}/{address}/vfio-dev/{name}/dev") is not None:
            return name
    return ""


async def _speed(reader: Reader, name: str) -> int | None:
    """Read the link speed in Mbit/s; the kernel answers EINVAL or -1 while the link is down."""
    text = await reader.optional_text(f"/sys/class/net/{name}/speed") if name else None
    return int(text) if text and int(text) > 0 else None


async def _shares_group(reader: Reader, path: str, address: str, vfs: set[str]) -> bool:
    members = set(await reader.names(f"{path}/iommu_group/devices"))
    return bool(members - vfs - {address})


def _host_use(link: LinkInfo | None, links: Sequence[LinkInfo]) -> tuple[str, ...]:
    """Say what the host itself uses a link for."""
    if link is None:
        return ()
    found = [f"address {address}" for address in link.addresses]
    if link.default_route:
        found.append("default route")
    names = {other.index: other.name for other in links}
    if link.master is not None:
        found.append(f"place in {names.get(link.master, 'an upper device')}")
    found += [f"{upper.kind or 'upper'} device {upper.name}" for upper in links if upper.lower == link.index and upper.kind]
    return tuple(found)
