"""`kubectl vmnic capacity`: how many VFs each pool has, where, and who has them. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..nodes.state import PfSpec, PfStatus
from .decide import Decided
from .objects import Objects

__all__ = ["NodeRow", "PoolRow", "capacity_rows", "wire_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """The functions of a pool on one NUMA node of one node."""

    node: str
    numa: int | None
    desired: int
    configured: int
    in_use: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    """One pool."""

    name: str
    resource: str
    desired: int
    configured: int
    in_use: int
    assigned: int
    reserved: int
    free: int
    nodes: tuple[NodeRow, ...]


def capacity_rows(objects: Objects, decided: Decided) -> list[PoolRow]:
    """Count every pool's VFs; of a Physical pool, its functions."""
    rows = []
    for name, pool in sorted(objects.pools.items()):
        resource = pool.resource_name
        nodes = tuple(
            _node_row(node, numa, pairs)
            for node, state in sorted(objects.node_states.items())
            for numa, pairs in _by_numa(
                [
                    (spec, pf)
                    for spec in state.spec.pfs
                    if spec.pool == name
                    for pf in state.status.pfs
                    if pf.pci_address == spec.pci_address
                ]
            )
        )
        rows.append(
            PoolRow(
                name=name,
                resource=resource,
                desired=sum(row.desired for row in nodes),
                configured=sum(row.configured for row in nodes),
                in_use=sum(row.in_use for row in nodes),
                assigned=decided.capacity.assigned.get(resource, 0),
                reserved=pool.spec.reserve_for_migration,
                free=sum(decided.capacity.free.get(resource, {}).values()),
                nodes=nodes,
            )
        )
    return rows


def _by_numa(pairs: list[tuple[PfSpec, PfStatus]]) -> list[tuple[int | None, list[tuple[PfSpec, PfStatus]]]]:
    numas = sorted({pf.numa_node for _, pf in pairs}, key=lambda numa: (numa is None, numa or 0))
    return [(numa, [pair for pair in pairs if pair[1].numa_node == numa]) for numa in numas]


def _node_row(node: str, numa: int | None, pairs: list[tuple[PfSpec, PfStatus]]) -> NodeRow:
    def configured(spec: PfSpec, pf: PfStatus) -> int:
        return int(pf.driver == "vfio-pci") if spec.function == "Physical" else pf.num_vfs

    return NodeRow(
        node=node,
        numa=numa,
        desired=sum(1 if spec.function == "Physical" else spec.num_vfs for spec, _ in pairs),
        configured=sum(configured(spec, pf) for spec, pf in pairs),
        in_use=sum(len(pf.held) for _, pf in pairs),
    )


def wire_rows(rows: list[PoolRow]) -> dict[str, Any]:
    """Give the rows for `-o json`."""
    return {"apiVersion": "cli.vmnic.dev/v1alpha1", "kind": "Capacity", "pools": [asdict(row) for row in rows]}
