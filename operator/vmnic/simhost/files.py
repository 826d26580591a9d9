"""The machine's /sys, /proc and /dev, as the kernel shows them."""

from __future__ import annotations

import errno
import re
from collections.abc import Generator, Iterable, Mapping
from typing import Any

from .kernel import Kernel, refuse
from .model import Device, Machine, Pf, Vf
from .spec import profiles
from .tree import Directory, File, Link, Node, constant

__all__ = ["FileTree"]

_ROOT = "pci0000:00"
_MSI = ("fee00000-feefffff msi",)
"""Reserved region of every group on x86 (intel_iommu_get_resv_regions)."""


class FileTree:
    """Builds the tree of one machine."""

    def __init__(self, machine: Machine, kernel: Kernel) -> None:
        self._machine = machine
        self._kernel = kernel
        self._own = self._own_files()

    def root(self) -> Directory:
        """Return the root directory."""
        return Directory(
            lambda: self._own | self._other_files(), lambda name: self._own.get(name) or self._other_files().get(name)
        )

    def _own_files(self) -> dict[str, Node]:
        """Return the kernel's files, whose content is computed when it is read."""
        return {
            "sys": _directory(
                bus=_directory(pci=Directory(self._bus)),
                devices=Directory(lambda: {_ROOT: Directory(self._functions, self._find_function)}),
                kernel=_directory(iommu_groups=Directory(self._groups)),
                module=Directory(lambda: {name: _directory(refcnt=constant("0")) for name in self._machine.shown_modules()}),
                **{"class": Directory(self._classes)},
            ),
            "proc": _directory(
                misc=File(read=self._misc),
                sys=_directory(
                    kernel=_directory(
                        osrelease=constant(self._machine.spec.kernel),
                        random=Directory(lambda: {"boot_id": constant(self._machine.boot_id)}),
                    )
                ),
            ),
            "dev": Directory(self._dev),
        }

    def _other_files(self) -> dict[str, Node]:
        """Return the files of other programs, as nested directories."""
        tree: dict[str, Any] = {}
        for path, text in self._machine.files.items():
            *parents, name = path.strip("/").split("/")
            place = tree
            for parent in parents:
                place = place.setdefault(parent, {})
            place[name] = text
        return {name: _node(part) for name, part in tree.items()}

    def _bus(self) -> Mapping[str, Node]:
        return {
            "devices": Directory(
                lambda: {address: _device_link(address) for address in self._functions()},
                lambda address: _device_link(address) if self._find_function(address) is not None else None,
            ),
            "drivers": Directory(self._drivers),
            "drivers_probe": File(write=self._kernel.probe),
            "rescan": File(write=lambda _: self._kernel.rescan()),
        }

    def _drivers(self) -> Mapping[str, Node]:
        native = {
            name
            for profile in (*profiles().values(), *self._machine.spec.profiles.values())
            for name in (profile.driver, profile.vf_driver)
        }
        names = native & self._machine.modules
        names |= {"vfio-pci"} if "vfio_pci" in self._machine.modules else set()
        names |= {one.driver for one in self._machine.devices.values() if one.driver}
        return {name: Directory(lambda name=name: self._driver(name)) for name in names}  # type: ignore[misc]

    def _driver(self, name: str) -> Mapping[str, Node]:
        bound = {
            one.address: Link(f"../../../../devices/{_ROOT}/{one.address}")
            for one in self._machine.functions()
            if one.shown_driver == name
        }
        bound |= {
            one.address: Link(f"../../../../devices/{_ROOT}/{one.address}")
            for one in self._machine.devices.values()
            if one.driver == name
        }
        return {
            **bound,
            "bind": File(write=lambda address: self._kernel.bind(name, address)),
            "unbind": File(write=lambda address: self._kernel.unbind(name, address)),
        }

    def _functions(self) -> Mapping[str, Node]:
        others = {one.address: Directory(lambda one=one: self._device(one)) for one in self._machine.devices.values()}  # type: ignore[misc]
        return others | {one.address: Directory(lambda one=one: self._function(one)) for one in self._machine.functions()}  # type: ignore[misc]

    def _find_function(self, address: str) -> Node | None:
        other = self._machine.devices.get(address)
        if other is not None:
            return Directory(lambda: self._device(other))
        one = self._machine.find(address)
        return Directory(lambda: self._function(one)) if one is not None else None

    def _device(self, one: Device) -> Mapping[str, Node]:
        """Return the files of a PCI function that is no NIC."""
        entries: dict[str, Node] = {
            "vendor": constant(f"0x{one.spec.vendor}"),
            "device": constant(f"0x{one.spec.device}"),
            "class": constant(f"0x{one.spec.pci_class}"),
            "numa_node": constant("-1"),
        }
        entries |= {"driver": Link(f"../../../bus/pci/drivers/{one.driver}")} if one.driver else {}
        return entries | ({} if one.group is None else {"iommu_group": Link(f"../../../kernel/iommu_groups/{one.group}")})

    def _function(self, one: Pf | Vf) -> Mapping[str, Node]:
        entries: dict[str, Node] = {
            "vendor": constant(f"0x{one.vendor}"),
            "device": constant(f"0x{one.device}"),
            "class": constant(f"0x{one.profile.pci_class if isinstance(one, Pf) else '020000'}"),
            "numa_node": constant(str(one.numa_node)),
            "enable": constant(str(int(_in_use(one)))),
            "power": _directory(runtime_status=constant("suspended" if _sleeps(one) else "active")),
            # The kernel prints a missing override with `%s`, which gives `(null)`.
            "driver_override": File(
                read=constant(one.override or "(null)").read, write=lambda text: self._kernel.write_override(one, text)
            ),
        }
        if one.shown_driver:
            entries["driver"] = Link(f"../../../bus/pci/drivers/{one.driver}")
        if one.group is not None:
            entries["iommu_group"] = Link(f"../../../kernel/iommu_groups/{one.group}")
        if one.driver == "vfio-pci":
            # As in kernels with VFIO_DEVICE_CDEV. Without that option `dev` does not exist.
            number = [other.address for other in self._machine.functions()].index(one.address)
            entries["vfio-dev"] = _directory(**{f"vfio{number}": _directory(dev=constant(f"511:{number}"))})
        if one.net_name:
            # `net` stays while the link is in another network namespace: sysfs shows each namespace its own links.
            here: dict[str, Node] = {} if one.moved else {one.net_name: Directory(lambda: self._net(one))}
            ports = one.ports if isinstance(one, Pf) else []
            here |= {port.name: _directory(address=constant(port.mac), mtu=constant(str(port.mtu))) for port in ports}
            entries["net"] = Directory(lambda: here)
        return entries | (self._pf_entries(one) if isinstance(one, Pf) else self._vf_entries(one))

    def _pf_entries(self, pf: Pf) -> dict[str, Node]:
        # 0x20000000 in the third number is IORESOURCE_UNSET: the firmware gave the window no address.
        unset = "0x0000000000000000 0x0000000000003fff 0x0000000020140204"
        # The first seven lines are the PF's own BARs and ROM, the next six the BARs of its VFs.
        windows = ["0x0 0x0 0x0"] * 7 + [unset if pf.spec.no_vf_space else "0x0 0x0 0x0"] * 6
        entries: dict[str, Node] = {f"virtfn{vf.index}": Link(f"../{vf.address}") for vf in pf.vfs}
        entries["resource"] = constant("\n".join(windows))
        # Without the capability, or with TotalVFs 0, `sriov_init` in drivers/pci/iov.c ends before the function counts as a PF,
        # and `sriov_pf_attrs_are_visible` then shows none of these files.
        if pf.spec.sriov_off or not pf.profile.capability_vfs:
            return entries
        return entries | {
            "sriov_totalvfs": constant(str(pf.total_vfs)),
            "sriov_numvfs": File(
                read=lambda: self._kernel.read_num_vfs(pf), write=lambda text: self._kernel.write_num_vfs(pf, text)
            ),
            "sriov_drivers_autoprobe": File(
                read=constant(str(int(pf.autoprobe))).read, write=lambda text: self._kernel.write_autoprobe(pf, text)
            ),
        }

    def _vf_entries(self, vf: Vf) -> dict[str, Node]:
        return {"physfn": Link(f"../{self._machine.pf_of(vf).address}")}

    def _nets(self) -> Mapping[str, Node]:
        return {
            one.net_name: Link(f"../../devices/{_ROOT}/{one.address}/net/{one.net_name}")
            for one in self._machine.functions()
            if one.net_name and not one.moved
        } | {
            port.name: Link(f"../../devices/{_ROOT}/{pf.address}/net/{port.name}")
            for pf in self._machine.pfs.values()
            for port in pf.ports
        }

    def _net(self, one: Pf | Vf) -> Mapping[str, Node]:
        entries: dict[str, Node] = {"device": Link(f"../../../{one.address}"), "address": constant(one.net_mac)}
        if isinstance(one, Pf):
            carrier = one.has_carrier
            entries |= {
                "mtu": constant(str(one.mtu)),
                "addr_assign_type": constant("0"),
                # Without a carrier igb reports an unknown speed, which sysfs shows as -1.
                "speed": constant(str(one.profile.speed_mbps if carrier else -1)) if one.up else File(read=_not_running),
                "carrier": constant(str(int(carrier))) if one.up else File(read=_not_running),
            }
        else:
            has = self._machine.has_vf_carrier(one)
            entries["carrier"] = constant(str(int(has))) if one.up else File(read=_not_running)
        return entries

    def _groups(self) -> Mapping[str, Node]:
        members: dict[int, dict[str, Node]] = {}
        for one in (*self._machine.functions(), *self._machine.devices.values()):
            if one.group is not None:
                entries = members.setdefault(one.group, {})
                entries[one.address] = Link(f"../../../../devices/{_ROOT}/{one.address}")
        return {
            str(group): _directory(
                devices=Directory(lambda entries=entries: entries),  # type: ignore[misc]
                reserved_regions=constant(_regions(self._machine.regions.get(group, _MSI))),
            )
            for group, entries in members.items()
        }

    def _classes(self) -> Mapping[str, Node]:
        entries: dict[str, Node] = {"net": Directory(self._nets), "iommu": Directory(self._iommus)}
        return entries | ({"macvtap": _directory()} if "macvtap" in self._machine.modules else {})

    def _misc(self) -> Generator[None, None, str]:
        """Return /proc/misc, the numbers and names of devices (misc_seq_show in drivers/char/misc.c)."""
        yield from ()
        names = {"tun": "200 tun", "vhost_net": "238 vhost-net", "vfio_pci": "196 vfio"}
        return "\n".join(["144 nvram", *(line for module, line in names.items() if module in self._machine.modules)])

    def _iommus(self) -> Mapping[str, Node]:
        return {"dmar0": _directory()} if self._machine.spec.iommu else {}

    def _dev(self) -> Mapping[str, Node]:
        groups = {str(one.group) for one in self._machine.functions() if one.driver == "vfio-pci"}
        entries: dict[str, Node] = {"vfio": Directory(lambda: {name: constant("") for name in (*groups, "vfio")})}
        return entries | ({"vhost-net": constant("")} if "vhost_net" in self._machine.modules else {})


def _device_link(address: str) -> Link:
    return Link(f"../../../devices/{_ROOT}/{address}")


def _regions(regions: Iterable[str]) -> str:
    """Format reserved regions as the kernel does (iommu_group_show_resv_regions in drivers/iommu/iommu.c)."""
    found = (re.fullmatch(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", region) for region in regions)
    return "\n".join(f"0x{int(one[1], 16):016x} 0x{int(one[2], 16):016x} {one[3]}" for one in found if one is not None)


def _in_use(one: Pf | Vf) -> bool:
    """Return whether the function is enabled.

    A kernel driver always enables it, vfio-pci only while a process has it open.
    """
    return one.held or one.driver not in ("", "vfio-pci")


def _sleeps(one: Pf | Vf) -> bool:
    """Return whether the function is suspended, which only vfio-pci allows while no process has it open."""
    return one.driver == "vfio-pci" and not one.held


def _not_running() -> Generator[None, None, str]:
    """Refuse a read of the physical state, as the kernel does for a link that is down (net-sysfs.c)."""
    yield from ()
    raise refuse(errno.EINVAL)


def _node(part: Any) -> Node:
    if isinstance(part, str):
        return constant(part.removesuffix("\n"))
    entries = {name: _node(inner) for name, inner in part.items()}
    return Directory(lambda: entries)


def _directory(**entries: Node) -> Directory:
    return Directory(lambda: entries)
