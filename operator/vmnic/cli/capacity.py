"""VFs of each pool by node, and their use. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ..nodes.pools.resources import collect_resources
from ..nodes.pools.shares import PoolShare, pool_shares
from .objects import Objects
from .offline import Decided

__all__ = ["NodeRow", "PoolRow", "capacity_cells", "capacity_json", "capacity_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """A pool's functions on one NUMA node of one node."""

    node: str
    numa: int | None
    desired: int
    configured: int
    in_use: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    """Counts of one pool."""

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
    """Count every pool's VFs, or the functions of a Physical pool."""
    rows = []
    for name, pool in sorted(objects.pools.items()):
        resource = pool.resource_name
        resources = collect_resources(pool, objects.node_states.values()).names
        nodes = tuple(
            _node_row(node, numa, parts)
            for node, state in sorted(objects.node_states.items())
            for numa, parts in _by_numa(list(pool_shares(state, name)))
        )
        rows.append(
            PoolRow(
                name=name,
                resource=resource,
                desired=sum(row.desired for row in nodes),
                configured=sum(row.configured for row in nodes),
                in_use=sum(row.in_use for row in nodes),
                assigned=sum(decided.capacity.assigned.get(one, 0) for one in resources),
                reserved=pool.spec.reserve_for_migration,
                free=sum(sum(decided.capacity.free.get(one, {}).values()) for one in resources),
                nodes=nodes,
            )
        )
    return rows


def _by_numa(parts: list[PoolShare]) -> list[tuple[int | None, list[PoolShare]]]:
    # None does not compare with numbers, so it is sorted last by a flag.
    numas = sorted({part.pf.numa_node for part in parts}, key=lambda numa: (numa is None, numa or 0))
    return [(numa, [part for part in parts if part.pf.numa_node == numa]) for numa in numas]


def _node_row(node: str, numa: int | None, parts: list[PoolShare]) -> NodeRow:
    """Count devices, which are VFs, or whole functions of a Physical pool."""
    return NodeRow(
        node=node,
        numa=numa,
        desired=sum(part.vfs.desired or len(part.addresses) for part in parts),
        configured=sum(part.vfs.configured or part.ready for part in parts),
        in_use=sum(part.vfs.in_use for part in parts),
    )


def capacity_cells(rows: Iterable[PoolRow]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the columns and the rows of a table of pools, each followed by its nodes."""
    cells: list[tuple[str, ...]] = []
    for row in rows:
        counts = (row.desired, row.configured, row.in_use, row.assigned, row.reserved, row.free)
        cells.append((row.name, "", "", *map(str, counts)))
        for node in row.nodes:
            numa = "" if node.numa is None else str(node.numa)
            cells.append(("", node.node, numa, str(node.desired), str(node.configured), str(node.in_use), "", "", ""))
    return ("POOL", "NODE", "NUMA", "DESIRED", "CONFIGURED", "IN USE", "ASSIGNED", "RESERVED", "FREE"), cells


def capacity_json(rows: list[PoolRow]) -> dict[str, Any]:
    """Return the rows for `-o json`."""
    return {"apiVersion": "cli.vmnic.dev/v1alpha1", "kind": "Capacity", "pools": [asdict(row) for row in rows]}
