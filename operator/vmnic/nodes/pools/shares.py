"""What a pool has of a physical function: all of its VFs, some of them, or the whole function.

An agent chooses the numbers that are read here, so ranges are compared and never walked beyond what the pool asks for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ...checked.devices import MOST_VFS
from ..addresses import vf_addresses, vf_indexes
from ..nics import model_of
from ..state import VFIO, NodeNicState, PfReason, PfSpec, PfStatus, VfGroup, group_of, indexes_of, range_of

__all__ = ["PoolShare", "VfTotals", "count_vfs", "pool_shares"]


_WITHDRAWN = (PfReason.LINK_ELSEWHERE, PfReason.CARRIER_LOST, PfReason.UNREADABLE)
"""While one of these lasts the agent hands out nothing of a function; of one that vanished nothing is there."""


class VfTotals(NamedTuple):
    """VFs of a pool, on one function or one node."""

    desired: int = 0
    """Of a whole function, 0."""
    configured: int = 0
    """Those that exist, also if no longer asked for: VMs may keep them from going."""
    in_use: int = 0
    """Those of the pool, or whole functions, that somebody holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolShare:
    """One pool's part of one function, as asked and as it is."""

    pf: PfStatus
    resource: str
    """Extended resource that stands for its devices."""
    vfs: VfTotals
    """Also those that are asked for no more."""
    ready: int
    """Devices that are asked for and that a VM can use: on vfio-pci, handed out, and no more than the NIC data allow."""
    indexes: range | None
    """VFs that are asked for and exist; None: the part is the function itself."""
    held: tuple[str, ...]
    """Addresses of those of its devices that are held."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """PCI addresses of the devices that are asked for and exist."""
        pf, indexes = self.pf, self.indexes
        return (pf.pci_address,) if indexes is None else vf_addresses(pf.first_vf, pf.vf_stride, indexes)


def count_vfs(state: NodeNicState, pool: str) -> VfTotals:
    """Count a pool's VFs on a node, also those of functions that it is giving up."""
    totals = [_count(spec, pf, group, _held_vfs(pf)) for spec, pf, group in _shares_of(state, pool)]
    return VfTotals(*(sum(column) for column in zip(*totals, strict=True))) if totals else VfTotals()


def pool_shares(state: NodeNicState, pool: str) -> Iterator[PoolShare]:
    """Give all parts that a pool has on a node, and is not giving up."""
    for spec, pf, group in _shares_of(state, pool):
        if not spec.release:
            yield _part(spec, pf, group)


def _shares_of(state: NodeNicState, pool: str) -> Iterator[tuple[PfSpec, PfStatus, VfGroup]]:
    by_address = {pf.pci_address: pf for pf in state.status.pfs}
    for spec in state.spec.pfs:
        pf, group = by_address.get(spec.pci_address), group_of(spec, pool)
        if pf is not None and group is not None:
            yield spec, pf, group


def _part(spec: PfSpec, pf: PfStatus, group: VfGroup) -> PoolShare:
    held = _held_vfs(pf)
    indexes = None if spec.function == "Physical" else _existing(pf, indexes_of(spec, group))
    ready = int(pf.driver == VFIO) if indexes is None else _count_vfio(pf, _common(indexes, range(_most_vfs(pf))))
    is_withdrawn = pf.problem is not None and pf.problem.reason in _WITHDRAWN
    return PoolShare(
        pf=pf,
        resource=group.resource,
        vfs=_count(spec, pf, group, held),
        ready=0 if is_withdrawn else ready,
        indexes=indexes,
        held=_held(pf, indexes, held),
    )


def _most_vfs(pf: PfStatus) -> int:
    """Return how many VFs the NIC data allow; a model that is not known has no bound of its own."""
    model = model_of(pf.vendor, pf.device)
    return model.max_vfs if model is not None else MOST_VFS


def _count(spec: PfSpec, pf: PfStatus, group: VfGroup, held: Mapping[str, int]) -> VfTotals:
    if spec.function == "Physical":
        return VfTotals(in_use=len(_held(pf, None, held)))
    asked = indexes_of(spec, group)
    # Without a range all VFs of a function are the pool's, but adopted ones beyond its number were never asked for.
    own = asked if group.range or spec.management == "Adopt" else range(pf.num_vfs)
    return VfTotals(
        desired=0 if spec.release else len(asked),
        configured=len(_existing(pf, own)),
        in_use=len(_held(pf, _existing(pf, own), held)),
    )


def _existing(pf: PfStatus, indexes: range) -> range:
    """Return those of these indexes whose VFs exist, at most as many as any NIC has."""
    return _common(indexes, range(min(pf.num_vfs, MOST_VFS)))


def _common(one: range, other: range) -> range:
    return range(max(one.start, other.start), min(one.stop, other.stop))


def _held_vfs(pf: PfStatus) -> dict[str, int]:
    """Return the indexes of the held VFs by address."""
    return vf_indexes(pf.first_vf, pf.vf_stride, (one.vf for one in pf.held)) if pf.held else {}


def _held(pf: PfStatus, indexes: range | None, held: Mapping[str, int]) -> tuple[str, ...]:
    """Return the addresses of those VFs, or of the function itself, that are held; each once."""
    if indexes is None:
        return tuple(dict.fromkeys(one.vf for one in pf.held if one.vf == pf.pci_address))
    return tuple(address for address, index in held.items() if index in indexes)


def _count_vfio(pf: PfStatus, wanted: range) -> int:
    """Count the wanted VFs that are on vfio-pci; ranges that overlap are not read in the first place."""
    return sum(len(_common(wanted, range_of(part.range))) for part in pf.vfs if part.driver == VFIO)
