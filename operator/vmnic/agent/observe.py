"""What the host says now. "Cannot read" is never "absent": a function that does not answer is reported as unreadable.

Each physical function is read in a session of its own, so one that hangs in the kernel harms no other.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import cast

from ..host.client import HostAccess, OperationTimedOutError, Session
from ..host.ops import LinkInfo, ListDir, ReadFile, ReadLink, ReadLinks
from ..nodes.observed import ObservedPf, ObservedVf
from ..nodes.state import HostFacts

__all__ = ["DEVICES", "Observation", "Reader", "observe_host", "read_pf"]

DEVICES = "/sys/bus/pci/devices"
_READ_S = 5.0
"""A sysfs read takes microseconds; one that takes this long is stuck."""
_NETWORK_CLASS = "0x02"
_MODULES = ("vhost_net", "tun", "macvtap", "vfio_pci")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One look at the host."""

    boot_id: str
    host: HostFacts
    pfs: tuple[ObservedPf, ...]
    unreadable: dict[str, OperationTimedOutError | OSError] = field(default_factory=dict)
    """Functions that did not answer, by PCI address."""


class Reader:
    """Reads of one session, in words of this module."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def text(self, path: str) -> str:
        """Read a file."""
        return str(await self._session.perform(ReadFile(path), deadline_s=_READ_S)).strip()

    async def optional_text(self, path: str) -> str | None:
        """Read a file that need not exist, or that a device may not answer (EINVAL)."""
        try:
            return await self.text(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL, errno.ENODEV):
                return None
            raise

    async def names(self, path: str) -> tuple[str, ...]:
        """List a directory; an absent one is empty."""
        try:
            return cast("tuple[str, ...]", await self._session.perform(ListDir(path), deadline_s=_READ_S))
        except FileNotFoundError:
            return ()

    async def link_name(self, path: str) -> str:
        """Give the last part of a symbolic link's target; empty if there is none."""
        try:
            return str(await self._session.perform(ReadLink(path), deadline_s=_READ_S)).rsplit("/", 1)[-1]
        except FileNotFoundError:
            return ""

    async def links(self) -> tuple[LinkInfo, ...]:
        """Dump the network links."""
        return cast("tuple[LinkInfo, ...]", await self._session.perform(ReadLinks(), deadline_s=_READ_S))


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
    pfs, unreadable = [], {}
    for address in addresses:
        if address in leave_out:
            continue
        try:
            async with host.session(address, write=False) as session:
                pfs.append(await read_pf(Reader(session), address, links))
        except (OperationTimedOutError, OSError) as error:
            unreadable[address] = error
    return Observation(boot_id=boot_id, host=facts, pfs=tuple(pfs), unreadable=unreadable)


async def _host_facts(reader: Reader) -> HostFacts:
    modules = [name for name in _MODULES if await reader.names(f"/sys/module/{name}")]
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
    vfs = [await _read_vf(reader, path, entry) for entry in entries if entry.startswith("virtfn")]
    driver = await reader.link_name(f"{path}/driver")
    return ObservedPf(
        pci_address=address,
        name=name,
        alt_names=link.alt_names if link is not None else (),
        vendor=(await reader.text(f"{path}/vendor")).removeprefix("0x"),
        device=(await reader.text(f"{path}/device")).removeprefix("0x"),
        driver=driver,
        held=await _is_held(reader, address, driver),
        numa_node=numa if numa >= 0 else None,
        link_speed_mbps=await _speed(reader, name),
        mtu=link.mtu if link is not None else None,
        total_vfs=int(await reader.text(f"{path}/sriov_totalvfs")),
        num_vfs=int(await reader.text(f"{path}/sriov_numvfs")),
        autoprobe=await reader.optional_text(f"{path}/sriov_drivers_autoprobe") != "0",
        shares_iommu_group=await _shares_group(reader, path, address, {vf.pci_address for vf in vfs}),
        vfs=tuple(sorted(vfs, key=lambda vf: vf.index)),
        host_use=_host_use(link, links),
    )


async def _read_vf(reader: Reader, path: str, entry: str) -> ObservedVf:
    address = await reader.link_name(f"{path}/{entry}")
    driver = await reader.link_name(f"{DEVICES}/{address}/driver")
    held = await _is_held(reader, address, driver)
    return ObservedVf(index=int(entry.removeprefix("virtfn")), pci_address=address, driver=driver, held=held)


async def _is_held(reader: Reader, address: str, driver: str) -> bool:
    """`enable` counts openers of a function that vfio-pci drives; with a kernel driver it is 1 all the time."""
    return driver == "vfio-pci" and await reader.optional_text(f"{DEVICES}/{address}/enable") not in (None, "0")


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
