"""Observed state of a PF, with the details that plans need and the status does not publish."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from ..api.node_state import VFIO, Apply, Held, PfPlan, PfProblem, PfStatus, VfRange
from ..api.reasons import PfReason
from ..checked.forms import LARGEST_COUNT
from ..checked.quantities import read_integer
from .addresses import routing_id, vf_addresses
from .nics import model_of
from .state import range_of

__all__ = [
    "ETHERNET",
    "MACVTAP",
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
    "with_macvtaps",
]


ETHERNET = "ether"
"""Hardware type of Ethernet links."""


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
    """Attributes of a VF as the PF's driver reports them. None stands for one that it does not report."""

    mac: str | None = None
    vlan: int | None = None
    qos: int | None = None
    spoof_check: bool | None = None
    trust: bool | None = None
    link_state: str | None = None
    min_tx_rate_mbit: int | None = None
    max_tx_rate_mbit: int | None = None


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
    """Uses of its link or of its representor by the host itself, in words."""
    unexplained: tuple[str, ...] = ()
    """Signs that a link in another network namespace is on top of its link, in words."""
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
    """Its permanent hardware address; empty if it is unknown."""
    mtu: int | None = None
    up: bool | None = None
    """Administrative state; None if its link is not in the host's network namespace."""
    link_elsewhere: bool = False
    """Whether its driver has created a link that is not in the host's network namespace."""
    carrier: bool | None = False
    """Whether its link is up and has a carrier; None if that is unknown."""
    link_type: str = ""
    """Hardware type of its link, such as `ether` or `infiniband`; empty if it is unknown."""
    ports: tuple[str, ...] = ()
    """Names of its links that are ports. Only old NICs have several of them on one function."""
    eswitch_mode: str = ""
    """Mode of its e-switch, such as `legacy` or `switchdev`; empty if it has none or if it is unknown."""
    vfs_unknown: str = ""
    """Why the attributes of its VFs could not be read; empty if they could."""
    queues: int | None = None
    """Number of `combined` channels; None if they cannot be set."""
    max_queues: int | None = None
    total_vfs: int = 0
    """VFs that the kernel allows; 0 also if it shows no `sriov_totalvfs`, as for a NIC without SR-IOV."""
    num_vfs: int = 0
    autoprobe: bool = True
    module_options: str = ""
    """Options in vmnic's file below /etc/modprobe.d for its driver; empty if there is no such file."""
    udev_rules: tuple[str, ...] = ()
    """Names of vmnic's rules for it below /etc/udev/rules.d (see `udev_rules.py`)."""
    driver_functions: tuple[str, ...] = ()
    """All functions that use its driver, filled only if the driver creates VFs when it is loaded."""
    by_module: bool = False
    """Whether its driver creates VFs only by a parameter, when it is loaded."""
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
    representor_use: tuple[str, ...] = ()
    """Those of the uses that are of representors which belong to none of its VFs."""
    unexplained: tuple[str, ...] = ()
    """Signs that links in other network namespaces are on top of its links, and macvtaps that may be, in words."""
    macvtaps: tuple[str, ...] = ()
    """Holders of macvtaps on top of its links, in words."""
    cleared_macvtaps: tuple[str, ...] = ()
    """Device IDs of macvtaps that may be on any link, but are not on one of its links."""
    learnt_use: tuple[str, ...] = ()
    """Addresses and routes that the kernel learned from router advertisements, in words.

    They count as a use by the host only if the host itself, and not vmnic, set the link up.
    """

    @property
    def outside_uses(self) -> tuple[str, ...]:
        """Return the uses of its links from other network namespaces, in words."""
        return (*self.macvtaps, *self.unexplained)

    @property
    def is_switchdev(self) -> bool:
        """Return whether its e-switch is in switchdev mode, in which every VF has a representor."""
        return self.eswitch_mode.startswith("switchdev")

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


MACVTAP = "macvtap.network.kubevirt.io/"
"""First part of resources of macvtap-cni. The second part names a link, or an entry of the plugin's configuration."""


def with_macvtaps(
    pf: ObservedPf, holders: Mapping[str, str], links: Mapping[str, str], known: Collection[str]
) -> tuple[ObservedPf, dict[str, str]]:
    """Add the holders of macvtaps to a PF, with those of its VFs by their PCI address.

    A name that is no link may stand for any link. It does not count for a PF that shows no sign of a link in another network
    namespace, if the macvtap had its holder at an earlier look as well: it is then no longer being set up.

    Args:
        pf: The PF as observed.
        holders: Holders by device ID.
        links: PCI address, or an empty string, by the name of each link of the host's namespace.
        known: Device IDs that had a holder at an earlier look.
    """
    own, doubtful, cleared, of_vfs = [], [], [], {}
    vfs = {vf.pci_address for vf in pf.vfs}
    for key, holder in holders.items():
        if not key.startswith(MACVTAP):
            continue
        name, _, device = key.removeprefix(MACVTAP).partition("/")
        owner = links.get(name)
        if owner == pf.pci_address:
            own.append(f"{holder} holds {device}")
        elif owner in vfs:
            of_vfs[owner] = holder
        elif owner is None and not pf.unexplained and key in known:
            cleared.append(key)
        elif owner is None:
            doubtful.append(f"{holder} holds {device}, which may be on {pf.name or pf.pci_address}")
    unexplained = (*pf.unexplained, *doubtful)
    return replace(pf, macvtaps=tuple(own), cleared_macvtaps=tuple(cleared), unexplained=unexplained), of_vfs


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
    known = model_of(pf.vendor, pf.device, pf.driver)
    first, stride, listed = _addresses(pf.vfs)
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
        link_type=pf.link_type if pf.link_type != ETHERNET else "",
        eswitch_mode=pf.eswitch_mode if pf.eswitch_mode != "legacy" else "",
        several_ports=len(pf.ports) > 1,
        mtu=pf.mtu,
        queues=pf.queues,
        total_vfs=pf.total_vfs,
        num_vfs=pf.num_vfs,
        first_vf=first,
        vf_stride=stride,
        vf_addresses=listed,
        vfs=_ranges(pf.vfs),
        held=tuple(Held(vf=address, by=holders.get(address, "")) for address in pf.held_addresses),
        host_use=pf.host_use,
        outside_use=pf.outside_uses,
        owned=owned,
        attempt=attempt,
        plan=plan,
        problem=problem,
        apply=apply,
    )


def _addresses(vfs: Sequence[ObservedVf]) -> tuple[str, int, tuple[str, ...]]:
    """Return the first address, the stride, and all addresses if these two do not give them.

    The first address and the stride usually stand for all addresses, so that 8 PFs of 64 VFs stay below 16 kB.
    """
    if not vfs:
        return "", 0, ()
    own = tuple(vf.pci_address for vf in vfs)
    stride = routing_id(own[1]) - routing_id(own[0]) if len(own) > 1 else 0
    computed = vf_addresses(own[0], stride, range(len(own)))
    return (own[0], stride, ()) if computed == own else (own[0], 0, own)


def _ranges(vfs: Iterable[ObservedVf]) -> tuple[VfRange, ...]:
    """Fold neighboring VFs with the same driver into ranges, so that 64 VFs need one entry."""
    ordered = sorted(vfs, key=lambda vf: vf.index)
    ranges = []
    for (_, driver), group in groupby(enumerate(ordered), key=lambda pair: (pair[1].index - pair[0], pair[1].driver)):
        indexes = [vf.index for _, vf in group]
        text = str(indexes[0]) if len(indexes) == 1 else f"{indexes[0]}-{indexes[-1]}"
        ranges.append(VfRange(range=text, driver=driver))
    return tuple(ranges)


def observed_of(status: PfStatus, all_of_node: Iterable[PfStatus] = ()) -> ObservedPf:
    """Rebuild from a published status the observed state that a plan needs, for plans made offline.

    The status publishes only the addresses of VFs that are held. `autoprobe` is derived from the VFs' drivers. Of its IOMMU
    group, only the members among all PFs of the node are known.
    """
    group = status.iommu_group
    members = [GroupMember(address=one.pci_address, driver=one.driver) for one in all_of_node if one.iommu_group == group]
    held = {held.vf for held in status.held} - {status.pci_address}
    model = model_of(status.vendor, status.device, status.driver)
    drivers = {index: part.driver for part in status.vfs for index in range_of(part.range)}
    free = [ObservedVf(index=index, pci_address="", driver=driver) for index, driver in sorted(drivers.items())]
    taken = [ObservedVf(index=0, pci_address=vf, driver=VFIO, held=True) for vf in sorted(held)]
    return ObservedPf(
        pci_address=status.pci_address,
        name=status.name,
        vendor=status.vendor,
        device=status.device,
        driver=status.driver,
        link_type=status.link_type,
        ports=("", "") if status.several_ports else (),
        eswitch_mode=status.eswitch_mode,
        by_module=model is not None and model.count_by == "parameter",
        total_vfs=status.total_vfs,
        num_vfs=status.num_vfs,
        mtu=status.mtu,
        queues=status.queues,
        autoprobe=VFIO not in drivers.values(),
        link_elsewhere=status.problem is not None and status.problem.reason is PfReason.LINK_ELSEWHERE,
        held=any(one.vf == status.pci_address for one in status.held),
        group="" if group is None else str(group),
        iommu_groups=() if group is None else (IommuGroup(number=str(group), members=tuple(members)),),
        # A held VF takes the place of a free one, so that there are as many VFs as the status reports.
        vfs=(*taken, *free[len(taken) :]),
        host_use=status.host_use,
        unexplained=status.outside_use,
    )
