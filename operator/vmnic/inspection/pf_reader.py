"""Observation of one PF with its VFs.

It takes four or five round trips to the host, however many VFs there are.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..api.node_state import VFIO
from ..checked.devices import is_pci_address
from ..checked.quantities import read_integer
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
from ..nodes.nics import model_of
from ..nodes.observed import ETHERNET, ObservedPf, ObservedVf, VfAttributes
from .errno_hints import describe_errno, errno_name
from .function_links import FunctionLinks, describe_learnt_uses, describe_uses, find_function_links, find_unexplained
from .iommu_groups import read_groups
from .networkmanager import Port, Profiles, find_manager
from .pci_files import has_unassigned_vf_space, virtfn_entries, virtfn_index
from .sysfs import DEVICES, PCI_ADDRESS, SysfsReader, is_absent
from .udev_rules import UdevRules, find_rule_owner, own_rules

__all__ = ["read_pf"]

_DRIVERS = "/sys/bus/pci/drivers"
_LARGEST = 2**31 - 1
_NOT_ASKED = Profiles()
_NO_RULES = UdevRules()
_OPERATOR = "/etc/sriov-operator/pci"


async def read_pf(
    reader: SysfsReader,
    address: str,
    links: Sequence[LinkInfo],
    profiles: Profiles = _NOT_ASKED,
    rules: UdevRules = _NO_RULES,
) -> ObservedPf:
    """Read one PF with its VFs.

    Args:
        reader: A reader in a session of its own, because a PF that hangs must not affect others.
        address: PCI address of the PF.
        links: All links of the host's network namespace.
        profiles: NetworkManager's profiles of the node. Left out if the owner does not matter.
        rules: Rules of udev on the node.

    Raises:
        OSError: The PF cannot be read.
        OperationTimedOutError: The PF did not answer.
    """
    own = _Answers(await reader.all(list(_own_reads(address))))
    entries = own.names(f"{DEVICES}/{address}")
    virtfns = virtfn_entries(entries)
    names = own.names(f"{DEVICES}/{address}/net")
    there = find_function_links(address, names, links)
    link = there.uplink
    # A link that sysfs shows and the dump did not has come in between.
    name = link.name if link is not None else next(iter(set(names) - {one.name for one in there.all}), "")
    more = _Answers(await reader.all(list(_further_reads(address, name, own, virtfns))))
    # A PF that goes while it is read must not look like one without SR-IOV.
    more.needed(f"{DEVICES}/{address}/vendor")
    vf_addresses = {entry: more.link(f"{DEVICES}/{address}/{entry}") for entry in virtfns}
    # A VF that goes between two reads must not look like a PF with fewer VFs.
    gone = next((entry for entry, vf in vf_addresses.items() if not is_pci_address(vf)), "")
    if gone:
        raise OSError(errno.ENODEV, f"{gone} of {address} disappeared while it was read")
    functions = _Answers(await reader.all([op for one in (address, *vf_addresses.values()) for op in _function_reads(one)]))
    cdevs = _Answers(
        await reader.all([ReadFile(path) for one in (address, *vf_addresses.values()) for path in _cdevs(functions, one)])
    )
    own_functions = (address, *vf_addresses.values())
    drivers = {one: functions.link(f"{DEVICES}/{one}/driver") for one in own_functions}
    groups = await read_groups(reader, _members(functions, own_functions), drivers)
    vf_links = {vf: find_function_links(vf, functions.names(f"{DEVICES}/{vf}/net"), links) for vf in vf_addresses.values()}
    details = await _read_details(reader, address, there, vf_links.values())
    numbers = {vf: virtfn_index(entry) for entry, vf in vf_addresses.items()}
    vfs = tuple(
        _vf(functions, cdevs, index, vf, details, vf_links[vf].all, there.representors_of(index), links)
        for vf, index in numbers.items()
    )
    # With its VF removed, a representor disappears as well. Others stand for parts of the NIC that vmnic does not manage.
    beside = there.representors_beside(numbers.values())
    path, channels = f"{DEVICES}/{address}", more.channels(link.name) if link is not None else None
    driver = functions.link(f"{path}/driver")
    vendor, device = (own.needed(f"{path}/{one}").removeprefix("0x") for one in ("vendor", "device"))
    macs = {name: _permanent_mac(more, link)} | {port.name: port.permanent_mac or "" for port in there.ports[1:]}
    ports = [Port(name=one, mac=mac, pci_address=address, driver=driver) for one, mac in macs.items()]
    owner, unknown = _foreign_owner(own, profiles, rules, address, ports)
    known, numa = model_of(vendor, device, driver), read_integer(own.text(f"{path}/numa_node"), 0, _LARGEST)
    return ObservedPf(
        pci_address=address,
        name=name,
        alt_names=there.names,
        vendor=vendor,
        device=device,
        driver=driver,
        held=_is_held(functions, address, driver),
        group=functions.link(f"{path}/iommu_group"),
        vfio_device=_vfio_device(functions, cdevs, address),
        numa_node=numa,
        link_speed_mbps=_speed(more.text(f"/sys/class/net/{name}/speed")),
        mac=link.own_mac if link is not None else "",
        mtu=link.mtu if link is not None else None,
        up=_any(port.up for port in there.ports),
        link_elsewhere=driver not in ("", VFIO) and not name,
        carrier=_any(port.carrier for port in there.ports),
        # One port that is no Ethernet port is enough, because its VFs may be of that port.
        link_type=next((port.type for port in there.ports if port.type not in (None, ETHERNET)), link and link.type) or "",
        ports=tuple(port.name for port in there.ports),
        eswitch_mode=details.eswitch_mode,
        vfs_unknown=details.vfs_unknown,
        queues=channels.combined if channels is not None else None,
        max_queues=channels.max_combined if channels is not None else None,
        module_options=more.text(_options_path(driver)).removeprefix(f"options {driver} ").strip(),
        udev_rules=own_rules(rules, address),
        driver_functions=tuple(one for one in more.names(f"{_DRIVERS}/{driver}") if PCI_ADDRESS.match(one)),
        by_module=known is not None and known.count_by == "parameter",
        unassigned_vf_space=has_unassigned_vf_space(own.text(f"{path}/resource")),
        foreign_owner=owner,
        owner_unknown=unknown,
        total_vfs=own.count(f"{path}/sriov_totalvfs"),
        num_vfs=own.count(f"{path}/sriov_numvfs"),
        # A kernel without the file probes every new VF.
        autoprobe=own.text(f"{path}/sriov_drivers_autoprobe") != "0",
        iommu_groups=groups,
        vfs=vfs,
        host_use=(*describe_uses(there.ports, links), *describe_uses(beside, links, "representor")),
        learnt_use=describe_learnt_uses(there.ports),
        representor_use=describe_uses(beside, links, "representor"),
        unexplained=find_unexplained((*there.ports, *beside), links, details.filters),
    )


def _any(values: Iterable[bool | None]) -> bool | None:
    """Return whether any value is true, or None if none is and one is unknown or there are none."""
    found = list(values)
    return True if True in found else None if None in found or not found else False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Details:
    """Answers to reads whose failure costs no more than what they would have shown."""

    infos: Mapping[int, VfInfo]
    """Attributes of VFs by index."""
    vfs_unknown: str
    """Why the attributes could not be read; empty if they could."""
    eswitch_mode: str
    filters: Mapping[str, tuple[str, ...] | str]
    """Unicast filters by the name of the link, or why they could not be read."""


async def _read_details(reader: SysfsReader, address: str, there: FunctionLinks, of_vfs: Iterable[FunctionLinks]) -> _Details:
    vfs = [ReadVfs(port.name) for port in there.ports[:1]]
    modes = [ReadEswitchMode(address)]
    filters = [ReadUnicast(link.name) for links in (there, *of_vfs) for link in links.all]
    ops: list[Op] = [*vfs, *modes, *filters]
    answers = dict(zip(ops, await reader.attempt(ops), strict=True))
    listed = next((answers[op] for op in vfs), None)
    mode = answers[modes[0]]
    refused = isinstance(listed, OSError) and not is_absent(listed)
    return _Details(
        infos={info.vf: info for info in listed if isinstance(info, VfInfo)} if isinstance(listed, tuple) else {},
        vfs_unknown=describe_errno(listed) if isinstance(listed, OSError) and refused else "",
        # Without a mode, an unreadable one included, the function counts as one in legacy mode.
        eswitch_mode=mode if isinstance(mode, str) else "",
        filters={op.name: _filter(answers[op]) for op in filters},
    )


def _filter(answer: Value | OSError) -> tuple[str, ...] | str:
    if isinstance(answer, OSError):
        return errno_name(answer)
    return tuple(mac for mac in answer if isinstance(mac, str)) if isinstance(answer, tuple) else ()


def _own_reads(address: str) -> Iterator[Op]:
    path = f"{DEVICES}/{address}"
    yield ListDir(path)
    yield ListDir(f"{path}/net")
    yield from (ReadFile(f"{path}/{name}") for name in ("vendor", "device", "numa_node", "resource", "sriov_totalvfs"))
    yield from (ReadFile(f"{path}/{name}") for name in ("sriov_numvfs", "sriov_drivers_autoprobe"))
    yield from (ReadLink(f"{path}/{name}") for name in ("driver", "iommu_group"))
    yield ReadFile(f"{_OPERATOR}/{address}")


def _further_reads(address: str, name: str, own: _Answers, virtfns: Sequence[str]) -> Iterator[Op]:
    path = f"{DEVICES}/{address}"
    yield ReadFile(f"{path}/vendor")
    yield from (ReadLink(f"{path}/{entry}") for entry in virtfns)
    if name:
        yield from (ReadFile(f"/sys/class/net/{name}/{one}") for one in ("speed", "addr_assign_type"))
        yield ReadChannels(name)
    if driver := own.link(f"{path}/driver"):
        yield ReadFile(_options_path(driver))
        yield ListDir(f"{_DRIVERS}/{driver}")


def _function_reads(address: str) -> Iterator[Op]:
    """Yield the reads that show which driver a PF or VF has, and whether a process has it open."""
    path = f"{DEVICES}/{address}"
    yield from (ReadLink(f"{path}/{name}") for name in ("driver", "iommu_group"))
    yield ReadFile(f"{path}/enable")
    yield from (ListDir(f"{path}/{name}") for name in ("net", "vfio-dev", "iommu_group/devices"))


def _members(functions: _Answers, addresses: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the names of the devices in the IOMMU groups of these functions, by group number."""
    paths = {address: f"{DEVICES}/{address}/iommu_group" for address in addresses}
    return {number: functions.names(f"{path}/devices") for path in paths.values() if (number := functions.link(path))}


def _cdevs(functions: _Answers, address: str) -> Iterator[str]:
    path = f"{DEVICES}/{address}/vfio-dev"
    yield from (f"{path}/{name}/dev" for name in functions.names(path))


@dataclass(frozen=True, slots=True)
class _Answers:
    """The host's answers by operation, where an absent file is empty."""

    by_op: Mapping[Op, Value]

    def text(self, path: str) -> str:
        return str(self.by_op.get(ReadFile(path)) or "").strip()

    def needed(self, path: str) -> str:
        """Return a file that every function has.

        Raises:
            FileNotFoundError: The file does not exist, so the function has gone.
        """
        if self.by_op.get(ReadFile(path)) is None:
            raise FileNotFoundError(2, f"{path} is not there")
        return self.text(path)

    def count(self, path: str) -> int:
        """Return the number in a file, or 0 without the file.

        A kernel shows no `sriov_*` file of a function without SR-IOV, or whose firmware has switched it off. A device that is
        being removed may answer with an empty file.

        Raises:
            OSError: The file holds no number.
        """
        if self.by_op.get(ReadFile(path)) is None:
            return 0
        found = read_integer(self.text(path), 0, _LARGEST)
        if found is None:
            raise OSError(errno.EIO, f"{path} holds no number")
        return found

    def names(self, path: str) -> tuple[str, ...]:
        found = self.by_op.get(ListDir(path))
        return tuple(str(name) for name in found) if isinstance(found, tuple) else ()

    def link(self, path: str) -> str:
        return str(self.by_op.get(ReadLink(path)) or "").rsplit("/", 1)[-1]

    def channels(self, name: str) -> Channels | None:
        found = self.by_op.get(ReadChannels(name))
        return found if isinstance(found, Channels) else None


def _vf(
    functions: _Answers,
    cdevs: _Answers,
    index: int,
    address: str,
    details: _Details,
    own: Sequence[LinkInfo],
    representors: Sequence[LinkInfo],
    links: Sequence[LinkInfo],
) -> ObservedVf:
    used = (*describe_uses(own, links), *describe_uses(representors, links, "representor"))
    driver = functions.link(f"{DEVICES}/{address}/driver")
    return ObservedVf(
        index=index,
        pci_address=address,
        driver=driver,
        held=bool(used) or _is_held(functions, address, driver) or _is_elsewhere(functions, address, driver),
        host_use=used,
        group=functions.link(f"{DEVICES}/{address}/iommu_group"),
        vfio_device=_vfio_device(functions, cdevs, address),
        attributes=_attributes(details.infos[index]) if index in details.infos else None,
        unexplained=find_unexplained((*own, *representors), links, details.filters),
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


def _is_held(functions: _Answers, address: str, driver: str) -> bool:
    """Return whether a process has a function on vfio-pci open.

    `enable` counts the openers of such a function. With a kernel driver it is always 1.
    """
    return driver == VFIO and functions.text(f"{DEVICES}/{address}/enable") not in ("", "0")


def _is_elsewhere(functions: _Answers, address: str, driver: str) -> bool:
    """Return whether the link of a function is in another network namespace.

    A network driver creates a link. If it is not in the host's namespace, it is in a pod's.
    """
    return driver not in ("", VFIO) and not functions.names(f"{DEVICES}/{address}/net")


def _vfio_device(functions: _Answers, cdevs: _Answers, address: str) -> str:
    """Return the VFIO character device of a function.

    Only kernels with VFIO_DEVICE_CDEV give it a device number.
    """
    path = f"{DEVICES}/{address}/vfio-dev"
    return next((name for name in functions.names(path) if cdevs.text(f"{path}/{name}/dev")), "")


def _speed(text: str) -> int | None:
    """Return the link speed in Mbit/s, or None while the link is down.

    The kernel then answers EINVAL or -1.
    """
    return read_integer(text, 1, _LARGEST)


def _options_path(driver: str) -> str:
    """Return the file with vmnic's options for a driver (see modprobe.d(5))."""
    return f"/etc/modprobe.d/vmnic-{driver}.conf"


def _foreign_owner(own: _Answers, profiles: Profiles, rules: UdevRules, address: str, ports: Iterable[Port]) -> tuple[str, str]:
    """Return which other program manages a PF's VFs, and what could not be read about that.

    Each is empty if there is none.
    """
    if own.text(f"{_OPERATOR}/{address}"):
        return f"sriov-network-operator ({_OPERATOR}/{address})", ""
    making = [find_rule_owner(rules, port) for port in ports]
    path, unread = (next(filter(None, words), "") for words in zip(*making, strict=True)) if making else ("", "")
    if path or unread:
        return (f"a rule of udev ({path})" if path else ""), unread
    # NetworkManager manages no function without a link here.
    claims = [find_manager(profiles, port) for port in ports if port.name]
    found, unknown = (next(filter(None, words), "") for words in zip(*claims, strict=True)) if claims else ("", "")
    return (f"NetworkManager or nmstate ({found})" if found else ""), unknown


def _permanent_mac(more: _Answers, link: LinkInfo | None) -> str:
    """Return the MAC address of the NIC itself, or an empty string if it is unknown.

    Kernels before 5.6 do not tell it (IFLA_PERM_ADDRESS), but mark an address that was not changed (NET_ADDR_PERM).
    """
    if link is not None and link.permanent_mac:
        return link.permanent_mac
    is_permanent = link is not None and more.text(f"/sys/class/net/{link.name}/addr_assign_type") == "0"
    return (link.mac or "") if link is not None and is_permanent else ""
