"""One pool: ended runs give their slots back, waiting plans get grants within the budget, the status says how far it is."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from ...api.pool import SriovNetworkPool
from ...kube.client import ApiClient
from ...kube.conditions import merged_conditions
from ...kube.events import Events
from ...kube.reflector import ObjectKey
from ...kube.resources import POOLS
from ...nodes.budget import Entry, NodeView, choose_grants, settle_ledger
from ...nodes.match import matching_pfs, selects_node
from ...nodes.merge import PoolConflict, merge_pools
from ...nodes.state import NodeSpec
from ...nodes.summary import summarise_pool
from ..keys import node_key
from ..ledger import LedgerStore
from ..news import POOL_NEWS, news_of, pool_subject
from ..world import Enqueue, World
from .nodes import plan_node_spec

__all__ = ["PoolReconciler"]

_log = logging.getLogger(__name__)

_SLICE = 50
"""Nodes that are looked at in one go: a few milliseconds."""


@dataclass(frozen=True, slots=True)
class _PoolFacts:
    """The nodes of a pool and where it gave way to an older one."""

    nodes: tuple[NodeView, ...]
    conflicts: tuple[PoolConflict, ...]


class PoolReconciler:
    """Keeps pools moving and their statuses true."""

    def __init__(self, world: World, api: ApiClient, ledger: LedgerStore, enqueue: Enqueue, events: Events) -> None:
        self._world = world
        self._api = api
        self._ledger = ledger
        self._enqueue = enqueue
        self._events = events

    async def reconcile(self, name: str) -> None:
        """Settle, grant, report.

        Raises:
            ConflictError: the ledger was written by somebody else; the queue decides again on what it says now.
            ApiError: a write failed; the queue tries again.
        """
        key = ObjectKey("", name)
        pool = self._world.pools.items.get(key)
        if pool is None:
            if key not in self._world.pools.malformed and name in self._ledger.current.pools:
                await self._ledger.save(self._ledger.current.with_pool(name, None))
            return
        facts = await self._gather(pool)
        await self._grant(pool, facts)
        await self._report(pool, facts)

    async def _gather(self, pool: SriovNetworkPool) -> _PoolFacts:
        """Collect the nodes that have a function of the pool, in slices, so that admission is not kept waiting."""
        pools = tuple(self._world.pools.items.values())
        unreadable = {key.name for key in self._world.pools.malformed}
        views: list[NodeView] = []
        conflicts: dict[PoolConflict, None] = {}
        for number, (node, state) in enumerate(list(self._world.node_views())):
            if number % _SLICE == 0:
                await asyncio.sleep(0)
            labels = node.metadata.labels
            if state is None or not selects_node(pool, labels):
                continue
            matched = matching_pfs(pool, labels, state.status.pfs)
            if not matched:
                continue
            conflicts.update(dict.fromkeys(merge_pools(pools, labels, state.status.pfs).conflicts))
            wanted = plan_node_spec(labels, state, pools=pools, unreadable_pools=unreadable, ledger=self._ledger.current)
            current = _without_grants(wanted) == _without_grants(state.spec)
            views.append(NodeView(name=node.metadata.name, state=state, current=current))
        return _PoolFacts(nodes=tuple(views), conflicts=tuple(conflicts))

    async def _grant(self, pool: SriovNetworkPool, facts: _PoolFacts) -> None:
        """Write the ledger first; the nodes then copy their grants from it."""
        name = pool.metadata.name
        before = self._ledger.current.of(name)
        part = settle_ledger(before, pool, facts.nodes)
        grants = choose_grants(part, pool, facts.nodes, matched=len(facts.nodes))
        entries = {
            grant.node: Entry(generation=pool.metadata.generation, boot_id=grant.boot_id, digests=grant.digests)
            for grant in grants
        }
        part = msgspec.structs.replace(part, entries=part.entries | entries)
        if part == before:
            return
        await self._ledger.save(self._ledger.current.with_pool(name, part))
        for grant in grants:
            _log.info("pool %s: node %s may start", name, grant.node, extra={"pool": name, "node": grant.node})
        for node in {*before.entries, *part.entries}:
            if before.entries.get(node) != part.entries.get(node):
                self._enqueue(node_key(node))

    async def _report(self, pool: SriovNetworkPool, facts: _PoolFacts) -> None:
        name = pool.metadata.name
        capacity = self._world.devices.capacity if self._world.machines_synced else None
        status = summarise_pool(pool, facts.nodes, self._ledger.current.of(name), facts.conflicts)
        if capacity is not None:
            resource = pool.resource_name
            counts = {"assigned": capacity.assigned.get(resource, 0), "reserved": pool.spec.reserve_for_migration}
            counts["free"] = sum(capacity.free.get(resource, {}).values())
            status = status.model_copy(update={"vfs": status.vfs.model_copy(update=counts)})
        conditions = merged_conditions(pool.status.conditions, status.conditions, now=datetime.now(UTC))
        status = status.model_copy(update={"conditions": conditions})
        if status != pool.status:
            body = [{"op": "add", "path": "/status", "value": status.dump()}]
            await self._api.patch_json(POOLS, name, body, subresource="status")
            for kind, told in news_of(pool.status.conditions, conditions, POOL_NEWS):
                self._events.tell(pool_subject(pool), kind, told.reason, "Prepare", told.message or told.reason)


def _without_grants(spec: NodeSpec) -> NodeSpec:
    return NodeSpec(synced=spec.synced, pfs=tuple(msgspec.structs.replace(pf, grant=None) for pf in spec.pfs))
