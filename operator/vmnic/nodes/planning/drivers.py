"""What the functions of one driver have in common: its module options, and whether it may be loaded anew.

A driver's `max_vfs` holds for all of its functions, and to load it anew takes every one of them from whoever uses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..observed import ObservedPf
from ..state import PfSpec
from .target import Original, uses_of

__all__ = ["NO_SHARED_DRIVER", "DriverFacts", "gather_driver"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverFacts:
    """What holds for all functions of a driver on this node."""

    options: str = ""
    """What its file below /etc/modprobe.d should say; empty: there should be none."""
    others: tuple[str, ...] = ()
    """PCI addresses of its other functions."""
    in_use: tuple[str, ...] = ()
    """Why it cannot be loaded anew, in words; empty: it can."""


NO_SHARED_DRIVER = DriverFacts()
"""A driver of which nothing is known: no options, nobody else."""


def gather_driver(
    pf: ObservedPf,
    observed: Iterable[ObservedPf],
    desired: Iterable[PfSpec],
    originals: Mapping[str, Original | None],
) -> DriverFacts:
    """Look at all functions that have the driver of this one.

    Args:
        pf: The function.
        observed: All functions of the node.
        desired: All that is asked of the node.
        originals: What vmnic's functions were like before it came, by their address.
    """
    wanted = {spec.pci_address: spec for spec in desired}
    ports = [one for one in observed if one.driver == pf.driver]
    counts = [spec.num_vfs for port in ports if (spec := wanted.get(port.pci_address)) is not None and _by_options(spec)]
    most = max(counts, default=0)
    known = {port.pci_address for port in ports}
    unknown = [address for address in pf.driver_functions if address not in known]
    return DriverFacts(
        options=f"max_vfs={most}" if most else "",
        others=tuple(port.pci_address for port in ports if port.pci_address != pf.pci_address),
        in_use=(
            *(words for port in ports for words in _uses(port, wanted.get(port.pci_address), most, originals)),
            *(f"{address} has it too, and no VFs to offer" for address in unknown),
        ),
    )


def _by_options(spec: PfSpec) -> bool:
    return spec.persistence == "ModuleOptions" and not spec.release


def _uses(port: ObservedPf, spec: PfSpec | None, count: int, originals: Mapping[str, Original | None]) -> Iterator[str]:
    """Say what stands against taking the driver from a function and giving it `count` VFs."""
    yield from (f"{port.pci_address} carries the host's {use}" for use in uses_of(port, originals.get(port.pci_address)))
    yield from (f"{address} is held" for address in port.held_addresses)
    if spec is None:
        yield f"{port.pci_address} belongs to no pool"
    elif not spec.release and (not _by_options(spec) or spec.num_vfs != count):
        yield f"{port.pci_address} is asked to have {spec.num_vfs} VFs with persistence: {spec.persistence}"
