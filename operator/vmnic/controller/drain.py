"""Takes nodes out of service and back: cordons, evicts VMs in KubeVirt's way, and uncordons only what it has cordoned itself.

An eviction of a launcher pod is judged by KubeVirt: it marks the VM and moves it by a live migration, or lets the pod go where
the VM's eviction strategy says so. Nothing is ever forced; who cannot leave is named until the drain's time is over.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping

import msgspec

from ..kube.client import ApiClient
from ..kube.errors import ApiError, NotFoundError, UnreachableError
from ..kube.reflector import ObjectKey
from ..kube.resources import NODES, PODS
from ..kubevirt.instances import Instance
from ..nodes.ledger import CORDONED
from ..nodes.state import Held
from ..policy.capacity import Claim
from ..policy.relocation import find_homeless
from .devices import Devices
from .objects import NodeObject, decode_node
from .world import World

__all__ = ["Drainer", "Matching"]

_log = logging.getLogger(__name__)

_POD = "pod "
_GENERATED, _RANDOM = 58, 5
"""Letters of a generated name that are the giver's and the API server's (apiserver/pkg/storage/names)."""


class _Resources(msgspec.Struct, frozen=True):
    requests: dict[str, str | int] = {}


class _Container(msgspec.Struct, frozen=True):
    resources: _Resources = _Resources()


class _PodSpec(msgspec.Struct, frozen=True):
    containers: tuple[_Container, ...] = ()


class _PodStatus(msgspec.Struct, frozen=True):
    phase: str = ""


class _Pod(msgspec.Struct, frozen=True):
    spec: _PodSpec = _PodSpec()
    status: _PodStatus = _PodStatus()


_pod_decoder = msgspec.json.Decoder(_Pod)


class Drainer:
    """Drains nodes.

    Args:
        world: The caches: who runs where, what is free.
        api: The leader's client.
    """

    def __init__(self, world: World, api: ApiClient) -> None:
        self._world = world
        self._api = api

    async def read_nodes(self) -> dict[str, NodeObject]:
        """Read all Nodes live: budgets count those that are down or cordoned at this moment.

        Raises:
            ApiError: the server did not answer; then nobody begins.
        """
        found = {}
        async for page, _ in self._api.list_pages(NODES):
            for raw in page:
                node = decode_node(raw)
                found[node.metadata.name] = node
        return found

    async def cordon(self, name: str, pool: str) -> bool:
        """Make sure that a node is cordoned; True if it is so by vmnic.

        Raises:
            ConflictError: the node changed in the same moment; try again.
            NotFoundError: it is gone.
        """
        node = await self._read(name)
        if node is None or node.spec.unschedulable:
            return node is not None and node.cordoned_by_us
        await self._write(node, note=pool, unschedulable=True)
        _log.info("node %s is cordoned for pool %s", name, pool, extra={"node": name, "pool": pool})
        return True

    async def is_cordoned(self, name: str) -> bool:
        """Tell whether a node is cordoned at this moment, whoever did it; one that is gone counts as cordoned."""
        node = await self._read(name)
        return node is None or node.spec.unschedulable

    async def uncordon(self, name: str) -> None:
        """Give a node back to the scheduler, if vmnic took it.

        Raises:
            ConflictError: the node changed in the same moment; try again.
        """
        node = await self._read(name)
        if node is None or not node.metadata.annotations.cordoned:
            return
        # Somebody may have uncordoned it by hand; then only the mark is left.
        await self._write(node, note=None, unschedulable=None)
        _log.info("node %s is uncordoned", name, extra={"node": name})

    async def evict(self, holders: Iterable[Held]) -> str:
        """Ask the holders' VMs to leave; gives what was last answered, in the words of who judges: KubeVirt, or a budget.

        Raises:
            UnreachableError: the API server does not answer.
        """
        answer = ""
        for namespace, name in sorted({pod for held in holders if (pod := pod_of(held)) is not None}):
            body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
            try:
                await self._api.create(PODS, body, namespace, name=name, subresource="eviction")
            except NotFoundError:
                continue
            except UnreachableError:
                raise
            except ApiError as error:
                # A 429 is how KubeVirt answers once it has started a migration, and how a PodDisruptionBudget refuses. Whatever
                # else stands in one pod's way, the others are asked all the same.
                answer = f"pod {namespace}/{name}: {error.message}"
        return answer

    async def has_pods(self, node: str, resources: Collection[str]) -> bool:
        """Tell whether a pod is on a node that asks for one of these resources: it has or may still get a device.

        Raises:
            ApiError: the server did not answer.
        """
        async for page, _ in self._api.list_pages(PODS, selectors={"fieldSelector": f"spec.nodeName={node}"}):
            for pod in map(_pod_decoder.decode, page):
                asked = {name for one in pod.spec.containers for name in one.resources.requests}
                if asked.intersection(resources) and pod.status.phase not in ("Succeeded", "Failed"):
                    return True
        return False

    def matching(self) -> Matching:
        """Look who runs where and what is free, for several questions."""
        running: dict[str, list[Instance]] = {}
        for instance in self._world.instances.items.values():
            running.setdefault(instance.status.node_name, []).append(instance)
        return Matching(running, self._world.devices)

    async def _read(self, name: str) -> NodeObject | None:
        found = await self._api.read(NODES, name)
        return None if found is None else msgspec.convert(found, NodeObject)

    async def _write(self, node: NodeObject, *, note: str | None, unschedulable: bool | None) -> None:
        """Write over this very version only: an administrator may be cordoning it at this moment."""
        meta = {"resourceVersion": node.metadata.resource_version, "annotations": {CORDONED: note}}
        await self._api.patch_merge(NODES, node.metadata.name, {"metadata": meta, "spec": {"unschedulable": unschedulable}})


class Matching:
    """VMs that are to leave nodes, matched to free devices elsewhere."""

    def __init__(self, running: Mapping[str, list[Instance]], devices: Devices) -> None:
        self._running = running
        self._devices = devices
        self._claims: dict[tuple[str, str], Claim] = {}
        self._leaving: set[str] = set()

    def accept(self, node: str, holders: Iterable[Held]) -> None:
        """Note that a node's VMs leave: nobody can go there, and they come first."""
        self._leaving.add(node)
        self._claims |= {claim.key: claim for held in holders if (claim := self._claim(node, held)) is not None}

    def refusal(self, node: str, holders: Collection[Held]) -> str:
        """Say why a node's VMs cannot be moved now; empty: they can, each has a place elsewhere."""
        claims = dict(self._claims)
        for held in holders:
            claim = self._claim(node, held)
            if claim is None:
                return f"{held.by or 'an unknown program'} holds {held.vf} and is no VM that can be moved: stop it"
            claims[claim.key] = claim
        homeless = find_homeless(list(claims.values()), self._devices.capacity, leaving={node, *self._leaving})
        if not homeless:
            return ""
        needs = ", ".join(f"{count} of {resource}" for resource, count in sorted(homeless[0].held.items()))
        more = f" and {len(homeless) - 1} more VMs" if len(homeless) > 1 else ""
        return f"no other node has free VFs for VM {'/'.join(homeless[0].key)}{more} ({needs}): free some, or stop the VM"

    def _claim(self, node: str, held: Held) -> Claim | None:
        """Find the VM behind the launcher pod that holds a device."""
        pod = pod_of(held)
        if pod is None:
            return None
        for instance in self._running.get(node, ()):
            if instance.metadata.namespace == pod[0] and is_launcher(pod[1], instance.metadata.name):
                return self._devices.claim(ObjectKey(pod[0], instance.machine or instance.metadata.name))
        return None


def pod_of(held: Held) -> tuple[str, str] | None:
    """Give namespace and name of the pod that holds a device; None if it is no pod."""
    if not held.by.startswith(_POD):
        return None
    namespace, _, name = held.by.removeprefix(_POD).partition("/")
    return (namespace, name) if name else None


def is_launcher(pod: str, instance: str) -> bool:
    """Tell whether a pod is an instance's launcher: its name is generated, and cut before the random ending where too long."""
    base = f"virt-launcher-{instance}-"[:_GENERATED]
    return pod.startswith(base) and len(pod) == len(base) + _RANDOM
