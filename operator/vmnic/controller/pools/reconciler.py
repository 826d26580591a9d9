"""Reconciler of one pool, which advances its rollout, maintains its networks and reports its status.

A deleted pool keeps its finalizer until its nodes have released all functions and its networks are gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

from ...api.node_state import NodeNicState
from ...api.pool import PoolProblem, SriovNetworkPool
from ...api.reasons import PfReason, PoolProblemReason
from ...kube.client import ApiClient
from ...kube.events import Events
from ...kube.reflector import ObjectKey
from ...kube.resources import POOLS
from ...nodes.pools.match import LinkRefusal, find_link_refusals, matching_pfs, reported_refusals
from ...nodes.pools.merge import PoolConflict, find_resource_conflicts, merge_pools
from ...nodes.pools.shares import count_vfs
from ...nodes.rollout.ledger import Ledger, NodeView
from ...nodes.rollout.release import ABANDON, FINALIZER
from ...nodes.rollout.summary import summarise_pool
from ..caches.cluster_cache import ClusterCache
from ..caches.projections import NodeObject
from ..status.status_writer import StatusWriter
from .ledger import LedgerStore
from .networks import NetworkReconciler
from .nodes import plan_node_spec, without_grants
from .rollouts import Progress, Rollouts
from .survival import SurvivalCheck

__all__ = ["PoolReconciler"]

_log = logging.getLogger(__name__)

_SLICE = 50
"""Nodes visited before the event loop gets a turn: a few milliseconds."""
_LOST_S = 30.0
"""Interval between passes for changes that cause no event."""


@dataclass(frozen=True, slots=True)
class _PoolFacts:
    """The nodes of a pool, and where it lost to an older pool."""

    nodes: tuple[NodeView, ...]
    conflicts: tuple[PoolConflict, ...]
    refusals: tuple[LinkRefusal, ...]


class _Looked(NamedTuple):
    """Cached result for a node, valid while neither the node nor the pools change."""

    node: NodeObject
    state: NodeNicState
    pools: object
    view: NodeView | None
    conflicts: tuple[PoolConflict, ...]
    refusals: tuple[LinkRefusal, ...]


class PoolReconciler:
    """Reconciles pools with their rollouts, networks and statuses."""

    def __init__(
        self,
        world: ClusterCache,
        api: ApiClient,
        ledger: LedgerStore,
        rollouts: Rollouts,
        networks: NetworkReconciler,
        events: Events,
    ) -> None:
        self._world = world
        self._api = api
        self._ledger = ledger
        self._rollouts = rollouts
        self._networks = networks
        self._statuses = StatusWriter(api, events)
        self.survival = SurvivalCheck(world.devices)
        self._looked: dict[str, dict[str, _Looked]] = {}
        """By pool and node."""

    async def reconcile(self, name: str) -> float | None:
        """Settle, grant and report, and return the seconds until the next pass, or None.

        Raises:
            ConflictError: another client wrote the ledger or the pool. The queue decides again.
            ApiError: a write failed. The queue retries.
        """
        key = ObjectKey("", name)
        pool = self._world.pools.items.get(key)
        if pool is None:
            await self._miss(key)
            return None
        if FINALIZER not in pool.metadata.finalizers:
            if not pool.metadata.deletion_timestamp:
                # Set before anything is granted. The pool's own change enqueues it again.
                await self._set_finalizers(pool, [*pool.metadata.finalizers, FINALIZER])
            return None
        facts = await self._gather(pool)
        progress = await self._rollouts.advance(pool, facts.nodes)
        # Networks are handled once all VMs that may refer to them are known.
        problems = await self._networks.reconcile(pool) if self._world.machines_synced else ()
        if pool.metadata.deletion_timestamp and self._may_go(pool, facts.nodes):
            # While the pool exists: after that, nothing would lead to the cordons and entries that it left.
            await self._rollouts.forget(name)
            await self._set_finalizers(pool, [one for one in pool.metadata.finalizers if one != FINALIZER])
            _log.info("pool %s is removed from all nodes that answer", name, extra={"pool": name})
            return None
        await self._report(pool, facts, (*progress.problems, *problems))
        return self._again(pool, progress, facts.nodes, problems)

    async def _miss(self, key: ObjectKey) -> None:
        """Handle a pool that is not in the cache.

        A pool that cannot be read still exists: its status reports it, and its part of the ledger stays.
        """
        if key in self._world.pools.malformed:
            await self._statuses.write_invalid(POOLS, key.name, self._world.pools.malformed[key])
            return
        self._looked.pop(key.name, None)
        self.survival.forget(key.name)
        await self._rollouts.forget(key.name)

    def _may_go(self, pool: SriovNetworkPool, nodes: Sequence[NodeView]) -> bool:
        """Return whether a deleted pool may lose its finalizer.

        A node that has not answered for long does not prevent it.
        """
        if ABANDON in pool.metadata.annotations:
            return True
        # A node that has released everything has no view any more, so what is left here is lost or still at work.
        return all(view.lost for view in nodes) and self._networks_are_gone(pool)

    def _networks_are_gone(self, pool: SriovNetworkPool) -> bool:
        """Return whether the pool's networks are gone, which is unknown until all kinds are listed.

        A pool without networks in its spec does not wait for the lists.
        """
        known = self._world.machines_synced or not pool.spec.networks
        return known and not self._networks.has_any(pool)

    def _again(
        self, pool: SriovNetworkPool, progress: Progress, nodes: Sequence[NodeView], problems: Sequence[PoolProblem]
    ) -> float | None:
        """Return the seconds until the next pass, or None.

        No event reports that a node has been away for too long, or that a network would no longer be refused.
        """
        waits = [progress.again_s] if progress.again_s is not None else []
        entries = self._ledger.current.of(pool.metadata.name).entries
        awaited = any(not view.ready and not view.lost and view.name in entries for view in nodes)
        awaited = awaited or any(
            one.reason in (PoolProblemReason.NAD_REFUSED, PoolProblemReason.NAD_KIND_ABSENT) for one in problems
        )
        return min([*waits, _LOST_S]) if awaited or pool.metadata.deletion_timestamp else progress.again_s

    async def _set_finalizers(self, pool: SriovNetworkPool, finalizers: list[str]) -> None:
        # A merge patch replaces the whole list. The version keeps finalizers of other clients from being lost.
        meta = {"resourceVersion": pool.metadata.resource_version, "finalizers": finalizers}
        await self._api.patch_merge(POOLS, pool.metadata.name, {"metadata": meta})

    async def _gather(self, pool: SriovNetworkPool) -> _PoolFacts:
        """Collect the nodes that have a function of the pool, in slices so that admission does not wait."""
        pools = tuple(self._world.pools.items.values())
        asked = _asked(pools, self._world.pools.malformed)
        known = self._looked.get(pool.metadata.name, {})
        fresh: dict[str, _Looked] = {}
        now = datetime.now(UTC)
        views: list[NodeView] = []
        conflicts = dict.fromkeys(one for one in find_resource_conflicts(pools) if one.pool == pool.metadata.name)
        refusals: list[LinkRefusal] = []
        looks = 0
        for node, state in list(self._world.inputs.node_views()):
            if state is None:
                continue
            looked = known.get(node.metadata.name)
            # By identity, because the caches keep the same object while nothing in it changes.
            if looked is None or looked.node is not node or looked.state is not state or looked.pools != asked:
                looked = self._look(pool, node, state, pools, asked)
                looks += 1
                if looks % _SLICE == 0:
                    await asyncio.sleep(0)
            fresh[node.metadata.name] = looked
            conflicts.update(dict.fromkeys(looked.conflicts))
            refusals += looked.refusals
            if looked.view is not None:
                # Time passes without an event, so whether a node is lost is not part of the cached result.
                views.append(_at(looked.view, lost=not node.ready and node.is_lost(now)))
        self._looked[pool.metadata.name] = fresh
        return _PoolFacts(nodes=tuple(views), conflicts=tuple(conflicts), refusals=tuple(refusals))

    def _look(
        self,
        pool: SriovNetworkPool,
        node: NodeObject,
        state: NodeNicState,
        pools: Sequence[SriovNetworkPool],
        asked: object,
    ) -> _Looked:
        name, labels = pool.metadata.name, node.metadata.labels
        matched = not pool.metadata.deletion_timestamp and bool(matching_pfs(pool, labels, state.status.pfs, state.spec.pfs))
        refusals = find_link_refusals(pool, node.metadata.name, labels, state.status.pfs)
        if not matched and not any(spec.pool == name for spec in state.spec.pfs):
            return _Looked(node, state, asked, None, (), refusals)
        unreadable = {key.name for key in self._world.pools.malformed}
        conflicts = merge_pools(pools, labels, state.status.pfs, state.spec.pfs, unreadable).conflicts
        # An empty ledger, because only what the pools ask for is compared here.
        wanted = plan_node_spec(labels, state, pools=pools, unreadable_pools=unreadable, ledger=Ledger())
        view = NodeView(
            name=node.metadata.name,
            state=state,
            current=without_grants(wanted) == without_grants(state.spec),
            ready=node.ready,
            cordoned=node.spec.unschedulable,
            vfs=count_vfs(state, name),
            refused=any(one.pool == name and one.pci_address for one in conflicts),
        )
        return _Looked(node, state, asked, view, conflicts, refusals)

    async def _report(self, pool: SriovNetworkPool, facts: _PoolFacts, problems: Sequence[PoolProblem]) -> None:
        name = pool.metadata.name
        # Until all VMs are listed, devices in use would count as free.
        capacity = self._world.devices.capacity if self._world.machines_synced else None
        refused = [
            PoolProblem(node=one.node, pf=one.pci_address, reason=PfReason.LINK_TYPE_DIFFERS, message=one.message)
            for one in reported_refusals(facts.refusals, matched=bool(facts.nodes))
        ]
        more = (*problems, *refused)
        status = summarise_pool(pool, facts.nodes, self._ledger.current.of(name), facts.conflicts, more)
        if capacity is not None:
            resources = status.resource_names
            assigned = sum(capacity.assigned.get(resource, 0) for resource in resources)
            free = sum(sum(capacity.free.get(resource, {}).values()) for resource in resources)
            counts = {"assigned": assigned, "reserved": pool.spec.reserve_for_migration, "free": free}
            status = status.model_copy(update={"vfs": status.vfs.model_copy(update=counts)})
            await self.survival.update(name, resources)
        await self._statuses.write(POOLS, pool, status)


def _at(view: NodeView, *, lost: bool) -> NodeView:
    return view if view.lost is lost else replace(view, lost=lost)


def _asked(pools: Sequence[SriovNetworkPool], malformed: Mapping[ObjectKey, str]) -> object:
    """Return the parts of all pools that decide about nodes.

    Status changes do not count.
    """
    return (
        frozenset(malformed),
        tuple(
            (
                one.metadata.name,
                one.metadata.uid,
                one.metadata.generation,
                one.metadata.deletion_timestamp,
                ABANDON in one.metadata.annotations,
            )
            for one in pools
        ),
    )
