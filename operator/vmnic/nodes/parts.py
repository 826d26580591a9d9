"""What a pool has of a physical function: all of its VFs, some of them, or the whole function."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .addresses import vf_address
from .state import VFIO, NodeNicState, PfSpec, PfStatus, group_of, indexes_of, range_of

__all__ = ["Part", "VfTotals", "count_vfs", "part_of", "parts_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One pool's part of one function, as asked and as it is."""

    pf: PfStatus
    desired: int
    """VFs that the pool asks for; of a whole function, 0."""
    configured: int
    """VFs of the part that exist."""
    ready: int
    """Devices of the part that a VM can use: they are on vfio-pci."""
    addresses: tuple[str, ...]
    """PCI addresses of the devices that exist."""
    held: tuple[str, ...]
    """Of these, those that somebody holds."""


class VfTotals(NamedTuple):
    """VFs of a pool on one node."""

    desired: int = 0
    configured: int = 0
    in_use: int = 0


def count_vfs(state: NodeNicState, pool: str) -> VfTotals:
    """Count a pool's VFs on a node."""
    parts = list(parts_of(state, pool))
    return VfTotals(
        sum(part.desired for part in parts), sum(part.configured for part in parts), sum(len(part.held) for part in parts)
    )


def parts_of(state: NodeNicState, pool: str) -> Iterator[Part]:
    """Give all parts that a pool has on a node."""
    by_address = {pf.pci_address: pf for pf in state.status.pfs}
    for spec in state.spec.pfs:
        pf = by_address.get(spec.pci_address)
        part = part_of(spec, pf, pool) if pf is not None else None
        if part is not None:
            yield part


def part_of(spec: PfSpec, pf: PfStatus, pool: str) -> Part | None:
    """Give a pool's part of a function; None if it has none."""
    group = group_of(spec, pool)
    if group is None or spec.release:
        return None
    held = {one.vf for one in pf.held}
    if spec.function == "Physical":
        own = (pf.pci_address,)
        return Part(
            pf=pf,
            desired=0,
            configured=0,
            ready=int(pf.driver == VFIO),
            addresses=own,
            held=tuple(address for address in own if address in held),
        )
    indexes = indexes_of(spec, group)
    present = [index for index in indexes if index < pf.num_vfs]
    addresses = tuple(vf_address(pf.first_vf, pf.vf_stride, index) for index in present) if pf.first_vf else ()
    return Part(
        pf=pf,
        desired=len(indexes),
        configured=len(present),
        ready=sum(index in indexes for index in _vfio_indexes(pf)),
        addresses=addresses,
        held=tuple(address for address in addresses if address in held),
    )


def _vfio_indexes(pf: PfStatus) -> Iterator[int]:
    for part in pf.vfs:
        if part.driver == VFIO:
            yield from range_of(part.range)
