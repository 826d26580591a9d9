"""Device resources of a pool. With `resourcePerPF` it has one for each link name of its PFs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ...api.node_state import NodeNicState
from ...api.pool import MOST_RESOURCES, PoolNetwork, SriovNetworkPool

__all__ = ["PoolResources", "collect_resources", "network_name", "resource_of_link"]


class PoolResources(NamedTuple):
    """Resources that a pool offers, and those beyond the most that it may have."""

    names: tuple[str, ...]
    refused: tuple[str, ...] = ()


def resource_of_link(pool: SriovNetworkPool, link: str, pci_address: str) -> str:
    """Return the resource of one PF of a pool with `resourcePerPF`.

    The name ends with the link's name in the form of a DNS name, or with the PCI address if the PF has no link.
    """
    safe = re.sub(r"[^a-z0-9.-]", "-", link.lower()).strip("-.")
    return f"{pool.resource_name}-{safe or pci_address.replace(':', '-')}"


def collect_resources(pool: SriovNetworkPool, states: Iterable[NodeNicState]) -> PoolResources:
    """Return the resources of a pool on these nodes.

    Link names come from agents, so their number is bounded. Resources that the pool's status lists already come first.
    """
    if not pool.spec.resource_per_pf:
        return PoolResources((pool.resource_name,))
    name = pool.metadata.name
    found = {
        group.resource
        for state in states
        for spec in state.spec.pfs
        if not spec.release
        for group in spec.groups
        if group.pool == name
    }
    published = [one for one in pool.status.resource_names if one in found]
    ordered = (*published, *sorted(found.difference(published)))
    return PoolResources(ordered[:MOST_RESOURCES], ordered[MOST_RESOURCES:])


def network_name(pool: SriovNetworkPool, network: PoolNetwork, resource: str) -> str:
    """Return the name of the NetworkAttachmentDefinition through which VMs get a resource."""
    return network.name + resource.removeprefix(pool.resource_name)
