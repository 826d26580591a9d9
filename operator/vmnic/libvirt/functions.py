"""Which PCI functions of the pools a domain may be given; libvirt takes addresses where Kubernetes counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..api.pool import SriovNetworkPool
from ..nodes.state import NodeNicState, PfStatus

__all__ = ["FreeFunctions", "free_functions", "vf_address"]


@dataclass
class FreeFunctions:
    """Functions that nobody holds; what is taken is not given again."""

    by_node: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """PCI addresses by node and resource."""
    owners: dict[str, str] = field(default_factory=dict)
    """Resource by PCI address, also of functions that are held."""

    def take(self, wanted: Mapping[str, int]) -> dict[str, list[str]] | None:
        """Take functions for one domain, all from one node; None if no node has enough."""
        for _, resources in sorted(self.by_node.items()):
            if all(len(resources.get(resource, ())) >= count for resource, count in wanted.items()):
                return {resource: [resources[resource].pop(0) for _ in range(count)] for resource, count in wanted.items()}
        return None


def free_functions(pools: Mapping[str, SriovNetworkPool], states: Mapping[str, NodeNicState]) -> FreeFunctions:
    """Collect the functions of the pools' nodes."""
    found = FreeFunctions()
    for name, state in states.items():
        by_address = {pf.pci_address: pf for pf in state.status.pfs}
        for spec in state.spec.pfs:
            pool, pf = pools.get(spec.pool), by_address.get(spec.pci_address)
            if pool is None or pf is None:
                continue
            own = [pf.pci_address] if spec.function == "Physical" else _vfs(pf)
            held = {one.vf for one in pf.held}
            found.owners |= dict.fromkeys(own, pool.resource_name)
            free = found.by_node.setdefault(name, {}).setdefault(pool.resource_name, [])
            free += [address for address in own if address not in held]
    return found


def _vfs(pf: PfStatus) -> list[str]:
    return [vf_address(pf.first_vf, pf.vf_stride, index) for index in range(pf.num_vfs)] if pf.first_vf else []


def vf_address(first: str, stride: int, index: int) -> str:
    """Give the PCI address of a VF: the function's routing id grows by the stride (PCIe SR-IOV capability)."""
    domain, bus, rest = first.split(":")
    device, function = rest.split(".")
    routing_id = (int(bus, 16) << 8) + (int(device, 16) << 3) + int(function) + index * stride
    return f"{domain}:{routing_id >> 8:02x}:{(routing_id >> 3) & 31:02x}.{routing_id & 7}"
