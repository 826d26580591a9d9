"""PCI functions of the pools that a domain may get.

libvirt needs addresses, whereas Kubernetes needs only counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..api.node_state import NodeNicState
from ..api.pool import SriovNetworkPool
from ..checked.devices import is_pci_address
from ..nodes.pools.shares import pool_shares

__all__ = ["FreeFunctions", "free_functions"]


@dataclass
class FreeFunctions:
    """Functions without a holder. A taken function is not given out again."""

    by_node: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """PCI addresses by node and resource."""
    owners: dict[str, str] = field(default_factory=dict)
    """Resource by PCI address, including functions that have a holder."""

    def take(self, wanted: Mapping[str, int]) -> dict[str, list[str]] | None:
        """Take functions for one domain, all from one node.

        Returns:
            PCI addresses by resource, or None if no node has enough.
        """
        for _, resources in sorted(self.by_node.items()):
            if all(len(resources.get(resource, ())) >= count for resource, count in wanted.items()):
                return {resource: [resources[resource].pop(0) for _ in range(count)] for resource, count in wanted.items()}
        return None


def free_functions(pools: Mapping[str, SriovNetworkPool], states: Mapping[str, NodeNicState]) -> FreeFunctions:
    """Collect the functions of the pools on all nodes."""
    found = FreeFunctions()
    for name, state in states.items():
        for pool in pools.values():
            for part in pool_shares(state, pool.metadata.name):
                # The addresses come from agents and are written to a domain's XML, so they are validated.
                addresses = [address for address in part.addresses if is_pci_address(address)]
                found.owners |= dict.fromkeys(addresses, part.resource)
                free = found.by_node.setdefault(name, {}).setdefault(part.resource, [])
                free += [address for address in addresses if address not in part.held]
    return found
