"""Pool shares of a PF, which are all of its VFs, some of them, or the whole PF.

The numbers read here are chosen by an agent, so ranges are compared and are never iterated beyond what the pool asks for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ...api.node_state import VFIO, NodeNicState, PfSpec, PfStatus, VfGroup
from ...api.reasons import PfReason
from ...checked.devices import MOST_VFS
from ..addresses import vf_addresses, vf_indexes
from ..state import group_of, indexes_of, range_of
from ..vf_limits import data_of, other_ports

__all__ = ["PoolShare", "VfTotals", "count_vfs", "pool_shares"]


_WITHDRAWN = (PfReason.LINK_ELSEWHERE, PfReason.CARRIER_LOST, PfReason.UNREADABLE)
"""Problems during which the agent advertises no device of a PF. A PF that has vanished has no devices anyway."""


class VfTotals(NamedTuple):
    """Numbers of a pool's VFs, on one PF or one node."""

    desired: int = 0
    """0 for a whole PF."""
    configured: int = 0
    """Existing VFs, also those that are no longer asked for and that VMs still hold."""
    in_use: int = 0
    """VFs of the pool, or whole PFs, that are held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolShare:
    """One pool's share of one PF, in spec and observed state."""

    pf: PfStatus
    resource: str
    """Extended resource under which its devices are advertised."""
    vfs: VfTotals
    """Totals, including VFs that are no longer asked for."""
    ready: int
    """Devices in the spec that a VM can use: on vfio-pci, advertised, and within the maximum in the NIC data."""
    indexes: range | None
    """VFs that are in the spec and exist; None if the share is the PF itself."""
    held: tuple[str, ...]
    """Addresses of its devices that are held."""
    is_partner: bool = False
    """Whether it is a whole PF that is handed out with another one of its IOMMU group, and so is no device of its own."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return the PCI addresses of the devices that are in the spec and exist."""
        pf, indexes = self.pf, self.indexes
        if indexes is not None:
            return vf_addresses(pf.first_vf, pf.vf_stride, indexes, pf.vf_addresses)
        return () if self.is_partner else (pf.pci_address,)


def count_vfs(state: NodeNicState, pool: str) -> VfTotals:
    """Count a pool's VFs on a node, including those of PFs that it is releasing."""
    shares = [_part(spec, pf, group, state.status.pfs) for spec, pf, group in _shares_of(state, pool)]
    totals = [part.vfs for part in _joined(shares)]
    return VfTotals(*(sum(column) for column in zip(*totals, strict=True))) if totals else VfTotals()


def pool_shares(state: NodeNicState, pool: str) -> Iterator[PoolShare]:
    """Yield all shares that a pool has on a node, except those that it is releasing."""
    yield from _joined(
        [_part(spec, pf, group, state.status.pfs) for spec, pf, group in _shares_of(state, pool) if not spec.release]
    )


def _joined(parts: Sequence[PoolShare]) -> Iterator[PoolShare]:
    """Yield the shares, with the whole PFs of one IOMMU group counted as one device.

    The PF with the lowest address stands for the group. It is ready if all are, and held if any is.
    """
    groups: dict[int, list[PoolShare]] = {}
    for part in parts:
        if part.indexes is None and part.pf.iommu_group is not None:
            groups.setdefault(part.pf.iommu_group, []).append(part)
    for part in parts:
        group = groups.get(part.pf.iommu_group, []) if part.indexes is None and part.pf.iommu_group is not None else []
        if len(group) < 2:
            yield part
        elif part.pf.pci_address == min(one.pf.pci_address for one in group):
            held = (part.pf.pci_address,) if any(one.held for one in group) else ()
            vfs = part.vfs._replace(in_use=len(held))
            yield replace(part, ready=min(one.ready for one in group), held=held, vfs=vfs)
        else:
            yield replace(part, ready=0, held=(), vfs=VfTotals(), is_partner=True)


def _shares_of(state: NodeNicState, pool: str) -> Iterator[tuple[PfSpec, PfStatus, VfGroup]]:
    by_address = {pf.pci_address: pf for pf in state.status.pfs}
    for spec in state.spec.pfs:
        pf, group = by_address.get(spec.pci_address), group_of(spec, pool)
        if pf is not None and group is not None:
            yield spec, pf, group


def _part(spec: PfSpec, pf: PfStatus, group: VfGroup, pfs: Sequence[PfStatus]) -> PoolShare:
    held = _held_vfs(pf)
    indexes = None if spec.function == "Physical" else _existing(pf, indexes_of(spec, group))
    # The smaller of report and NIC data counts, because an agent chooses the numbers that it reports.
    ready = int(pf.driver == VFIO) if indexes is None else _count_vfio(pf, _common(indexes, range(_most_vfs(pf, pfs))))
    is_withdrawn = pf.problem is not None and pf.problem.reason in _WITHDRAWN
    return PoolShare(
        pf=pf,
        resource=group.resource,
        vfs=_count(spec, pf, group, held),
        ready=0 if is_withdrawn else ready,
        indexes=indexes,
        held=_held(pf, indexes, held),
    )


def _most_vfs(pf: PfStatus, pfs: Sequence[PfStatus]) -> int:
    """Return the most VFs that the NIC data allow, or the overall limit if the model is unknown."""
    model = data_of(pf)
    if model is None or model.max_vfs is None:
        return MOST_VFS
    if model.max_vfs_per == "Function":
        return model.max_vfs
    # What the ports report together is cut at the last ones.
    before = sum(port.num_vfs for port in other_ports(pf, pfs) if port.pci_address < pf.pci_address)
    return max(model.max_vfs - before, 0)


def _count(spec: PfSpec, pf: PfStatus, group: VfGroup, held: Mapping[str, int]) -> VfTotals:
    if spec.function == "Physical":
        return VfTotals(in_use=len(_held(pf, None, held)))
    asked = indexes_of(spec, group)
    # Without a range the pool has all VFs of a PF. Adopted VFs beyond its number were never asked for.
    own = asked if group.range or spec.management == "Adopt" else range(pf.num_vfs)
    return VfTotals(
        desired=0 if spec.release else len(asked),
        configured=len(_existing(pf, own)),
        in_use=len(_held(pf, _existing(pf, own), held)),
    )


def _existing(pf: PfStatus, indexes: range) -> range:
    """Return the indexes whose VFs exist, limited to the most VFs that any NIC has."""
    return _common(indexes, range(min(pf.num_vfs, MOST_VFS)))


def _common(one: range, other: range) -> range:
    return range(max(one.start, other.start), min(one.stop, other.stop))


def _held_vfs(pf: PfStatus) -> dict[str, int]:
    """Return the indexes of the held VFs by address."""
    # Keyed by address, so that a VF that an agent lists twice is counted once.
    return vf_indexes(pf.first_vf, pf.vf_stride, (one.vf for one in pf.held), pf.vf_addresses) if pf.held else {}


def _held(pf: PfStatus, indexes: range | None, held: Mapping[str, int]) -> tuple[str, ...]:
    """Return the addresses of the held VFs, or of the PF itself, without duplicates."""
    if indexes is None:
        return tuple(dict.fromkeys(one.vf for one in pf.held if one.vf == pf.pci_address))
    return tuple(address for address, index in held.items() if index in indexes)


def _count_vfio(pf: PfStatus, wanted: range) -> int:
    """Count the wanted VFs that are on vfio-pci.

    Ranges do not overlap, because a status with overlapping ranges is set aside.
    """
    return sum(len(_common(wanted, range_of(part.range))) for part in pf.vfs if part.driver == VFIO)
