"""Facts that all functions of one driver share.

These are the driver's module options, and whether it may be reloaded. A driver's parameter applies to all of its functions,
and reloading the driver takes every one of them from its user.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ...api.node_state import VFIO, PfSpec
from ..observed import ObservedPf
from ..udev_rules import ANY_DRIVER, rule_of
from ..vf_limits import count_other_ports, data_of
from .target import Original, uses_of

__all__ = ["NO_SHARED_DRIVER", "DriverFacts", "gather_driver"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverFacts:
    """Facts about all functions of a driver on this node."""

    options: str = ""
    """Options that its file below /etc/modprobe.d should contain; empty if there should be no file."""
    udev_rules: tuple[str, ...] | None = None
    """Names of the rules that udev should have for the PF itself; None if that is not asked."""
    others: tuple[str, ...] = ()
    """PCI addresses of its other functions."""
    in_use: tuple[str, ...] = ()
    """Why it cannot be reloaded, in words; empty if it can."""
    other_ports_vfs: int = 0
    """VFs that other ports of the PF's device take, for models whose data allow a number for all ports together."""


NO_SHARED_DRIVER = DriverFacts()
"""A driver without options and without other functions."""


def gather_driver(
    pf: ObservedPf,
    observed: Collection[ObservedPf],
    desired: Iterable[PfSpec],
    originals: Mapping[str, Original | None],
) -> DriverFacts:
    """Collect the facts about the driver of a PF from all functions that use it.

    Args:
        pf: The PF.
        observed: All PFs of the node.
        desired: All specs of the node.
        originals: Values of vmnic's PFs before vmnic changed them, by address.
    """
    wanted = {spec.pci_address: spec for spec in desired}
    ports = [one for one in observed if one.driver == pf.driver]
    counts = [spec.num_vfs for port in ports if (spec := wanted.get(port.pci_address)) is not None and _by_options(spec)]
    # One number for all ports. A port that asks for fewer VFs appears in `in_use`, so the driver is not reloaded.
    most = max(counts, default=0)
    model = data_of(pf)
    parameter = model.parameter if model is not None else None
    known = {port.pci_address for port in ports} | {vf.pci_address for port in ports for vf in port.vfs}
    # A function that could not be read loses its link in a reload like all others.
    unknown = [address for address in pf.driver_functions if address not in known]
    return DriverFacts(
        options=f"{parameter}={most}" if most and parameter else "",
        udev_rules=_udev_rules(pf, wanted.get(pf.pci_address)),
        others=tuple(port.pci_address for port in ports if port.pci_address != pf.pci_address),
        in_use=(
            *(words for port in ports for words in _uses(port, wanted.get(port.pci_address), most, originals)),
            *(f"{address} uses this driver too, and was not read" for address in unknown),
            # Those of the PF itself are blockers of its plan.
            *(f"{one.pci_address}: {use}" for one in ports if one.pci_address != pf.pci_address for use in one.outside_uses),
        ),
        other_ports_vfs=count_other_ports(pf, observed, wanted),
    )


def _udev_rules(pf: ObservedPf, spec: PfSpec | None) -> tuple[str, ...]:
    """Return the rules that udev should have for a PF."""
    if spec is None or spec.persistence != "Udev" or spec.release or not spec.num_vfs:
        return ()
    # With MAC addresses of the pool, the agent binds kernel drivers after it has set the addresses.
    autoprobe = not any(group.driver == VFIO or (group.settings and group.settings.mac_prefix) for group in spec.groups)
    own = pf.driver if pf.driver not in ("", VFIO) else ANY_DRIVER
    rules = (rule_of(spec.pool, driver, spec.num_vfs, autoprobe=autoprobe) for driver in (ANY_DRIVER, own))
    # A rule from the time when the PF was on vfio-pci stays as it is.
    general, exact = rules
    return (general,) if general in pf.udev_rules else (exact,)


def _by_options(spec: PfSpec) -> bool:
    return spec.persistence == "ModuleOptions" and not spec.release


def _uses(port: ObservedPf, spec: PfSpec | None, count: int, originals: Mapping[str, Original | None]) -> Iterator[str]:
    """Yield the reasons against reloading the driver of a PF and giving it `count` VFs."""
    yield from (
        f"{port.pci_address} carries traffic of the host: {use}" for use in uses_of(port, originals.get(port.pci_address))
    )
    yield from (f"{address} is held" for address in port.held_addresses)
    if spec is None:
        yield f"{port.pci_address} belongs to no pool"
    elif not spec.release and (not _by_options(spec) or spec.num_vfs != count):
        yield f"{port.pci_address} needs {spec.num_vfs} VFs with persistence: {spec.persistence}"
