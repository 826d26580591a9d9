"""State of a simulated host with its PCI functions, VFs and links.

It is plain data, which `kernel.py` changes.
"""

from __future__ import annotations

import itertools
import random
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from ..host.events import HostEvent
from ..nodes.nics import model_of
from .spec import DeviceSpec, HostSpec, NicProfile, PfSpec

__all__ = ["Device", "Function", "Machine", "Pf", "Port", "Upper", "Vf", "VfAttributes", "make_ports", "representor_name"]

DEFAULT_MTU = 1500
NO_MAC = "00:00:00:00:00:00"
PASSTHRU = "passthru"
_PORT = DeviceSpec(address="0000:00:1c.0", driver="pcieport")
"""The port above PFs with `sharesIommuGroup`."""
_WITHOUT_PARAMETERS = ("tun", "macvtap")
"""Modules without parameters and version, which have no directory in /sys/module if they are built in (kernel/params.c)."""
_PORT_DRIVERS = ("", "pci-stub", "pcieport")
"""Drivers that leave DMA to others, beside those of VFIO (`driver_managed_dma` in linux/pci.h)."""


@dataclass(kw_only=True)
class VfAttributes:
    """Attributes of a VF in the PF's driver."""

    mac: str = NO_MAC
    """Without a MAC address the VF's driver generates one for its link."""
    vlan: int = 0
    qos: int = 0
    spoof_check: bool = True
    trust: bool = False
    max_tx_rate_mbit: int = 0


@dataclass(kw_only=True)
class Function:
    """One PCI function."""

    address: str
    vendor: str
    device: str
    numa_node: int
    group: int | None
    """IOMMU group; None without an IOMMU."""
    driver: str = ""
    override: str = ""
    net_name: str = ""
    """Name of its network link; empty if its driver creates none."""
    net_mac: str = ""
    moved: bool = False
    """Whether its link is in another network namespace."""
    held: bool = False
    """Whether a process has its VFIO device open."""
    group_held: bool = False
    """Whether a process has its VFIO group open without the device."""
    leaving: bool = False
    """Whether it is being unbound. The link to the driver is already gone then."""

    @property
    def shown_driver(self) -> str:
        """Return the target of the link `driver`."""
        return "" if self.leaving else self.driver


@dataclass(kw_only=True)
class Device:
    """A PCI function that is no NIC."""

    spec: DeviceSpec
    group: int | None
    driver: str

    @property
    def address(self) -> str:
        """Return the PCI address."""
        return self.spec.address

    @property
    def is_bridge(self) -> bool:
        """Return whether it is a PCI-to-PCI bridge."""
        return self.spec.pci_class.startswith("0604")


@dataclass(kw_only=True)
class Vf(Function):
    """One virtual function."""

    index: int
    attributes: VfAttributes
    up: bool = False
    """Whether its link is switched on."""


@dataclass(kw_only=True)
class Port:
    """A further link of a PF, which is another port of the NIC or a representor."""

    name: str
    mac: str
    phys_port_name: str = ""
    mtu: int = DEFAULT_MTU
    up: bool = False
    addresses: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Pf(Function):
    """One physical function."""

    spec: PfSpec
    profile: NicProfile
    mtu: int
    up: bool
    cable: bool
    channels: int
    addresses: list[str] = field(default_factory=list)
    default_route: bool = False
    autoprobe: bool = True
    num_vfs: int = 0
    """Value of `sriov_numvfs`. While it is written, VFs disappear one by one."""
    vfs: list[Vf] = field(default_factory=list)
    ports: list[Port] = field(default_factory=list)
    """Its further links, with the representors of its VFs."""
    unicast: list[str] = field(default_factory=list)
    """Addresses that programs added to the unicast filter (`bridge fdb add`)."""
    promiscuous: bool = False
    """Whether a program made the link promiscuous."""
    cut_by_vfs: bool = False
    works_with: int = 0
    """Number of VFs with which the link stays up even if `cut_by_vfs` is set."""
    locked: bool = False
    """Whether the kernel's device lock is held."""
    cuts_vfs: bool = False
    """Whether the function was reset and the links of its VFs have no carrier yet."""

    @property
    def total_vfs(self) -> int:
        """Return the value of `sriov_totalvfs`, or 0 if the kernel shows no such file."""
        if self.spec.sriov_off:
            return 0
        return self.profile.max_vfs if self.driver == self.profile.driver else self.profile.capability_vfs

    @property
    def has_carrier(self) -> bool:
        """Return whether the link is up and has a carrier."""
        return (
            self.up
            and self.cable
            and bool(self.net_name)
            and not (self.cut_by_vfs and self.num_vfs not in (0, self.works_with))
        )

    @property
    def learns(self) -> bool:
        """Return whether the kernel has an address and a default route from a router advertisement."""
        return self.spec.router and self.has_carrier

    @property
    def max_channels(self) -> int:
        """Return the number of queues that are left for the PF."""
        return self.profile.channels_with_vfs if self.num_vfs else self.profile.channels


@dataclass(kw_only=True)
class Upper:
    """A virtual link on top of a PF's link."""

    name: str
    kind: str
    lower: str
    """Name of the lower link."""
    is_master: bool = False
    """Whether it is a bridge or bond that has the lower link as a port."""
    mode: str = ""
    """Mode of a macvtap or macvlan."""
    mac: str = ""
    up: bool = True
    moved: bool = False
    """Whether it is in another network namespace."""


class Machine:
    """The whole host."""

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self._random = random.Random(0)  # noqa: S311 - MAC addresses that repeat from run to run
        self.boot_id = ""
        self.files: dict[str, str] = {}
        """Files that are not the kernel's. They survive a reboot."""
        self.listeners: list[Callable[[HostEvent], None]] = []
        """Receivers of events, as the members of the kernel's multicast groups are."""
        self.boot()

    def boot(self) -> None:
        """Start or restart the host, which discards everything that the kernel keeps in memory."""
        self.boot_id = str(uuid.uuid4()) if self.boot_id else self.spec.boot_id or str(uuid.uuid4())
        self.modules = {*self.spec.modules, *self.spec.built_in_modules}
        self.rescan_locked = False
        self.links_locked = False
        # Files that were written since the first boot win over those of the description.
        self.files = dict(self.spec.files) | self.files
        self.uppers: list[Upper] = []
        self.pfs: dict[str, Pf] = {}
        self.devices: dict[str, Device] = {}
        self._given_groups: dict[str, int] = dict(self.spec.vf_groups)
        self.regions: dict[int, tuple[str, ...]] = {}
        """Reserved regions of IOMMU groups with regions of their own."""
        self._make_groups()
        for spec in self.spec.pfs:
            self.pfs[spec.address] = self._make_pf(spec)
        for pf in self.pfs.values():
            for _ in range(pf.spec.vfs):
                vf = self.make_vf(pf)
                pf.vfs.append(vf)
                vf.driver = pf.spec.vf_driver
                if vf.driver == pf.profile.vf_driver:
                    self.make_link(pf, vf)
            pf.num_vfs = pf.spec.vfs
        for driver in {pf.driver for pf in self.pfs.values()}:
            self.apply_module_options(driver)

    def _make_groups(self) -> None:
        """Create the given IOMMU groups, and the devices that are no NICs."""
        for group in self.spec.iommu_groups if self.spec.iommu else ():
            number = group.id if group.id is not None else self._new_group()
            self._given_groups |= dict.fromkeys(group.devices, number or 0)
            self.regions[number or 0] = group.reserved_regions
        is_crowded = any(pf.shares_iommu_group for pf in self.spec.pfs)
        for spec in (*self.spec.devices, *((_PORT,) if is_crowded else ())):
            self.devices[spec.address] = Device(spec=spec, group=self._group_of(spec.address), driver=spec.driver)

    def _group_of(self, address: str) -> int | None:
        if not self.spec.iommu:
            return None
        given = self._given_groups.get(address)
        return self._new_group() if given is None else given

    def apply_module_options(self, driver: str) -> None:
        """Create the VFs that the driver's parameter asks for when it is loaded.

        They are bound to the VF driver if it is loaded and autoprobe is on.
        """
        for pf in self.pfs.values():
            wanted = self._parameter_of(driver, pf.profile.parameter)
            if pf.driver == driver and wanted and pf.total_vfs and not pf.vfs:
                pf.vfs = []
                for _ in range(min(wanted, pf.total_vfs)):
                    pf.vfs.append(self.make_vf(pf))
                    takes = pf.autoprobe and pf.profile.vf_driver in self.modules
                    pf.vfs[-1].driver = pf.profile.vf_driver if takes else ""
                    if takes:
                        self.make_link(pf, pf.vfs[-1])
                pf.num_vfs = len(pf.vfs)
                pf.channels = pf.max_channels

    def _parameter_of(self, driver: str, parameter: str) -> int:
        """Return the number that the files below /etc/modprobe.d give to a driver's parameter."""
        found = 0
        for path, text in self.files.items():
            match = re.search(rf"^options {driver} .*\b{parameter}=(\d+)", text, re.MULTILINE) if parameter else None
            if path.startswith("/etc/modprobe.d/") and match is not None:
                found = int(match[1])
        return found

    def tell(self, what: str, one: Function) -> None:
        """Send an event about a function."""
        self._tell(HostEvent(what=what, address=one.address))

    def tell_link(self, what: str, one: Function) -> None:
        """Send an event about a function's link, if it has one in this network namespace."""
        if one.net_name and not one.moved:
            self._tell(HostEvent(what=what, address=one.address, link=one.net_name))

    def cut_vf_links(self, pf: Pf, cause: Literal["mtu", "queues"]) -> None:
        """Take the carrier from the links of a PF's VFs, as the reset of a running function does.

        igb_change_mtu and igb_reinit_queues in drivers/net/ethernet/intel/igb/igb_main.c reset it, and the VFs' driver notices
        it in its watchdog (igbvf_watchdog_task). The links come back after the next look at them.
        """
        model = model_of(pf.vendor, pf.device, pf.driver)
        if pf.up and cause not in (model.keeps_vf_links if model is not None else ()):
            pf.cuts_vfs = True
            self._tell_vf_links(pf)

    def restore_vf_links(self) -> None:
        """Give the links of VFs their carrier back."""
        for pf in self.pfs.values():
            if pf.cuts_vfs:
                pf.cuts_vfs = False
                self._tell_vf_links(pf)

    def has_vf_carrier(self, vf: Vf) -> bool:
        """Return whether the link of a VF is up and has a carrier."""
        pf = self.pf_of(vf)
        return vf.up and pf.has_carrier and not pf.cuts_vfs

    def _tell_vf_links(self, pf: Pf) -> None:
        for vf in pf.vfs:
            if vf.up:
                self.tell_link("newlink", vf)

    def tell_upper(self, what: str, upper: Upper) -> None:
        """Send an event about a virtual link."""
        self._tell(HostEvent(what=what, link=upper.name))

    def _tell(self, event: HostEvent) -> None:
        for listener in self.listeners:
            listener(event)

    def functions(self) -> Iterator[Pf | Vf]:
        """Yield every PCI function."""
        for pf in self.pfs.values():
            yield pf
            yield from pf.vfs

    def find(self, address: str) -> Pf | Vf | None:
        """Find a function by its PCI address."""
        return self.pfs.get(address) or next((vf for pf in self.pfs.values() for vf in pf.vfs if vf.address == address), None)

    def shown_modules(self) -> set[str]:
        """Return the names in /sys/module."""
        return self.modules - {name for name in self.spec.built_in_modules if name in _WITHOUT_PARAMETERS}

    def members(self, group: int | None) -> list[Pf | Vf | Device]:
        """Return the functions in an IOMMU group."""
        return [one for one in (*self.functions(), *self.devices.values()) if group is not None and one.group == group]

    def is_viable(self, group: int | None) -> bool:
        """Return whether no member of a group has a driver that does DMA itself (drivers/iommu/iommu.c)."""
        return all(one.driver in _PORT_DRIVERS or "vfio" in one.driver for one in self.members(group))

    def pf_of(self, vf: Vf) -> Pf:
        """Return the PF of a VF."""
        return next(pf for pf in self.pfs.values() if vf in pf.vfs)

    def find_link(self, name: str) -> Pf | Vf | None:
        """Find a function by the name of its link."""
        return next((function for function in self.functions() if function.net_name == name), None)

    def find_port(self, name: str) -> Port | None:
        """Find a further link of a PF by its name."""
        return next((port for pf in self.pfs.values() for port in pf.ports if port.name == name), None)

    def new_mac(self) -> str:
        """Return a locally administered unicast address."""
        return "02:" + ":".join(f"{self._random.randrange(256):02x}" for _ in range(5))

    def _new_group(self) -> int | None:
        """Return the smallest free group number, as the kernel does (iommu_group_alloc)."""
        if not self.spec.iommu:
            return None
        taken = {one.group for one in (*self.functions(), *self.devices.values())} | set(self._given_groups.values())
        return next(number for number in itertools.count(1) if number not in taken)

    def plug(self, address: str) -> Pf:
        """Insert a removed NIC again, without a driver and with its link down."""
        spec = next(spec for spec in self.spec.pfs if spec.address == address)
        pf = self.pfs[address] = self._make_pf(spec)
        pf.driver, pf.net_name, pf.mtu, pf.up = "", "", DEFAULT_MTU, False
        return pf

    def _make_pf(self, spec: PfSpec) -> Pf:
        profile = self.spec.profile_of(spec)
        if profile is None:
            raise ValueError(f"{spec.address} has an unknown profile, which check_host refuses")
        return Pf(
            address=spec.address,
            vendor=profile.vendor,
            device=profile.device,
            numa_node=spec.numa_node,
            group=self.devices[_PORT.address].group if spec.shares_iommu_group else self._group_of(spec.address),
            driver=profile.driver,
            net_name=spec.name,
            net_mac=spec.mac,
            spec=spec,
            profile=profile,
            mtu=spec.mtu,
            up=spec.up,
            cable=spec.cable,
            channels=profile.channels,
            addresses=list(spec.addresses),
            default_route=spec.default_route,
            cut_by_vfs=spec.cut_by_vfs,
            ports=make_ports(spec),
        )

    def make_vf(self, pf: Pf) -> Vf:
        """Create the PF's next VF, which is not bound yet."""
        index = len(pf.vfs)
        domain, bus, rest = pf.address.split(":")
        device, function = rest.split(".")
        # Not `nodes.addresses`: a mistake there must not appear in the model as well.
        routing_id = (int(bus, 16) << 8) + (int(device, 16) << 3) + int(function)
        routing_id += pf.profile.vf_offset + int(function) * pf.profile.port_offset + index * pf.profile.vf_stride
        if pf.spec.vf_domain is not None:
            # As of VFs that a hypervisor passes to a virtual machine, each on a bus of its own.
            domain, routing_id = f"{pf.spec.vf_domain + index:04x}", 2 << 3
        address = f"{domain}:{routing_id >> 8:02x}:{(routing_id >> 3) & 31:02x}.{routing_id & 7}"
        if pf.spec.eswitch == "switchdev":
            self._add_representor(pf, index)
        return Vf(
            address=address,
            vendor=pf.profile.vendor,
            device=pf.profile.vf_device,
            numa_node=pf.numa_node,
            # The walk up from the VF ends at the first port with ACS (pci_device_group in drivers/iommu/iommu.c).
            group=pf.group
            if any(one.is_bridge and one.group == pf.group for one in self.devices.values())
            else self._group_of(address),
            index=index,
            attributes=VfAttributes(),
        )

    def make_link(self, pf: Pf, vf: Vf) -> None:
        """Give a VF the link that its kernel driver creates."""
        # As udev names the links of VFs, for example ens1f0v3.
        vf.net_name = f"{pf.net_name}v{vf.index}"
        vf.net_mac = self.new_mac() if vf.attributes.mac == NO_MAC else vf.attributes.mac

    def _add_representor(self, pf: Pf, index: int) -> None:
        """Give a PF the representor of a VF.

        Its parent is the PF (drivers/net/ethernet/mellanox/mlx5/core/en_rep.c).
        """
        name = representor_name(pf, index)
        pf.ports.append(Port(name=name, mac=self.new_mac(), phys_port_name=f"pf{pf.address[-1]}vf{index}"))


def representor_name(pf: Pf, index: int) -> str:
    """Return the name of the representor of a VF."""
    given = pf.spec.representors
    return given[index] if index < len(given) else f"{pf.net_name}r{index}"


def make_ports(spec: PfSpec) -> list[Port]:
    """Return the further links that a PF has when its driver binds it."""
    return [
        Port(name=one.name, mac=one.mac, phys_port_name=one.phys_port_name, addresses=list(one.addresses), up=True)
        for one in spec.ports
    ]
