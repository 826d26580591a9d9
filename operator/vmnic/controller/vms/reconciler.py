"""One VirtualMachine: decide its NICs, patch it where a policy says so, and write down what was decided.

Where devices are wanted, the decision waits for the one look at all VMs that want them (`allocate`).
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from ...kube.client import ApiClient
from ...kube.errors import ApiError, InvalidError
from ...kube.events import Events
from ...kube.reflector import ObjectKey
from ...kube.resources import VIRTUAL_MACHINES
from ...kube.time_budget import time_budget
from ...kubevirt.gather import gather_vm_facts
from ...kubevirt.patch import render_patch
from ...kubevirt.vm import VirtualMachine
from ...kubevirt.vm_state import Restart, Reverts
from ...policy.allocate import allocate
from ...policy.decision import decide
from ...policy.evaluate import evaluate_vm
from ...policy.facts import ClusterFacts
from ...policy.types import Action, Choices, VmCandidates, VmDecision
from ..caches.cluster_cache import ClusterCache, Enqueue
from ..caches.keys import ALLOCATION, policy_key, vm_key
from ..status.condition_events import machine_subject
from .decision_record import NicDecisionRecord, admit_digest, already_restarted, notes_of, refused, yielded_decision
from .restarts import Restarts, never_started, requires_restart
from .reverts import digest_of, is_suspended, record_patch, record_revert
from .vm_states import VmStates

__all__ = ["MachineReconciler"]

_log = logging.getLogger(__name__)

_REPORT_S = 1.0
"""Policies are summed up at most so often."""
_SETTLE_S = 0.05
"""Demands of a burst are looked at together."""
_CANDIDATES_S = 0.25
"""CPU time for evaluating one VM, which takes less than a millisecond."""
_PASSING = (0, 404, 409, 429)
"""Failures that say nothing about the patch: no answer, the VM is gone or another one, too many requests."""


class MachineReconciler:
    """Keeps VMs as the policies want them."""

    def __init__(
        self, world: ClusterCache, api: ApiClient, enqueue: Enqueue, events: Events, *, restart_timeout: timedelta
    ) -> None:
        self._events = events
        self._world = world
        self._api = api
        self._enqueue = enqueue
        self._states = VmStates(world, api)
        self._demands: dict[ObjectKey, VmCandidates] = {}
        """What VMs want devices, remembered until their input changes."""
        self._seen: set[ObjectKey] = set()
        """Demands that the last allocation has seen as they are."""
        self._choices: Choices = {}
        self._overcommitted: set[ObjectKey] = set()
        """VMs that were given what others have."""
        self._awaiting_echo: set[ObjectKey] = set()
        """VMs that were patched and whose change has not come back yet: what they were given stands."""
        self._rejected_patches: dict[ObjectKey, tuple[VirtualMachine | None, str]] = {}
        """VMs whose patch failed, as they were then, with the answer if that is worth reporting."""
        self._facts: ClusterFacts | None = None
        self._matched: dict[str, Counter[str]] = defaultdict(Counter)
        """How many VMs each policy has, by namespace."""
        self._restarts = Restarts(world, api, enqueue, self._tell, restart_timeout=restart_timeout)
        self.slots = self._restarts.slots
        self.notes: dict[ObjectKey, tuple[NicDecisionRecord, ...]] = {}
        """What was decided, by VM; VMs that no policy selects are left out."""

    def remembered(self) -> set[ObjectKey]:
        """Give the VMs of which anything is remembered; a replica that only follows does not see that they go."""
        return {*self.notes, *self._demands, *self.slots.in_progress()}

    async def allocate(self) -> None:
        """Choose over all VMs that want devices, and have those looked at for which something changes."""
        if not self._world.machines_synced:
            return
        cluster = self._world.inputs.cluster_facts
        if self._facts is not None and self._facts != cluster:
            self._world.enqueue_machines()
        self._facts = cluster
        capacity = self._world.devices.capacity
        demands = dict(self._demands)
        self._overcommitted = {ObjectKey(*key) for key in capacity.overshot}
        for key in self._overcommitted:
            found = self._candidates_or_none(key)
            if found is not None and not found.claims:
                demands.setdefault(key, found)
        before = self._choices
        granted = {nic: record_patch for nic, record_patch in before.items() if ObjectKey(*nic[:2]) in self._awaiting_echo}
        choices = allocate(demands.values(), cluster, capacity, granted)
        changed = {ObjectKey(*nic[:2]) for nic in {*choices, *before} if choices.get(nic) != before.get(nic)}
        fresh = set(demands) - self._seen
        self._choices, self._seen = choices, set(demands)
        for key in changed | fresh:
            self._enqueue(vm_key(*key))

    async def reconcile(self, namespace: str, name: str) -> None:
        """Decide one VM, patch it, restart it where that is asked for, and write down what was decided.

        Raises:
            InvalidError: the VM has changed since, or KubeVirt refuses the patch; the queue decides again.
            ApiError: a write failed; the queue tries again.
        """
        if not self._world.machines_synced:
            return  # All VMs are asked for once the caches are complete.
        key = ObjectKey(namespace, name)
        if self._world.is_unreadable(key):
            state = self._states.known(key)  # Set aside is not absent: what stands, stands.
            self._restarts.settle_unreadable(key, state.restart if state is not None else None)
            return
        self._awaiting_echo.discard(key)
        found = self._candidates(key)
        if found is None:
            self._forget(key)
            return
        if found.unreadable_policy:
            # The policy's own condition says so; a VmNicState for each of its VMs would be a storm of writes.
            self._remember(key, notes_of(decide(found, {})))
            return
        if not self._is_allocated(key, found):
            self._enqueue(ALLOCATION, _SETTLE_S)
            return
        state = self._states.known(key)
        restart = self._restarts.settle(key, found, state.restart if state is not None else None)
        reverts = state.reverts if state is not None else None
        decision = decide(found, self._choices_for(key, found), waiting_for=self._rollout_slot(key, found, restart))
        self._restarts.note_waiting(key, decision)
        machine = self._world.machines.items[key]
        patch = render_patch(decision, machine, self._world.devices.capacity.total if found.claims else {})
        if patch:
            reverts = record_revert(reverts, digest_of(patch), datetime.now(UTC), machine.applier) or reverts
            spared = _spared(decision, digest_of(patch), reverts, restart)
            if spared is None:
                await self._patch(key, decision, patch, reverts, restart)
                return
            decision = spared
        self._remember(key, notes_of(decision))
        if restart is not None and restart.state == "Restarting":
            await self._restarts.resume(key, restart)
            await self._states.write(key, machine, decision, reverts, restart)
        elif requires_restart(decision) and (digest := admit_digest(decision)):
            await self._roll(key, decision, digest, reverts, restart)
        else:
            await self._restarts.restart_stuck_instance(key, decision)
            await self._states.write(key, machine, decision, reverts, restart)

    def _candidates_or_none(self, key: ObjectKey) -> VmCandidates | None:
        """Evaluate a VM among others; one that cannot be evaluated is reported when its own turn comes."""
        try:
            with time_budget(_CANDIDATES_S):
                return self._candidates(key)
        except Exception:
            self._enqueue(vm_key(*key))
            return None

    def _candidates(self, key: ObjectKey) -> VmCandidates | None:
        machine = self._world.machines.items.get(key)
        if machine is None or machine.metadata.deletion_timestamp:
            return None
        facts = gather_vm_facts(self._world.inputs.input_of(machine, key.namespace))
        return evaluate_vm(facts, self._world.inputs.rules, self._world.inputs.cluster_facts)

    def _is_allocated(self, key: ObjectKey, found: VmCandidates) -> bool:
        """Whether capacity has had its say about a VM as it is now."""
        if not found.claims:
            if self._demands.pop(key, None) is not None:
                self._enqueue(ALLOCATION, _SETTLE_S)
            return True
        if self._demands.get(key) != found:
            self._demands[key] = found
            self._seen.discard(key)
        return key in self._seen

    def _choices_for(self, key: ObjectKey, found: VmCandidates) -> Choices:
        """What capacity said about a VM; what it said about an earlier state of it does not count."""
        if found.claims or (key in self._overcommitted and tuple(key) in self._world.devices.capacity.overshot):
            return self._choices
        return {}

    def _rollout_slot(self, key: ObjectKey, found: VmCandidates, restart: Restart | None) -> str:
        matched = self._matched[found.effective_rule.policy] if found.effective_rule is not None else {}
        return self._restarts.refusal(key, found, restart, matched)

    async def _patch(
        self,
        key: ObjectKey,
        decision: VmDecision,
        patch: list[dict[str, Any]],
        reverts: Reverts | None,
        restart: Restart | None,
    ) -> None:
        """Patch a VM, and restart it where that is asked for: what is about to happen is written down first."""
        digest, begun = digest_of(patch), None
        if requires_restart(decision):
            begun = self._restarts.begin(key, decision, digest)
            await self._states.write(key, self._world.machines.items[key], self._as_refused(key, decision), reverts, begun)
        self._awaiting_echo.add(key)
        try:
            await self._api.patch_json(VIRTUAL_MACHINES, key.name, patch, key.namespace)
        except ApiError as error:
            await self._note_failure(key, decision, error, reverts, restart)
            raise
        self._rejected_patches.pop(key, None)
        self._states.hold(key, record_patch(reverts, digest, datetime.now(UTC)))
        self._remember(key, notes_of(decision))
        changed = ", ".join(nic.message for nic in decision.nics if nic.action is Action.PATCH)
        self._tell(key, "NicChanged", "Patch", changed)
        if begun is not None:
            await self._restarts.resume(key, begun)
        elif never_started(decision) and key in self._world.instances.items:
            # It cannot start on what it was assigned, and nothing has run in it yet.
            await self._restarts.request_restart(key)

    async def _note_failure(
        self, key: ObjectKey, decision: VmDecision, error: ApiError, reverts: Reverts | None, restart: Restart | None
    ) -> None:
        """Write down that a patch is refused, and give back its slot; what passes by itself is not worth telling."""
        machine = self._world.machines.items.get(key)
        doubted, message = self._rejected_patches.get(key, (None, ""))
        # The first time, the VM may have changed meanwhile; its event then brings another one.
        stale = isinstance(error, InvalidError) and doubted is not machine
        if machine is None or stale or error.status in _PASSING:
            self._rejected_patches[key] = (machine, message if doubted is machine else "")
            self._remember(key, notes_of(decision))
            return
        self._rejected_patches[key] = (machine, error.message)
        decision = refused(decision, error.message)
        self._remember(key, notes_of(decision))
        self._restarts.release_slot(key, decision, restart)
        await self._states.write(key, machine, decision, reverts, restart)

    def _as_refused(self, key: ObjectKey, decision: VmDecision) -> VmDecision:
        """Keep reporting a refusal while the same change of the same VM is tried again."""
        machine, message = self._rejected_patches.get(key, (None, ""))
        return refused(decision, message) if message and machine is self._world.machines.items.get(key) else decision

    async def _roll(
        self, key: ObjectKey, decision: VmDecision, digest: str, reverts: Reverts | None, restart: Restart | None
    ) -> None:
        """Restart a VM whose instance is changed at its next start."""
        machine = self._world.machines.items[key]
        if restart is not None and restart.digest == digest:
            await self._states.write(key, machine, already_restarted(decision), reverts, restart)
            return
        restart = self._restarts.begin(key, decision, digest)
        await self._states.write(key, machine, decision, reverts, restart)
        await self._restarts.resume(key, restart)

    def _tell(self, key: ObjectKey, reason: str, action: str, note: str) -> None:
        """Log what was done to a VM, and tell its owner by an Event."""
        _log.info("VM %s/%s: %s", *key, note, extra={"vm": "/".join(key)})
        self._events.tell(machine_subject(key, self._world.machines.items[key]), "Normal", reason, action, note)

    def _forget(self, key: ObjectKey) -> None:
        self._remember(key, ())
        self._states.forget(key)
        self._restarts.forget(key)
        self._rejected_patches.pop(key, None)
        if self._demands.pop(key, None) is not None:
            self._enqueue(ALLOCATION, _SETTLE_S)

    def _remember(self, key: ObjectKey, notes: tuple[NicDecisionRecord, ...]) -> None:
        """Keep the notes, and have every policy that they speak or spoke of summed up again."""
        before = self.notes.pop(key, ())
        if notes:
            self.notes[key] = notes
        for policy in {note.policy for note in before}:
            self._matched[policy][key.namespace] -= 1
        for policy in {note.policy for note in notes}:
            self._matched[policy][key.namespace] += 1
        if before != notes:
            for policy in {note.policy for note in (*before, *notes)}:
                self._enqueue(policy_key(policy), _REPORT_S)


def _spared(decision: VmDecision, digest: str, reverts: Reverts | None, restart: Restart | None) -> VmDecision | None:
    """Say what is done instead of a patch that somebody has put back; None: nobody has."""
    if is_suspended(reverts, digest, datetime.now(UTC)):
        return yielded_decision(decision, reverts.manager if reverts is not None else "")
    if requires_restart(decision) and restart is not None and restart.digest == digest and restart.state == "Done":
        return already_restarted(decision)
    return None
