"""One VirtualMachine: decide its NICs, patch it where a policy says so, and remember in few words what was decided."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from ...kube.client import ApiClient
from ...kube.reflector import ObjectKey
from ...kube.resources import VIRTUAL_MACHINES
from ...kubevirt.gather import gather_vm_facts
from ...kubevirt.patch import render_patch
from ...policy.engine import Verdict, VmDecision, allocate, candidates, decide
from ...policy.reasons import Reason
from ..keys import policy_key
from ..world import Enqueue, World
from .reverts import Reverts

__all__ = ["MachineReconciler", "NicNote"]

_log = logging.getLogger(__name__)

_REPORT_S = 1.0
"""Policies are summed up at most so often."""


@dataclass(frozen=True, slots=True)
class NicNote:
    """What is remembered of one NIC's decision; its explanation is worked out anew when somebody asks."""

    nic: str
    policy: str
    verdict: Verdict
    datapath: str
    reason: str
    message: str
    pending_restart: bool
    conflicts_with: tuple[str, ...]


class MachineReconciler:
    """Keeps VMs as the policies want them."""

    def __init__(self, world: World, api: ApiClient, enqueue: Enqueue) -> None:
        self._world = world
        self._api = api
        self._enqueue = enqueue
        self._reverts = Reverts()
        self.notes: dict[ObjectKey, tuple[NicNote, ...]] = {}
        """What was decided, by VM; VMs that no policy selects are left out."""

    async def reconcile(self, namespace: str, name: str) -> None:
        """Decide one VM and patch it.

        Raises:
            InvalidError: the VM has changed since, or KubeVirt refuses the patch; the queue decides again.
            ApiError: the write failed; the queue tries again.
        """
        if not self._world.machines_synced:
            return  # All VMs are asked for once the caches are complete.
        key = ObjectKey(namespace, name)
        machine = self._world.machines.items.get(key)
        if machine is None or machine.metadata.deletion_timestamp:
            self._remember(key, ())
            self._reverts.forget(key)
            return
        facts = gather_vm_facts(self._world.input_of(machine, namespace))
        found = candidates(facts, self._world.rules, self._world.cluster_facts)
        decision = decide(found, allocate([found]))
        patch = render_patch(decision)
        if patch and not self._reverts.allows(key, patch):
            self._remember(key, tuple(_given_in(note) for note in _notes(decision)))
            return
        self._remember(key, _notes(decision))
        if patch:
            await self._api.patch_json(VIRTUAL_MACHINES, name, patch, namespace)
            self._reverts.remember(key, patch)
            changed = ", ".join(nic.message for nic in decision.nics if nic.action == "Patch")
            _log.info("VM %s/%s: %s", namespace, name, changed, extra={"vm": f"{namespace}/{name}"})

    def _remember(self, key: ObjectKey, notes: tuple[NicNote, ...]) -> None:
        """Keep the notes, and have every policy that they speak or spoke of summed up again."""
        before = self.notes.pop(key, ())
        if notes:
            self.notes[key] = notes
        if before != notes:
            for policy in {note.policy for note in (*before, *notes)}:
                self._enqueue(policy_key(policy), _REPORT_S)


def _given_in(note: NicNote) -> NicNote:
    """The note of a NIC that somebody put back twice."""
    if note.verdict is not Verdict.CHANGE:
        return note
    text = f"{note.message}: put back twice within an hour, so it is left for a day; change it where they take the VM from"
    return replace(note, verdict=Verdict.BLOCKED, reason=Reason.OWNED_BY_GIT.value, message=text)


def _notes(decision: VmDecision) -> tuple[NicNote, ...]:
    return tuple(
        NicNote(
            nic=nic.nic.name,
            policy=nic.policy,
            verdict=nic.verdict,
            datapath=nic.nic.present.datapath.value,
            reason=nic.reason.value if nic.reason is not None else "",
            # Only what a status may have to quote is kept in words.
            message=nic.message if nic.verdict in (Verdict.BLOCKED, Verdict.CHANGE) else "",
            pending_restart=nic.verdict is Verdict.COMPLIANT
            and nic.nic.live_model is not None
            and nic.nic.live_model != nic.nic.present.model
            and nic.nic.present.model is not None,
            conflicts_with=nic.conflicts_with,
        )
        for nic in decision.nics
        if nic.policy is not None
    )
