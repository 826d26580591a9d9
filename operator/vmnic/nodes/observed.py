"""Observed state of a PF, with the details that plans need and the status does not publish."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from ..api.node_state import VFIO, Apply, Held, PfPlan, PfProblem, PfStatus, VfRange
from ..api.reasons import PfReason
from ..checked.forms import LARGEST_COUNT
from ..checked.quantities import read_integer
from .addresses import routing_id
from .nics import model_of
from .state import range_of

__all__ = [
    "GroupMember",
    "IommuGroup",
    "ObservedPf",
    "ObservedVf",
    "VfAttributes",
    "hold_groups",
    "holders_by_address",
    "observed_of",
    "render_pf_status",
    "with_holders",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMember:
    """One device of an IOMMU group."""

    address: str
    """PCI address, or the name of a device that is no PCI function."""
    driver: str = ""
    """Driver that is bound; empty if none is."""
    is_bridge: bool = False
    """Whether it is a PCI-to-PCI bridge, such as a port of a switch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IommuGroup:
    """IOMMU group of a PF or of its VFs, which one process gets as a whole."""

    number: str
    members: tuple[GroupMember, ...] = ()
    direct_regions: tuple[str, ...] = ()
    """Memory that the firmware maps for its devices, so that no process may get them; START-END in hexadecimal."""
    regions_unknown: str = ""
    """Why its reserved regions could not be read; empty if they were read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VfAttributes:
    """Attributes of a VF as the PF's driver reports them."""

    mac: str
    vlan: int = 0
    qos: int = 0
    spoof_check: bool = True
    trust: bool = False
    link_state: str = "auto"
    min_tx_rate_mbit: int = 0
    max_tx_rate_mbit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedVf:
    """Observed state of one VF."""

    index: int
    pci_address: str
    driver: str = ""
    """Driver that is bound; empty if none is."""
    held: bool = False
    """Whether a process has its VFIO device open (sysfs `enable` is then 1), or its link is in another network namespace."""
    group: str = ""
    """Number of its IOMMU group."""
    vfio_device: str = ""
    """Name below /dev/vfio/devices; empty if the kernel creates none."""
    host_use: tuple[str, ...] = ()
    """Uses of its link by the host itself, in words."""
    attributes: VfAttributes | None = None
    """Attributes as the PF reports them; None if it does not report them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedPf:
    """Observed state of one PF."""

    pci_address: str
    name: str = ""
    alt_names: tuple[str, ...] = ()
    vendor: str = ""
    device: str = ""
    driver: str = ""
    numa_node: int | None = None
    link_speed_mbps: int | None = None
    mac: str = ""
    mtu: int | None = None
    up: bool | None = None
    """Administrative state; None if its link is not in the host's network namespace."""
    link_elsewhere: bool = False
    """Whether its driver has created a link that is not in the host's network namespace."""
    carrier: bool = False
    """Whether its link is up and has a carrier."""
    queues: int | None = None
    """Number of `combined` channels; None if they cannot be set."""
    max_queues: int | None = None
    total_vfs: int = 0
    num_vfs: int = 0
    autoprobe: bool = True
    module_options: str = ""
    """Options in vmnic's file below /etc/modprobe.d for its driver; empty if there is no such file."""
    udev_rules: tuple[str, ...] = ()
    """Names of vmnic's rules for it below /etc/udev/rules.d (see `udev_rules.py`)."""
    driver_functions: tuple[str, ...] = ()
    """All functions that use its driver, filled only if the driver creates VFs when it is loaded."""
    by_module: bool = False
    """Whether its driver creates VFs only by the parameter `max_vfs`, when it is loaded."""
    unassigned_vf_space: bool = False
    """Whether the firmware left a register window (BAR) of the VFs without an address."""
    foreign_owner: str = ""
    """Another program that manages the PF, in words; empty if there is none."""
    owner_unknown: str = ""
    """Claims of other programs that could not be read, in words; empty if everything was read."""
    iommu_groups: tuple[IommuGroup, ...] = ()
    """IOMMU groups of the PF and of its VFs."""
    held: bool = False
    """Whether a process has the PF's own VFIO device open."""
    group: str = ""
    """Number of the PF's own IOMMU group."""
    vfio_device: str = ""
    """The PF's own name below /dev/vfio/devices; empty if the kernel creates none."""
    vfs: tuple[ObservedVf, ...] = ()
    host_use: tuple[str, ...] = ()
    """Uses by the host, in words."""
    learnt_use: tuple[str, ...] = ()
    """Addresses and routes that the kernel learned from router advertisements, in words.

    They count as a use by the host only if the host itself, and not vmnic, set the link up.
    """

    @property
    def held_addresses(self) -> tuple[str, ...]:
        """Return the addresses of the PF and its VFs that are held."""
        own = (self.pci_address,) if self.held else ()
        return (*own, *(vf.pci_address for vf in self.vfs if vf.held))


def holders_by_address(pfs: Sequence[ObservedPf], told: Mapping[str, str]) -> dict[str, str]:
    """Return holders by PCI address, also for device plugins that name devices by IOMMU group.

    Some plugins, among them KubeVirt's, use the group number as device ID. The holder of a group has all its VFs, and the
    PF itself if that is a whole NIC on vfio-pci. The name of a resource does not show what a number means, because
    administrators choose the names. So every device ID that equals a group number counts as that group: another plugin's
    number may delay a change, but no pod loses a VF.
    """
    vfs = [vf for pf in pfs for vf in pf.vfs]
    used = {vf.pci_address: f"the host ({'; '.join(vf.host_use)})" for vf in vfs if vf.host_use}
    whole = {pf.pci_address: pf.group for pf in pfs if pf.driver == VFIO and pf.group}
    groups = whole | {vf.pci_address: vf.group for vf in vfs}
    # A process gets a group as a whole, and vmnic names it by one of its PFs.
    told = {group: told[address] for address, group in whole.items() if address in told} | dict(told)
    # Several VFs may share a group, so this goes from devices to numbers and not from a number to one device.
    by_group = {address: told[group] for address, group in groups.items() if group in told}
    numbers = set(groups.values())
    return used | by_group | {device: holder for device, holder in told.items() if device not in numbers}


def with_holders(pf: ObservedPf, holders: Mapping[str, str]) -> ObservedPf:
    """Mark the functions that have a holder as held, because a starting VM has not opened its VF yet."""
    vfs = tuple(replace(vf, held=True) if vf.pci_address in holders else vf for vf in pf.vfs)
    return replace(pf, vfs=vfs, held=pf.held or pf.pci_address in holders)


def hold_groups(pfs: Sequence[ObservedPf]) -> tuple[ObservedPf, ...]:
    """Mark whole PFs as held if another one of their IOMMU group is.

    A process gets a group as a whole.
    """
    held = {pf.group for pf in pfs if pf.held and pf.driver == VFIO and pf.group}
    return tuple(replace(pf, held=True) if pf.driver == VFIO and pf.group in held else pf for pf in pfs)


def render_pf_status(
    pf: ObservedPf,
    *,
    holders: Mapping[str, str],
    owned: bool,
    attempt: int,
    plan: PfPlan | None,
    problem: PfProblem | None,
    apply: Apply | None,
) -> PfStatus:
    """Return the status that is published for a PF, before it is fitted into its bounds.

    Args:
        pf: Observed state of the PF.
        holders: Holders by the PCI address of the VF.
        owned: Whether vmnic has changed the PF.
        attempt: Number of changes that have ended.
        plan: Plan to carry out; None if the PF is as its spec asks.
        problem: Why the PF is not, or cannot be, as its spec asks.
        apply: The last change.
    """
    known = model_of(pf.vendor, pf.device)
    return PfStatus(
        pci_address=pf.pci_address,
        name=pf.name,
        alt_names=pf.alt_names,
        vendor=pf.vendor,
        device=pf.device,
        model=known.model if known else "",
        driver=pf.driver,
        numa_node=pf.numa_node,
        iommu_group=read_integer(pf.group, 0, LARGEST_COUNT),
        link_speed_mbps=pf.link_speed_mbps,
        mtu=pf.mtu,
        queues=pf.queues,
        total_vfs=pf.total_vfs,
        num_vfs=pf.num_vfs,
        # The first address and the stride stand for all addresses, so that 8 PFs of 64 VFs stay below 16 kB.
        first_vf=pf.vfs[0].pci_address if pf.vfs else "",
        vf_stride=routing_id(pf.vfs[1].pci_address) - routing_id(pf.vfs[0].pci_address) if len(pf.vfs) > 1 else 0,
        vfs=_ranges(pf.vfs),
        held=tuple(Held(vf=address, by=holders.get(address, "")) for address in pf.held_addresses),
        host_use=pf.host_use,
        owned=owned,
        attempt=attempt,
        plan=plan,
        problem=problem,
        apply=apply,
    )


def _ranges(vfs: Iterable[ObservedVf]) -> tuple[VfRange, ...]:
    """Fold neighboring VFs with the same driver into ranges, so that 64 VFs need one entry."""
    ordered = sorted(vfs, key=lambda vf: vf.index)
    ranges = []
    for (_, driver), group in groupby(enumerate(ordered), key=lambda pair: (pair[1].index - pair[0], pair[1].driver)):
        indexes = [vf.index for _, vf in group]
        text = str(indexes[0]) if len(indexes) == 1 else f"{indexes[0]}-{indexes[-1]}"
        ranges.append(VfRange(range=text, driver=driver))
    return tuple(ranges)


def observed_of(status: PfStatus) -> ObservedPf:
    """Rebuild from a published status the observed state that a plan needs, for plans made offline.

    The status publishes only the addresses of VFs that are held. `autoprobe` is derived from the VFs' drivers.
    """
    held = {held.vf for held in status.held} - {status.pci_address}
    drivers = {index: part.driver for part in status.vfs for index in range_of(part.range)}
    free = [ObservedVf(index=index, pci_address="", driver=driver) for index, driver in sorted(drivers.items())]
    taken = [ObservedVf(index=0, pci_address=vf, driver=VFIO, held=True) for vf in sorted(held)]
    return ObservedPf(
        pci_address=status.pci_address,
        name=status.name,
        driver=status.driver,
        total_vfs=status.total_vfs,
        num_vfs=status.num_vfs,
        mtu=status.mtu,
        queues=status.queues,
        autoprobe=VFIO not in drivers.values(),
        link_elsewhere=status.problem is not None and status.problem.reason is PfReason.LINK_ELSEWHERE,
        held=any(one.vf == status.pci_address for one in status.held),
        # A held VF takes the place of a free one, so that there are as many VFs as the status reports.
        vfs=(*taken, *free[len(taken) :]),
        host_use=status.host_use,
    )
