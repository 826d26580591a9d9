"""PFs of a node that a pool selects.

Names, drivers and link speeds change, also because of what a pool does. For a PF that is already in the pool they count only
where they are known and contradict the selector. Otherwise a switch that goes down would take the VFs of every node behind
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType

from ...api.node_state import VFIO, PfSpec, PfStatus
from ...api.pool import NicSelector, SriovNetworkPool
from ..nics import model_of
from ..state import group_of

__all__ = ["LinkRefusal", "UnknownValues", "find_link_refusals", "matching_pfs", "reported_refusals", "selects_node"]

UnknownValues = Mapping[str, frozenset[str]]
"""Fields of selectors that exclude nothing because the values of a PF are unknown, by PCI address."""
_NONE_UNKNOWN: UnknownValues = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRefusal:
    """A PF that a pool does not take because of the type of its link."""

    node: str
    pci_address: str
    is_named: bool
    """Whether the selector names functions, and not only their kind."""
    message: str


_WILDCARDS = frozenset("*?[")


def selects_node(pool: SriovNetworkPool, labels: Mapping[str, str] | None) -> bool:
    """Return whether a node with these labels belongs to the pool.

    Unknown labels (None) exclude no pool.
    """
    return labels is None or pool.spec.node_selector.items() <= dict(labels).items()


def matching_pfs(
    pool: SriovNetworkPool,
    labels: Mapping[str, str] | None,
    pfs: Iterable[PfStatus],
    present: Iterable[PfSpec],
    unknown: UnknownValues = _NONE_UNKNOWN,
) -> tuple[PfStatus, ...]:
    """Return the PFs of a node that belong to the pool.

    `present` are the PFs of the node's present spec.
    """
    if not selects_node(pool, labels):
        return ()
    name = pool.metadata.name
    had = {spec.pci_address for spec in present if not spec.release and group_of(spec, name) is not None}
    return tuple(
        pf
        for pf in pfs
        if _takes_link(pool, pf)
        and _is_of_kind(selector := _selector_of(pool, pf, unknown), pf)
        and (
            _still_matches(pool, pf)
            if pf.pci_address in had
            else _is_as_asked(selector, pf) and (pool.spec.function == "Physical" or _may_have_vfs(selector, pf))
        )
    )


def _selector_of(pool: SriovNetworkPool, pf: PfStatus, unknown: UnknownValues) -> NicSelector:
    """Return the pool's selector without the fields that ask for unknown values of a PF."""
    selector, left_out = pool.spec.nic_selector, unknown.get(pf.pci_address, frozenset())
    fields = NicSelector.model_fields
    return selector.model_copy(update={field: fields[field].default for field in left_out}) if left_out else selector


def _takes_link(pool: SriovNetworkPool, pf: PfStatus) -> bool:
    """Return whether a pool may take a PF with this type of link.

    VFs of pools are Ethernet adapters. An unknown type excludes nothing.
    """
    return pool.spec.function == "Physical" or not pf.link_type


def find_link_refusals(
    pool: SriovNetworkPool,
    node: str,
    labels: Mapping[str, str] | None,
    pfs: Iterable[PfStatus],
    unknown: UnknownValues = _NONE_UNKNOWN,
) -> tuple[LinkRefusal, ...]:
    """Return the PFs of a node that match the pool's selectors in all but the type of their link."""
    if not selects_node(pool, labels):
        return ()
    selector = pool.spec.nic_selector
    return tuple(
        LinkRefusal(
            node=node,
            pci_address=pf.pci_address,
            is_named=bool(selector.pci_addresses or selector.pf_names),
            message=f"the link of {pf.name or 'the function'} ({pf.pci_address}) is {pf.link_type}, and VFs of pools are "
            "Ethernet adapters: set the port to Ethernet, or choose other functions in spec.nicSelector",
        )
        for pf in pfs
        if not _takes_link(pool, pf) and _is_of_kind(asked := _selector_of(pool, pf, unknown), pf) and _is_as_asked(asked, pf)
    )


def reported_refusals(refusals: Iterable[LinkRefusal], *, matched: bool) -> list[LinkRefusal]:
    """Return the refusals that a pool reports.

    A selector by model is not wrong if it matches ports of both types, as long as it has matched anything else.
    """
    return [one for one in refusals if one.is_named or not matched]


def _is_of_kind(selector: NicSelector, pf: PfStatus) -> bool:
    """Return whether a PF matches in the properties that never change.

    The items of a list are alternatives.
    """
    model = model_of(pf.vendor, pf.device, pf.driver)
    # The agent's word counts only for a model that it alone knows.
    names = model.names if model is not None and model.names else (pf.model,)
    plain = (
        (selector.vendors, pf.vendor),
        (selector.devices, pf.device),
        (selector.pci_addresses, pf.pci_address),
        (selector.numa_nodes, pf.numa_node),
    )
    named = not selector.models or any(name in selector.models for name in names)
    return named and all(not wanted or value in wanted for wanted, value in plain)


def _may_have_vfs(selector: NicSelector, pf: PfStatus) -> bool:
    """Return whether a pool of VFs takes a PF.

    It takes one without SR-IOV if its model has VFs, because only the firmware hides them, or if the selector names this one
    PF. Its status then shows the problem. A selector that happens to match a NIC without SR-IOV leaves it alone.
    """
    model = model_of(pf.vendor, pf.device)
    if pf.total_vfs or pf.num_vfs or (model is not None and model.has_vfs):
        return True
    exact = (glob for glob in selector.pf_names if not _WILDCARDS.intersection(glob))
    return pf.pci_address in selector.pci_addresses or any(name in (pf.name, *pf.alt_names) for name in exact)


def _is_as_asked(selector: NicSelector, pf: PfStatus) -> bool:
    """Return whether a PF matches in the properties that may change."""
    speed = selector.min_link_speed_mbps
    return (
        _has_driver(selector, pf.driver)
        and _has_name(selector, (pf.name, *pf.alt_names))
        and (speed is None or (pf.link_speed_mbps or 0) >= speed)
    )


def _still_matches(pool: SriovNetworkPool, pf: PfStatus) -> bool:
    """Return whether a PF already in the pool still matches.

    Link state and speed are ignored, because both can drop temporarily. A whole NIC that VMs get has no interface name, and
    its driver is vfio-pci, because the pool itself put it there.
    """
    selector = pool.spec.nic_selector
    driver = "" if pool.spec.function == "Physical" and pf.driver == VFIO else pf.driver
    named = not pf.name or _has_name(selector, (pf.name, *pf.alt_names))
    return named and (not driver or _has_driver(selector, driver))


def _has_driver(selector: NicSelector, driver: str) -> bool:
    return not selector.drivers or driver in selector.drivers


def _has_name(selector: NicSelector, names: Iterable[str]) -> bool:
    globs = selector.pf_names
    return not globs or any(fnmatchcase(name, glob) for name in names for glob in globs)
