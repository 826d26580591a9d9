"""The state of a simulated host: PCI functions, their VFs and links. Plain data; what happens to it is in `kernel.py`."""

from __future__ import annotations

import itertools
import random
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..host.events import HostEvent
from .spec import HostSpec, NicProfile, PfSpec, profiles

__all__ = ["Function", "Machine", "Pf", "Upper", "Vf", "VfAttributes"]

DEFAULT_MTU = 1500
NO_MAC = "00:00:00:00:00:00"


@dataclass(kw_only=True)
class VfAttributes:
    """What a PF's driver keeps of a VF."""

    mac: str = NO_MAC
    """Without one the VF's driver makes up its link's own."""
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
    """Name of its network link, if its driver makes one."""
    net_mac: str = ""
    moved: bool = False
    """Its link is in another network namespace."""
    held: bool = False
    """Somebody has its VFIO device open."""
    group_held: bool = False
    """Somebody has its VFIO group open, and not the device."""
    leaving: bool = False
    """Its driver lets go of it: the link to the driver went first."""

    @property
    def shown_driver(self) -> str:
        """What `driver` links to."""
        return "" if self.leaving else self.driver


@dataclass(kw_only=True)
class Vf(Function):
    """One virtual function."""

    index: int
    attributes: VfAttributes


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
    """What `sriov_numvfs` reads; VFs go one by one while it is written."""
    vfs: list[Vf] = field(default_factory=list)
    cut_by_vfs: bool = False
    works_with: int = 0
    """A number of VFs with which it keeps its link all the same."""
    locked: bool = False
    """The kernel's device lock."""

    @property
    def total_vfs(self) -> int:
        """What `sriov_totalvfs` reads."""
        return self.profile.max_vfs if self.driver == self.profile.driver else self.profile.capability_vfs

    @property
    def has_carrier(self) -> bool:
        """Whether its link is up and something is at the other end."""
        return (
            self.up
            and self.cable
            and bool(self.net_name)
            and not (self.cut_by_vfs and self.num_vfs not in (0, self.works_with))
        )

    @property
    def learns(self) -> bool:
        """Whether the kernel has an address and a default route from a router's announcement."""
        return self.spec.router and self.has_carrier

    @property
    def max_channels(self) -> int:
        """Queues that are left for the PF."""
        return self.profile.channels_with_vfs if self.num_vfs else self.profile.channels


@dataclass(kw_only=True)
class Upper:
    """A virtual link on top of a PF's."""

    name: str
    kind: str
    lower: str
    """The link's name."""
    is_master: bool = False
    """A bridge or bond that the lower link is a port of."""
    mode: str = ""
    """Of a macvtap or macvlan."""


class Machine:
    """The whole host."""

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self._random = random.Random(0)  # noqa: S311 - MAC addresses that repeat from run to run
        self.files: dict[str, str] = {}
        """Files besides the kernel's own; they outlive a restart."""
        self.listeners: list[Callable[[HostEvent], None]] = []
        """Who is told what happens, as the kernel's multicast groups tell it."""
        self.boot()

    def boot(self) -> None:
        """Start, or start again: nothing that the kernel keeps in memory survives."""
        self.boot_id = str(uuid.uuid4())
        self.modules = set(self.spec.modules)
        self.rescan_locked = False
        self.links_locked = False
        self.files = dict(self.spec.files) | self.files
        self.uppers: list[Upper] = []
        self.pfs: dict[str, Pf] = {}
        for spec in self.spec.pfs:
            self.pfs[spec.address] = self._make_pf(spec)
        for pf in self.pfs.values():
            for _ in range(pf.spec.vfs):
                vf = self.make_vf(pf)
                pf.vfs.append(vf)
            pf.num_vfs = pf.spec.vfs
        for driver in {pf.driver for pf in self.pfs.values()}:
            self.apply_module_options(driver)

    def apply_module_options(self, driver: str) -> None:
        """Make the VFs that `max_vfs` asks for when a driver is loaded; nobody binds them here."""
        wanted = 0
        for path, text in self.files.items():
            match = re.search(rf"^options {driver} .*\bmax_vfs=(\d+)", text, re.MULTILINE)
            if path.startswith("/etc/modprobe.d/") and match is not None:
                wanted = int(match[1])
        for pf in self.pfs.values():
            if pf.driver == driver and wanted and not pf.vfs:
                pf.vfs = []
                for _ in range(min(wanted, pf.total_vfs)):
                    pf.vfs.append(self.make_vf(pf))
                    takes = pf.autoprobe and pf.profile.vf_driver in self.modules
                    pf.vfs[-1].driver = pf.profile.vf_driver if takes else ""
                    if takes:
                        self.make_link(pf, pf.vfs[-1])
                pf.num_vfs = len(pf.vfs)
                pf.channels = pf.max_channels

    def tell(self, what: str, one: Function) -> None:
        """Tell what has happened to a function."""
        self._tell(HostEvent(what=what, address=one.address))

    def tell_link(self, what: str, one: Function) -> None:
        """Tell what has happened to a function's link, if it has one here."""
        if one.net_name and not one.moved:
            self._tell(HostEvent(what=what, address=one.address, link=one.net_name))

    def tell_upper(self, what: str, upper: Upper) -> None:
        """Tell what has happened to a virtual link."""
        self._tell(HostEvent(what=what, link=upper.name))

    def _tell(self, event: HostEvent) -> None:
        for listener in self.listeners:
            listener(event)

    def functions(self) -> Iterator[Pf | Vf]:
        """Give every PCI function."""
        for pf in self.pfs.values():
            yield pf
            yield from pf.vfs

    def find(self, address: str) -> Pf | Vf | None:
        """Find a function by its PCI address."""
        return self.pfs.get(address) or next((vf for pf in self.pfs.values() for vf in pf.vfs if vf.address == address), None)

    def pf_of(self, vf: Vf) -> Pf:
        """Give the PF of a VF."""
        return next(pf for pf in self.pfs.values() if vf in pf.vfs)

    def find_link(self, name: str) -> Pf | Vf | None:
        """Find a function by the name of its link."""
        return next((function for function in self.functions() if function.net_name == name), None)

    def _new_mac(self) -> str:
        """Give a locally administered unicast address."""
        return "02:" + ":".join(f"{self._random.randrange(256):02x}" for _ in range(5))

    def _new_group(self) -> int | None:
        """The kernel gives the smallest free number (iommu_group_alloc)."""
        if not self.spec.iommu:
            return None
        taken = {function.group for function in self.functions()}
        return next(number for number in itertools.count(1) if number not in taken)

    def plug(self, address: str) -> Pf:
        """Put a NIC that was pulled out back in; nobody drives it yet, and its link is down."""
        spec = next(spec for spec in self.spec.pfs if spec.address == address)
        pf = self.pfs[address] = self._make_pf(spec)
        pf.driver, pf.net_name, pf.mtu, pf.up = "", "", DEFAULT_MTU, False
        return pf

    def _make_pf(self, spec: PfSpec) -> Pf:
        profile = profiles()[spec.profile]
        return Pf(
            address=spec.address,
            vendor=profile.vendor,
            device=profile.device,
            numa_node=spec.numa_node,
            group=self._new_group(),
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
        )

    def make_vf(self, pf: Pf) -> Vf:
        """Make the PF's next VF, bound to nothing yet."""
        index = len(pf.vfs)
        domain, bus, rest = pf.address.split(":")
        device, function = rest.split(".")
        routing_id = (int(bus, 16) << 8) + (int(device, 16) << 3) + int(function)
        routing_id += pf.profile.vf_offset + index * pf.profile.vf_stride
        address = f"{domain}:{routing_id >> 8:02x}:{(routing_id >> 3) & 31:02x}.{routing_id & 7}"
        return Vf(
            address=address,
            vendor=pf.profile.vendor,
            device=pf.profile.vf_device,
            numa_node=pf.numa_node,
            group=pf.group if pf.spec.shares_iommu_group else self._new_group(),
            index=index,
            attributes=VfAttributes(),
        )

    def make_link(self, pf: Pf, vf: Vf) -> None:
        """Give a VF that its kernel driver has taken its link."""
        vf.net_name = f"{pf.net_name}v{vf.index}"
        vf.net_mac = self._new_mac() if vf.attributes.mac == NO_MAC else vf.attributes.mac
