"""Writes of VmNicStates.

A VM with something to report has one, others have none. Identical content is not written again.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...api.common import GROUP, VERSION
from ...api.vm_state import Restart, Reverts
from ...json_patch import add
from ...kube.client import ApiClient
from ...kube.reflector import ObjectKey
from ...kube.resources import VM_NIC_STATES
from ...kubevirt.vm import VirtualMachine
from ...kubevirt.vm_state import VmStateNote, digest_of_status, render_status, should_publish
from ...policy.types import VmDecision
from ..caches.cluster_cache import ClusterCache

__all__ = ["VmStates"]


@dataclass(frozen=True, slots=True)
class _Known:
    reverts: Reverts | None
    restart: Restart | None


class VmStates:
    """Writes each VmNicState in one request, so that a VM costs at most one write besides its patch."""

    def __init__(self, world: ClusterCache, api: ApiClient) -> None:
        self._world = world
        self._api = api
        self._held: dict[ObjectKey, Reverts] = {}
        """Reverts to write with the next status of a VM."""

    def known(self, key: ObjectKey) -> _Known | None:
        """Return the recorded reverts and restart of a VM, or None if nothing is recorded."""
        note = self._world.vm_states.items.get(key)
        held = self._held.get(key)
        if note is None and held is None:
            return None
        restart = note.restart if note is not None else None
        return _Known(reverts=held or (note.reverts if note is not None else None), restart=restart)

    def hold(self, key: ObjectKey, reverts: Reverts) -> None:
        """Hold a record of reverts for the next write."""
        self._held[key] = reverts

    def forget(self, key: ObjectKey) -> None:
        """Remove the state of a VM that is gone.

        Its VmNicState is deleted with it.
        """
        self._held.pop(key, None)

    async def write(
        self, key: ObjectKey, machine: VirtualMachine, decision: VmDecision, reverts: Reverts | None, restart: Restart | None
    ) -> None:
        """Write the decision if it differs from the stored VmNicState.

        Raises:
            ApiError: the write failed.
        """
        note = self._world.vm_states.items.get(key)
        restarting = restart is not None and restart.state != "Done"
        if not should_publish(decision) and not restarting:
            if note is not None:
                await self._delete(key)
            return
        status = render_status(decision, reverts, restart)
        digest = digest_of_status(status)
        if note is not None and note.digest == digest:
            return
        if note is not None:
            # Neither write names a subresource: VmNicState has none, so that it is created with its status in one request.
            await self._api.patch_json(VM_NIC_STATES, key.name, [add("/status", status)], key.namespace)
        else:
            await self._api.create(VM_NIC_STATES, _object(key, machine, status), key.namespace)
        self._held.pop(key, None)
        # The watch confirms this in a moment. Until then, the same status must not be written twice.
        self._world.vm_states.items[key] = VmStateNote(digest=digest, reverts=reverts, restart=restart)

    async def _delete(self, key: ObjectKey) -> None:
        await self._api.delete(VM_NIC_STATES, key.name, key.namespace)
        self._world.vm_states.items.pop(key, None)
        self.forget(key)


def _object(key: ObjectKey, machine: VirtualMachine, status: dict[str, object]) -> dict[str, object]:
    owner = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": key.name, "uid": machine.metadata.uid}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "VmNicState",
        "metadata": {"name": key.name, "namespace": key.namespace, "ownerReferences": [owner]},
        "status": status,
    }
