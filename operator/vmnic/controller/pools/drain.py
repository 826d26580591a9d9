"""Drains of nodes, from the cordon over evictions through KubeVirt to the uncordon.

Only nodes that vmnic itself has cordoned are uncordoned. KubeVirt decides about the eviction of a launcher pod: it marks the VM
and live-migrates it, or lets the pod be deleted if the VM's eviction strategy says so. Nothing is forced. A VM that cannot
leave is named until the drain times out.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping

import msgspec

from ...api.node_state import Held
from ...kube.client import ApiClient
from ...kube.errors import ApiError, NotFoundError, UnreachableError
from ...kube.reflector import ObjectKey
from ...kube.resources import NODES, PODS
from ...kubevirt.launchers import base_of_pod, launcher_base, pod_of
from ...kubevirt.vmi import VirtualMachineInstance
from ...nodes.rollout.ledger import CORDONED
from ...policy.capacity import Claim
from ...policy.relocation import find_unplaceable
from ..caches.capacity_cache import CapacityCache
from ..caches.cluster_cache import ClusterCache
from ..caches.projections import NodeObject, decode_node
from .launchers import LauncherPod, decode_pod, find_obstacle

__all__ = ["DrainSimulation", "Drainer"]

_log = logging.getLogger(__name__)

_NAMED = 4
"""Maximum number of holders without eviction that a problem names."""


class Drainer:
    """Drains nodes.

    Args:
        world: The caches, for running VMs and free devices.
        api: The leader's client.
    """

    def __init__(self, world: ClusterCache, api: ApiClient) -> None:
        self._world = world
        self._api = api

    async def read_nodes(self) -> dict[str, NodeObject]:
        """Read all Nodes from the API server.

        Budgets count those that are down or cordoned at this moment.

        Raises:
            ApiError: the server did not answer. No node starts then.
        """
        found = {}
        async for page, _ in self._api.list_pages(NODES):
            for raw in page:
                node = decode_node(raw)
                found[node.metadata.name] = node
        return found

    async def cordon(self, name: str, pool: str) -> bool:
        """Cordon a node and return whether the cordon is vmnic's.

        Raises:
            ConflictError: the node changed in the same moment. The caller retries.
            NotFoundError: it is gone.
        """
        node = await self._read(name)
        # The cordon of an administrator gets no annotation, so that `uncordon` leaves it.
        if node is None or node.spec.unschedulable:
            return node is not None and node.cordoned_by_us
        await self._write(node, note=pool, unschedulable=True)
        _log.info("node %s is cordoned for pool %s", name, pool, extra={"node": name, "pool": pool})
        return True

    async def is_cordoned(self, name: str) -> bool:
        """Return whether a node is cordoned at this moment, by any client.

        A deleted node counts as cordoned.
        """
        node = await self._read(name)
        return node is None or node.spec.unschedulable

    async def uncordon(self, name: str) -> None:
        """Uncordon a node if vmnic cordoned it.

        Raises:
            ConflictError: the node changed in the same moment. The caller retries.
        """
        node = await self._read(name)
        if node is None or not node.metadata.annotations.cordoned:
            return
        # An administrator may have uncordoned it already. Then only the annotation is left to remove.
        await self._write(node, note=None, unschedulable=None)
        _log.info("node %s is uncordoned", name, extra={"node": name})

    async def evict(self, node: str, holders: Iterable[Held], resources: Collection[str]) -> str:
        """Evict VMs from a node and return a message about what prevents that.

        Args:
            node: The node.
            holders: Holders of devices, as the node's agent names them.
            resources: The resources of the functions that change.

        Raises:
            UnreachableError: the API server does not answer.
        """
        there = {(pod.metadata.namespace, pod.metadata.name): pod for pod in await self._pods_on(node)}
        answer, refused = "", []
        # A set, because one pod may hold several devices.
        for words, name in sorted({(_words(held), pod_of(held)) for held in holders}):
            pod = there.get(name) if name is not None else None
            why = find_obstacle(pod, node, resources, self._world.instances.items) if name is not None else "no pod"
            if pod is None or why:
                refused.append(f"{words} ({why})")
            else:
                answer = await self._evict(pod) or answer
        return "; ".join(filter(None, (answer, _not_evicted(refused))))

    async def has_pods(self, node: str, resources: Collection[str]) -> bool:
        """Return whether a pod on a node requests one of these resources.

        It holds a device or may still get one.

        Raises:
            ApiError: the server did not answer.
        """
        return any(not pod.ended and pod.requests.intersection(resources) for pod in await self._pods_on(node))

    async def _pods_on(self, node: str) -> list[LauncherPod]:
        """Read the pods of a node from the API server."""
        # vmnic has no cache of Pods. What is evicted or granted depends on the pods of this moment.
        found: list[LauncherPod] = []
        async for page, _ in self._api.list_pages(PODS, selectors={"fieldSelector": f"spec.nodeName={node}"}):
            found += map(decode_pod, page)
        return found

    async def _evict(self, pod: LauncherPod) -> str:
        """Evict this pod and return the answer of KubeVirt or of a PodDisruptionBudget.

        The precondition on the uid protects another pod of the same name.
        """
        meta = {"name": pod.metadata.name, "namespace": pod.metadata.namespace}
        options = {"preconditions": {"uid": pod.metadata.uid}}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta, "deleteOptions": options}
        try:
            await self._api.create(PODS, body, meta["namespace"], name=meta["name"], subresource="eviction")
        except NotFoundError:
            return ""
        # Evicting the other pods would only wait for more timeouts.
        except UnreachableError:
            raise
        except ApiError as error:
            # KubeVirt answers 429 once it has started a migration, and a PodDisruptionBudget refuses with 429. Any other error
            # concerns one pod, and the others are still evicted.
            return f"pod {meta['namespace']}/{meta['name']}: {error.message}"
        return ""

    def simulation(self) -> DrainSimulation:
        """Take a snapshot of running VMs and free devices, which serves several questions."""
        running: dict[str, list[VirtualMachineInstance]] = {}
        for instance in self._world.instances.items.values():
            running.setdefault(instance.status.node_name, []).append(instance)
        return DrainSimulation(running, self._world.devices)

    async def _read(self, name: str) -> NodeObject | None:
        found = await self._api.read(NODES, name)
        return None if found is None else msgspec.convert(found, NodeObject)

    async def _write(self, node: NodeObject, *, note: str | None, unschedulable: bool | None) -> None:
        """Write over this version only, because an administrator may be cordoning the node at this moment."""
        meta = {"resourceVersion": node.metadata.resource_version, "annotations": {CORDONED: note}}
        await self._api.patch_merge(NODES, node.metadata.name, {"metadata": meta, "spec": {"unschedulable": unschedulable}})


class DrainSimulation:
    """Matching of VMs that have to leave nodes with free devices elsewhere."""

    def __init__(self, running: Mapping[str, list[VirtualMachineInstance]], devices: CapacityCache) -> None:
        self._running = running
        self._devices = devices
        self._claims: dict[tuple[str, str], Claim] = {}
        self._closed: set[str] = set()
        """Nodes to which no VM is matched."""
        self._launchers: dict[str, dict[tuple[str, str], VirtualMachineInstance]] = {}
        """Instances by node, then by namespace and name prefix of their launcher."""

    def keep_off(self, nodes: Iterable[str]) -> None:
        """Match no VM to these nodes.

        They will change themselves, and the VM would have to leave again.
        """
        self._closed.update(nodes)

    def reserve(self, node: str, holders: Iterable[Held]) -> None:
        """Add the VMs of a node to those that leave.

        No VM can go there, and these VMs are placed first.
        """
        self._closed.add(node)
        self._claims |= {claim.key: claim for held in holders if (claim := self._claim(node, held)) is not None}

    def blocking_reason(self, node: str, holders: Collection[Held]) -> str:
        """Return why a node's VMs cannot be moved now, or an empty string if each has a place elsewhere."""
        claims = dict(self._claims)
        for held in holders:
            claim = self._claim(node, held)
            if claim is None:
                return f"{held.by or 'an unknown process'} holds {held.vf} and is not a VM that can migrate: stop it"
            claims[claim.key] = claim
        homeless = find_unplaceable(list(claims.values()), self._devices.capacity, leaving={node, *self._closed})
        if not homeless:
            return ""
        needs = ", ".join(f"{count} of {resource}" for resource, count in sorted(homeless[0].held.items()))
        more = f" and {len(homeless) - 1} more VMs" if len(homeless) > 1 else ""
        return f"no other node has free VFs for VM {'/'.join(homeless[0].key)}{more} ({needs}): free some, or stop the VM"

    def _claim(self, node: str, held: Held) -> Claim | None:
        """Return the claim of the VM whose launcher pod holds a device."""
        pod = pod_of(held)
        if pod is None:
            return None
        instance = self._by_launcher(node).get((pod[0], base_of_pod(pod[1])))
        return None if instance is None else self._devices.claim(ObjectKey(pod[0], instance.machine or instance.metadata.name))

    def _by_launcher(self, node: str) -> dict[tuple[str, str], VirtualMachineInstance]:
        """Return an index of a node's instances, because an agent may name thousands of holders."""
        if node not in self._launchers:
            self._launchers[node] = {
                (one.metadata.namespace, launcher_base(one.metadata.name)): one for one in self._running.get(node, ())
            }
        return self._launchers[node]


def _words(held: Held) -> str:
    return held.by or f"an unknown process with {held.vf}"


def _not_evicted(refused: list[str]) -> str:
    """Return a message that names the holders which are left alone."""
    if not refused:
        return ""
    more = f" and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
    return f"not evicted: {', '.join(refused[:_NAMED])}{more}: stop them, or check the node's agent"
