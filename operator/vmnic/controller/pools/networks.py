"""NetworkAttachmentDefinitions of a pool, maintained in the namespaces that it selects.

An object belongs to a pool if an annotation that only the controller may set contains the pool's uid. No others are written. An
object that a VM refers to stays until no VM does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from ...api.pool import PoolProblem, SriovNetworkPool
from ...api.reasons import PoolProblemReason
from ...json_patch import add, check, pointer
from ...kube.client import ApiClient
from ...kube.errors import ApiError, UnreachableError
from ...kube.reflector import ObjectKey
from ...kube.resources import NETWORKS
from ...kubevirt.vm import Network
from ...nodes.pools.networks import POOL_UID, SEGMENT_LABEL, OwnNetwork, render_network
from ...nodes.pools.resources import collect_resources, network_name
from ...nodes.rollout.release import ABANDON
from ...policy.labels import matches_labels
from ..caches.cluster_cache import ClusterCache

__all__ = ["NetworkReconciler"]

_SLICE = 1000
"""VMs visited before the event loop gets a turn: about a millisecond."""
_NAMED = 5
"""Maximum number of VMs that one message names."""
_POOL_UID_PATH = pointer("metadata", "annotations", POOL_UID)
_KIND_ABSENT = PoolProblem(
    reason=PoolProblemReason.NAD_KIND_ABSENT,
    message="spec.networks needs NetworkAttachmentDefinitions (k8s.cni.cncf.io), which this cluster does not have: "
    "install Multus, or remove spec.networks",
)


class NetworkReconciler:
    """Maintains the networks of all pools."""

    def __init__(self, world: ClusterCache, api: ApiClient) -> None:
        self._world = world
        self._api = api

    async def reconcile(self, pool: SriovNetworkPool) -> tuple[PoolProblem, ...]:
        """Create, correct and delete a pool's networks, and return what failed.

        Raises:
            UnreachableError: the API server did not answer.
        """
        if self._world.networks.absent:
            return (_KIND_ABSENT,) if pool.spec.networks and not pool.metadata.deletion_timestamp else ()
        own = self._own(pool)
        if not own and not pool.spec.networks:
            return ()
        wanted = {} if pool.metadata.deletion_timestamp else self._wanted(pool)
        problems = []
        for key, network in wanted.items():
            problems.append(await self._keep(key, network, own.get(key)))
        # The pool may still select a namespace that cannot be read, so its network stays.
        unreadable = {key.name for key in self._world.namespaces.malformed}
        leaving = [key for key in own if key not in wanted and key.namespace not in unreadable]
        if leaving and ABANDON not in pool.metadata.annotations:
            problems += await self._remove(leaving)
        return tuple(problem for problem in problems if problem is not None)

    def has_any(self, pool: SriovNetworkPool) -> bool:
        """Return whether networks of a pool still exist.

        If the kind is not served, none do.
        """
        return not self._world.networks.absent and bool(self._own(pool))

    def _own(self, pool: SriovNetworkPool) -> dict[ObjectKey, OwnNetwork]:
        uid = pool.metadata.uid
        known = self._world.networks.known()
        return {key: one.own for key, one in known if one.own is not None and uid and one.own.pool_uid == uid}

    def _wanted(self, pool: SriovNetworkPool) -> dict[ObjectKey, OwnNetwork]:
        resources = collect_resources(pool, (state for _, state in self._world.node_states.known())).names
        return {
            ObjectKey(key.name, network_name(pool, network, resource)): render_network(pool, network, resource)
            for network in pool.spec.networks
            for resource in resources
            for key, namespace in self._world.namespaces.items.items()
            # The API server refuses new objects in a namespace that is being deleted.
            if not namespace.metadata.deletion_timestamp
            and matches_labels(network.namespace_selector, namespace.metadata.labels)
        }

    async def _keep(self, key: ObjectKey, wanted: OwnNetwork, present: OwnNetwork | None) -> PoolProblem | None:
        if present is not None and present.covers(wanted):
            return None
        try:
            if present is not None:
                await self._api.patch_json(NETWORKS, key.name, _correction(wanted, present), key.namespace)
            # An object that is malformed, or not provably the pool's, is not written.
            elif key in self._world.networks.items or key in self._world.networks.malformed:
                text = f"NetworkAttachmentDefinition {'/'.join(key)} belongs to another owner: remove it, or rename yours"
                return PoolProblem(reason=PoolProblemReason.NAD_EXISTS, message=text)
            else:
                await self._api.create(NETWORKS, _body(key, wanted), key.namespace)
        # The other networks would only wait for more timeouts.
        except UnreachableError:
            raise
        except ApiError as error:
            return _refused(key, error)
        return None

    async def _remove(self, keys: Collection[ObjectKey]) -> list[PoolProblem]:
        users = await self._users(set(keys))
        problems = []
        for key in keys:
            if not users[key]:
                problems += await self._delete(key)
                continue
            more = f" and {len(users[key]) - _NAMED} more" if len(users[key]) > _NAMED else ""
            names = ", ".join("/".join(one) for one in sorted(users[key])[:_NAMED])
            text = f"NetworkAttachmentDefinition {'/'.join(key)} stays: VMs refer to it: {names}{more}"
            problems.append(PoolProblem(reason=PoolProblemReason.NAD_IN_USE, message=text[:512]))
        return problems

    async def _delete(self, key: ObjectKey) -> list[PoolProblem]:
        try:
            await self._api.delete(NETWORKS, key.name, key.namespace)
        except UnreachableError:
            raise
        except ApiError as error:
            return [_refused(key, error)]
        return []

    async def _users(self, keys: set[ObjectKey]) -> dict[ObjectKey, set[ObjectKey]]:
        """Return the VMs and running instances that refer to some networks.

        A VM that was never readable counts as a user of all of them.
        """
        machines, instances = self._world.machines, self._world.instances
        lists: list[tuple[ObjectKey, Iterable[Network]]] = [
            *((key, one.spec.template.spec.networks) for key, one in machines.known()),
            *((key, one.spec.networks) for key, one in instances.known()),
        ]
        known = {key for key, networks in lists if networks}
        unknown = {key for cache in (machines, instances) for key in cache.malformed if key not in known}
        users: dict[ObjectKey, set[ObjectKey]] = {key: set(unknown) for key in keys}
        for number, (vm, networks) in enumerate(lists):
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            for network in networks:
                key = _referred(network, vm.namespace)
                if key in users:
                    users[key].add(vm)
        return users


def _refused(key: ObjectKey, error: ApiError) -> PoolProblem:
    text = f"NetworkAttachmentDefinition {'/'.join(key)}: {error.message}"
    return PoolProblem(reason=PoolProblemReason.NAD_REFUSED, message=text[:512])


def _referred(network: Network, namespace: str) -> ObjectKey:
    name = network.multus.network_name if network.multus is not None else ""
    # Multus looks up a name without a namespace in the VM's own.
    where, _, name = name.rpartition("/")
    return ObjectKey(where or namespace, name)


def _body(key: ObjectKey, wanted: OwnNetwork) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(wanted)
    body["metadata"] |= {"name": key.name, "namespace": key.namespace}
    return {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", **body}


def _correction(wanted: OwnNetwork, present: OwnNetwork) -> list[Mapping[str, Any]]:
    """Return a JSON Patch that corrects a network as long as the pool owns it.

    Another client may take the object over at the same moment.
    """
    others = {name: value for name, value in present.metadata.labels.items() if name != SEGMENT_LABEL}
    return [
        check(_POOL_UID_PATH, wanted.metadata.annotations[POOL_UID]),
        add("/metadata/labels", others | wanted.metadata.labels),
        add("/metadata/annotations", present.metadata.annotations | wanted.metadata.annotations),
        add("/spec", {"config": wanted.spec.config}),
    ]
