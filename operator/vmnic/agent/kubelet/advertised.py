"""What each PF offers, from its spec, its last granted spec and the change that runs.

A spec that has not been applied yet offers nothing. Until it is, the devices of the last granted spec are advertised. The
functions here have no side effects.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ...api.node_state import NodeSpec, PfSpec
from ...nodes.observed import ObservedPf
from ...nodes.planning.plan import Planned
from ..journal import Journal, PfRecord
from .devices import AdvertisedDevices

__all__ = ["advertised_devices"]


def advertised_devices(
    spec: NodeSpec,
    observed: Mapping[str, ObservedPf],
    planned: Mapping[str, Planned],
    journal: Journal,
    unreadable: Collection[str],
    link_down: Collection[str] = (),
) -> list[AdvertisedDevices]:
    """Return what the PFs of a node offer.

    Args:
        spec: The node's spec. Until the controller has synced it, everything that was granted stays advertised.
        observed: The PFs that answered, by PCI address.
        planned: The plan of each PF.
        journal: What vmnic records of them.
        unreadable: PFs that did not answer.
        link_down: PCI addresses of PFs that lost link.
    """
    if not spec.synced:
        granted = (record.granted for record in journal.pfs.values())
        spec = NodeSpec(pfs=tuple(one for one in granted if one is not None))
        # The plans are for the unsynced spec. Without them, the granted specs below count as applied.
        planned = {}
    offers = []
    for desired in spec.pfs:
        address = desired.pci_address
        pf, record = observed.get(address), journal.of(address)
        plan = planned.get(address, Planned()) if pf is not None else None
        in_force = _in_force(desired, plan, record)
        if in_force is not None:
            fault = _fault(desired, record, pf, unreadable=address in unreadable, link_down=address in link_down)
            offers.append(AdvertisedDevices(spec=in_force, pf=pf, fault=fault))
    return offers


def _in_force(desired: PfSpec, plan: Planned | None, record: PfRecord) -> PfSpec | None:
    """Return the spec by which a PF is advertised, or None if it is not advertised.

    Args:
        desired: The spec that the controller asks for.
        plan: The plan of the PF. None if the PF was not observed, so that no plan could be made.
        record: What the journal records of the PF.
    """
    if desired.release:
        return record.granted
    if plan is not None and plan.plan is None and plan.problem is None:
        return desired
    if record.granted is not None:
        return record.granted
    # A failed change leaves no granted spec. Its devices that are as desired can still be used.
    return desired if record.original is not None else None


def _fault(desired: PfSpec, record: PfRecord, pf: ObservedPf | None, *, unreadable: bool, link_down: bool) -> str:
    if pf is None:
        return f"{desired.pci_address} does not answer" if unreadable else f"{desired.pci_address} is not on the bus"
    if record.running is not None:
        return f"{desired.pci_address} is being changed"
    if pf.link_elsewhere:
        return f"the link of {desired.pci_address} is in another network namespace"
    if desired.release:
        return f"{desired.pci_address} is being released"
    return "no carrier" if link_down else ""
