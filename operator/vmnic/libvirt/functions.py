"""PCI functions of the pools that a domain may get.

libvirt needs addresses, whereas Kubernetes needs only counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
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

    places: dict[str, set[str]] = field(default_factory=dict)
    """Nodes that have a PCI address, including those of functions that have a holder."""
    vlans: dict[str, int] = field(default_factory=dict)
    """VLAN of the pool by resource, if the pool sets one."""
    granted: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """PCI addresses by domain and resource that were taken for a domain."""

    def take(self, wanted: Mapping[str, int], own: Collection[str] = (), host: str = "") -> dict[str, list[str]] | None:
        """Take functions for one domain, all from one node.

        Args:
            wanted: Number of functions by resource.
            own: PCI addresses that the domain has already. They show on which nodes it may be.
            host: The node that the domain is on; empty if that is not known.

        Returns:
            PCI addresses by resource, or None if no node has enough.
        """
        known = [self.places[address] for address in own if address in self.places]
        known += [{host}] if host else []
        # As in `allocate`, the node with the fewest free functions that suffice, so that large blocks stay free.
        for name in sorted(self.by_node, key=lambda name: (self._count_free(name, wanted), name)):
            resources = self.by_node[name]
            is_possible = all(name in nodes for nodes in known)
            if is_possible and all(len(resources.get(resource, ())) >= count for resource, count in wanted.items()):
                return {resource: [resources[resource].pop(0) for _ in range(count)] for resource, count in wanted.items()}
        return None

    def _count_free(self, node: str, wanted: Mapping[str, int]) -> int:
        return sum(len(self.by_node[node].get(resource, ())) for resource in wanted)

    def withhold(self, addresses: Collection[str]) -> None:
        """Remove functions that domains name already, running or not."""
        for resources in self.by_node.values():
            for resource, free in resources.items():
                resources[resource] = [address for address in free if address not in addresses]


def free_functions(pools: Mapping[str, SriovNetworkPool], states: Mapping[str, NodeNicState]) -> FreeFunctions:
    """Collect the functions of the pools on all nodes."""
    found = FreeFunctions()
    for name, state in states.items():
        for pool in pools.values():
            vlan = pool.spec.vf.vlan if pool.spec.vf is not None else None
            for part in pool_shares(state, pool.metadata.name):
                # The addresses come from agents and are written to a domain's XML, so they are validated.
                addresses = [address for address in part.addresses if is_pci_address(address)]
                found.owners |= dict.fromkeys(addresses, part.resource)
                if vlan:
                    found.vlans[part.resource] = vlan
                for address in addresses:
                    found.places.setdefault(address, set()).add(name)
                free = found.by_node.setdefault(name, {}).setdefault(part.resource, [])
                free += [address for address in addresses if address not in part.held]
    return found
