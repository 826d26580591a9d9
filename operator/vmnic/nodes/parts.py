"""What a pool has of a physical function: all of its VFs, some of them, or the whole function."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .addresses import vf_address
from .state import VFIO, NodeNicState, PfReason, PfSpec, PfStatus, VfGroup, group_of, indexes_of, range_of

__all__ = ["Part", "VfTotals", "count_vfs", "parts_of"]


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
class Part:
    """One pool's part of one function, as asked and as it is."""

    pf: PfStatus
    vfs: VfTotals
    """Also those that are asked for no more."""
    ready: int
    """Devices that are asked for and that a VM can use: they are on vfio-pci, and handed out."""
    addresses: tuple[str, ...]
    """PCI addresses of the devices that are asked for and exist."""
    held: tuple[str, ...]
    """Of these, those that somebody holds."""


def count_vfs(state: NodeNicState, pool: str) -> VfTotals:
    """Count a pool's VFs on a node, also those of functions that it is giving up."""
    totals = [_count(spec, pf, group) for spec, pf, group in _shares_of(state, pool)]
    return VfTotals(*(sum(column) for column in zip(*totals, strict=True))) if totals else VfTotals()


def parts_of(state: NodeNicState, pool: str) -> Iterator[Part]:
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


def _part(spec: PfSpec, pf: PfStatus, group: VfGroup) -> Part:
    vfs = _count(spec, pf, group)
    if spec.function == "Physical":
        addresses: tuple[str, ...] = (pf.pci_address,)
        ready = int(pf.driver == VFIO)
    else:
        indexes = indexes_of(spec, group)
        addresses = _addresses(pf, indexes)
        ready = sum(index in indexes for index in _vfio_indexes(pf))
    is_withdrawn = pf.problem is not None and pf.problem.reason in _WITHDRAWN
    return Part(pf=pf, vfs=vfs, ready=0 if is_withdrawn else ready, addresses=addresses, held=_held(pf, addresses))


def _count(spec: PfSpec, pf: PfStatus, group: VfGroup) -> VfTotals:
    if spec.function == "Physical":
        return VfTotals(in_use=len(_held(pf, (pf.pci_address,))))
    asked = indexes_of(spec, group)
    # Without a range all VFs of a function are the pool's, but adopted ones beyond its number were never asked for.
    own = asked if group.range or spec.management == "Adopt" else range(pf.num_vfs)
    return VfTotals(
        desired=0 if spec.release else len(asked),
        configured=sum(index < pf.num_vfs for index in own),
        in_use=len(_held(pf, _addresses(pf, own))),
    )


def _addresses(pf: PfStatus, indexes: range) -> tuple[str, ...]:
    """Addresses of the VFs with these indexes that exist."""
    present = (index for index in indexes if index < pf.num_vfs)
    return tuple(vf_address(pf.first_vf, pf.vf_stride, index) for index in present) if pf.first_vf else ()


def _held(pf: PfStatus, addresses: tuple[str, ...]) -> tuple[str, ...]:
    held = {one.vf for one in pf.held}
    return tuple(address for address in addresses if address in held)


def _vfio_indexes(pf: PfStatus) -> Iterator[int]:
    for part in pf.vfs:
        if part.driver == VFIO:
            yield from range_of(part.range)
