"""Removal of all policies and pools.

If no controller is left, this process does the controller's work.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

from ..api.node_state import NodeNicState, NodeSpec, PfSpec, wire
from ..kube.client import ApiClient
from ..kube.connection import kubeconfig_connection
from ..kube.errors import ConflictError, NotFoundError
from ..kube.lease import CONTROLLER, LeaderElector
from ..kube.resources import DEFINITIONS, NAMESPACES, NODE_NIC_STATES, NODES, POLICIES, POOLS, Resource
from ..kube.tasks import cancel_and_wait
from ..nodes.pools.shares import count_vfs
from ..nodes.rollout.ledger import CORDONED
from ..nodes.rollout.release import ABANDON, FINALIZER, begin_release
from .live import decode_object, load_live
from .objects import MalformedObjectError, Objects
from .set_aside import set_aside, try_object

__all__ = ["Uninstaller", "blockers_of", "describe", "uninstall_all"]

_NAMESPACE = "vmnic-system"
_LOOK_AGAIN_S = 2.0


class Uninstaller:
    """Removes pools and policies, and waits until no node has anything of them.

    It is another candidate for the controller's Lease. As long as a controller leads, the controller does the work. If this
    process
    becomes the leader, or the namespace of the Lease is gone, this process writes the nodes' specs itself.

    Args:
        api: A client with the user's rights.
        abandon: Whether nodes keep their settings and are not waited for.
        tell: Takes a line for each new thing to wait for.
    """

    def __init__(self, api: ApiClient, *, abandon: bool, tell: Callable[[str], None]) -> None:
        self._api = api
        self._abandon = abandon
        self._tell = tell
        self._told: list[str] = []
        # Two processes with one identity would both take the Lease for their own.
        identity = f"kubectl-vmnic-{getpass.getuser()}-{socket.gethostname()}-{os.getpid()}"
        self._elector = LeaderElector(api, CONTROLLER, _NAMESPACE, identity)

    async def run(self) -> None:
        """Remove everything.

        Raises:
            ApiError: the API server refuses or does not answer.
        """
        candidate = asyncio.create_task(self._elector.run(_for_ever))
        try:
            while not await self._look():
                await asyncio.sleep(_LOOK_AGAIN_S)
        finally:
            await cancel_and_wait([candidate])

    async def _look(self) -> bool:
        """Perform one pass and return whether nothing is left."""
        objects = Objects(of_server=True)
        try:
            # Policies go first: without them no further VM gets a VF of a pool that is going.
            await self._delete(await self._list(POLICIES, objects), POLICIES)
            pools = await self._list(POOLS, objects)
            await self._delete(pools, POOLS)
            await self._list(NODE_NIC_STATES, objects)
            if await self._is_alone():
                await self._uncordon(objects)
                await self._let_go(pools, objects)
            elif self._abandon:
                for pool in pools:
                    await self._annotate(pool)
        except (ConflictError, NotFoundError):
            return False  # Another client was faster, or a kind is being removed; the next pass handles it.
        self._tell_new([*(f"{one.sentence} (its configuration stays)" for one in objects.set_aside), *blockers_of(objects)])
        # The pools were read before they were deleted, so one more pass confirms that they are gone.
        return not pools and not any(one.kind == POOLS.kind for one in objects.set_aside)

    def _tell_new(self, waits: list[str]) -> None:
        for wait in waits:
            if wait not in self._told:
                self._tell(f"waiting: {wait}")
        self._told = waits

    async def _list(self, kind: Resource, objects: Objects) -> list[dict[str, Any]]:
        """Read all objects of a kind and add them to `objects`.

        There are none once the kind's definition is gone. An object that cannot be handled is set aside, but is in the list if
        it is
        valid JSON.

        Raises:
            NotFoundError: the kind is not served at the moment, although its definition exists.
        """
        try:
            pages = [page async for page, _ in self._api.list_pages(kind)]
        except NotFoundError:
            # While a definition is created or removed, its kind gives 404 although objects may still exist.
            if await self._api.read(DEFINITIONS, f"{kind.plural}.{kind.group}") is None:
                return []
            raise
        found = []
        for raw in (raw for page in pages for raw in page):
            try:
                found.append(decode_object(kind.kind, raw))
            except MalformedObjectError as error:
                objects.set_aside.append(set_aside(error.kind, error.key, error.message))
            else:
                load_live(objects, found[-1])
        return found

    async def _delete(self, found: Iterable[dict[str, Any]], kind: Resource) -> None:
        for one in found:
            if not one["metadata"].get("deletionTimestamp"):
                await self._api.delete(kind, one["metadata"]["name"])

    async def _is_alone(self) -> bool:
        """Return whether no controller leads, and none can before this process ends."""
        if self._elector.seconds_left() is not None:
            return True
        namespace = await self._api.read(NAMESPACES, _NAMESPACE)
        # Nothing can be created in a namespace that is being deleted, so no controller can take the Lease there.
        return namespace is None or "deletionTimestamp" in namespace["metadata"]

    async def _annotate(self, pool: dict[str, Any]) -> None:
        if ABANDON not in pool["metadata"].get("annotations", {}):
            await self._api.patch_merge(POOLS, pool["metadata"]["name"], {"metadata": {"annotations": {ABANDON: ""}}})

    async def _let_go(self, pools: list[dict[str, Any]], objects: Objects) -> None:
        """Release what the pools created on the nodes, then remove the pools' finalizers."""
        # A state that cannot be read may still have functions of a pool.
        awaited = not self._abandon and any(one.kind == NODE_NIC_STATES.kind for one in objects.set_aside)
        if not self._abandon:
            for name, state in objects.node_states.items():
                desired = try_object(
                    objects.set_aside, "NodeNicState", ("", name), begin_release, state, objects.pools.values()
                )
                awaited = awaited or desired is None or bool(desired.pfs)
                if desired is not None and desired != state.spec:
                    await self._write(state, desired)
        if awaited:
            return
        for pool in pools:
            # A merge patch replaces the whole list. With the version, a finalizer that was added meanwhile makes it a conflict.
            left = [one for one in pool["metadata"].get("finalizers", ()) if one != FINALIZER]
            meta = {"resourceVersion": pool["metadata"]["resourceVersion"], "finalizers": left}
            await self._api.patch_merge(POOLS, pool["metadata"]["name"], {"metadata": meta})

    async def _write(self, state: NodeNicState, desired: NodeSpec) -> None:
        meta = {"resourceVersion": state.metadata.resource_version}
        body = {"metadata": meta, "spec": {"pfs": [wire(pf) for pf in desired.pfs]}}
        await self._api.patch_merge(NODE_NIC_STATES, state.metadata.name, body)

    async def _uncordon(self, objects: Objects) -> None:
        """Uncordon nodes whose drain was running when the controller went away."""
        for node in await self._list(NODES, objects):
            # Only vmnic's own cordon has the annotation. An administrator's stays.
            if CORDONED in node["metadata"].get("annotations", {}):
                meta = {"resourceVersion": node["metadata"]["resourceVersion"], "annotations": {CORDONED: None}}
                body = {"metadata": meta, "spec": {"unschedulable": None}}
                await self._api.patch_merge(NODES, node["metadata"]["name"], body)


async def uninstall_all(kubeconfig: str | None, *, abandon: bool, tell: Callable[[str], None]) -> None:
    """Remove everything as the user.

    Raises:
        ConnectionFileError: there is no usable kubeconfig.
        ApiError: the API server refuses or does not answer.
    """
    async with ApiClient(kubeconfig_connection(kubeconfig), field_manager="kubectl-vmnic") as api:
        await Uninstaller(api, abandon=abandon, tell=tell).run()


async def _for_ever() -> None:
    await asyncio.Event().wait()


def describe(objects: Objects) -> list[str]:
    """Describe what would be removed."""
    lines = [f"VmNicPolicy {name}: VMs keep the NICs that they have" for name in sorted(objects.policies)]
    for name, pool in sorted(objects.pools.items()):
        totals = [count_vfs(state, name) for state in objects.node_states.values()]
        vfs, used = sum(total.configured for total in totals), sum(total.in_use for total in totals)
        end = "stay" if pool.spec.removal == "Retain" else "go"
        where = sum(any(total) for total in totals)
        lines.append(f"SriovNetworkPool {name}: its VFs {end} (VFs: {vfs}, in use: {used}; nodes: {where})")
    return lines


def blockers_of(objects: Objects) -> list[str]:
    """Describe which functions of which nodes, and which networks, still block the removal."""
    waits = [
        f"node {name}, {spec.pci_address}: {_why(state, spec)}"
        for name, state in sorted(objects.node_states.items())
        for spec in state.spec.pfs
    ]
    for name, pool in sorted(objects.pools.items()):
        waits += [f"pool {name}: {one.message}" for one in pool.status.problems if not one.node]
    return waits


def _why(state: NodeNicState, spec: PfSpec) -> str:
    pf = next((one for one in state.status.pfs if one.pci_address == spec.pci_address), None)
    # Its status is about an earlier spec, so its reasons may be out of date.
    if state.status.observed_generation < state.metadata.generation:
        return "its agent has not answered yet"
    if pf is not None and pf.plan is not None and pf.plan.blocked_by:
        return ", ".join(pf.plan.blocked_by)
    if pf is not None and pf.problem is not None:
        return f"{pf.problem.reason}: {pf.problem.message}"
    return "is being released"
