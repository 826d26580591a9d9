"""What the agent saw of a physical function: more than its status publishes, as plans rely on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from .addresses import routing_id
from .nics import model_of
from .state import VFIO, Apply, Held, PfPlan, PfProblem, PfReason, PfStatus, VfRange, range_of

__all__ = [
    "ObservedPf",
    "ObservedVf",
    "VfAttributes",
    "holders_by_address",
    "observed_of",
    "render_pf_status",
    "with_holders",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class VfAttributes:
    """What a function's driver keeps of a VF."""

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
    """One virtual function."""

    index: int
    pci_address: str
    driver: str = ""
    """Empty: none bound."""
    held: bool = False
    """Somebody has its VFIO device open (sysfs `enable` is 1 while it is), or its link is in another namespace."""
    group: str = ""
    """IOMMU group."""
    vfio_device: str = ""
    """Name below /dev/vfio/devices; empty: the kernel makes none."""
    host_use: tuple[str, ...] = ()
    """What the host itself uses its link for, in words."""
    attributes: VfAttributes | None = None
    """As its function reports them; None: it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedPf:
    """One physical function."""

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
    """Administrative state; None: its link is not in the host's namespace."""
    link_elsewhere: bool = False
    """Its driver has made a link, which is not in the host's namespace."""
    carrier: bool = False
    """Whether its link is up and something is at the other end."""
    queues: int | None = None
    """`combined` channels; None: it has none to set."""
    max_queues: int | None = None
    total_vfs: int = 0
    num_vfs: int = 0
    autoprobe: bool = True
    module_options: str = ""
    """What vmnic's file below /etc/modprobe.d says for its driver; empty: there is none."""
    driver_functions: tuple[str, ...] = ()
    """All functions that have its driver, where that makes VFs only when it is loaded."""
    by_module: bool = False
    """Its driver makes VFs only by the parameter `max_vfs`, when it is loaded."""
    unassigned_vf_space: bool = False
    """The firmware left a register window of the VFs without an address."""
    foreign_owner: str = ""
    """Another program that manages it, in words; empty: none."""
    owner_unknown: str = ""
    """What could not be read of another program's claim to it, in words; empty: all was read."""
    shares_iommu_group: bool = False
    """Another function that is not its VF is in its IOMMU group, so its VFs would be too."""
    held: bool = False
    """Somebody has its own VFIO device open."""
    group: str = ""
    """Its own IOMMU group."""
    vfio_device: str = ""
    """Its own name below /dev/vfio/devices; empty: the kernel makes none."""
    vfs: tuple[ObservedVf, ...] = ()
    host_use: tuple[str, ...] = ()
    """What the host uses it for, in words."""
    learnt_use: tuple[str, ...] = ()
    """What the kernel made of a router's announcements, in words: it counts where the host itself switched the link on."""

    @property
    def held_addresses(self) -> tuple[str, ...]:
        """Addresses of the function and its VFs, as far as somebody holds them."""
        own = (self.pci_address,) if self.held else ()
        return (*own, *(vf.pci_address for vf in self.vfs if vf.held))


def holders_by_address(pfs: Sequence[ObservedPf], told: Mapping[str, str]) -> dict[str, str]:
    """Name holders by PCI address; some device plugins, KubeVirt's among them, name their devices by IOMMU group.

    Whoever holds a group has all its VFs, and the function itself where that is a whole NIC on vfio-pci. The resource tells
    nothing of what a number means, as administrators name resources freely. So every device id that is a group's number
    counts: another plugin's number may hold up a change, but no pod loses a VF.
    """
    vfs = [vf for pf in pfs for vf in pf.vfs]
    used = {vf.pci_address: f"the host ({'; '.join(vf.host_use)})" for vf in vfs if vf.host_use}
    groups = {pf.pci_address: pf.group for pf in pfs if pf.driver == VFIO} | {vf.pci_address: vf.group for vf in vfs}
    by_group = {address: told[group] for address, group in groups.items() if group in told}
    numbers = set(groups.values())
    return used | by_group | {device: holder for device, holder in told.items() if device not in numbers}


def with_holders(pf: ObservedPf, holders: Mapping[str, str]) -> ObservedPf:
    """Count as held what others say they hold; a VM that is about to start has not opened its VF yet."""
    vfs = tuple(replace(vf, held=True) if vf.pci_address in holders else vf for vf in pf.vfs)
    return replace(pf, vfs=vfs, held=pf.held or pf.pci_address in holders)


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
    """Write down what is published of a physical function, before it is fitted into the bounds of a status.

    Args:
        pf: The function.
        holders: Who holds a VF, by its PCI address.
        owned: Whether vmnic has changed it.
        attempt: Ends of runs so far.
        plan: What is to be done; None: nothing.
        problem: What hinders it.
        apply: The last run.
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
        link_speed_mbps=pf.link_speed_mbps,
        mtu=pf.mtu,
        queues=pf.queues,
        total_vfs=pf.total_vfs,
        num_vfs=pf.num_vfs,
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
    """Fold neighbours with the same driver, so that 64 VFs need one line."""
    ordered = sorted(vfs, key=lambda vf: vf.index)
    ranges = []
    for (_, driver), group in groupby(enumerate(ordered), key=lambda pair: (pair[1].index - pair[0], pair[1].driver)):
        indexes = [vf.index for _, vf in group]
        text = str(indexes[0]) if len(indexes) == 1 else f"{indexes[0]}-{indexes[-1]}"
        ranges.append(VfRange(range=text, driver=driver))
    return tuple(ranges)


def observed_of(status: PfStatus) -> ObservedPf:
    """Read back from a published status what a plan needs, where the host itself is not at hand (offline plans).

    The VFs' own addresses are not published, except of those that are held; `autoprobe` is taken from what the VFs have.
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
        vfs=(*taken, *free[len(taken) :]),
        host_use=status.host_use,
    )
