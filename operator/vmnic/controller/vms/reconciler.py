"""Reconciler of one VirtualMachine, which decides its NICs, patches the VM and records the decision.

The decision of a VM that wants devices waits for `allocate`, which decides over all such VMs together.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from ...api.vm_state import Restart, Reverts
from ...kube.client import ApiClient
from ...kube.errors import ApiError, InvalidError
from ...kube.events import Events
from ...kube.reflector import ObjectKey
from ...kube.resources import VIRTUAL_MACHINES
from ...kube.time_budget import time_budget
from ...kubevirt.gather import gather_vm_facts
from ...kubevirt.patch import render_patch
from ...kubevirt.vm import VirtualMachine
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
"""Minimum delay before policies are summed up again."""
_SETTLE_S = 0.05
"""Delay that lets one allocation serve a burst of demands."""
_CANDIDATES_S = 0.25
"""CPU budget for evaluating one VM. It normally takes less than a millisecond."""
_EQUAL_NOTES = 10_000
"""Number of different records that are remembered to share them."""
_PASSING = (0, 404, 409, 429)
"""HTTP statuses that say nothing about the patch: no answer (0), VM gone or replaced, or too many requests."""


class MachineReconciler:
    """Reconciles VMs with the policies that select them."""

    def __init__(
        self, world: ClusterCache, api: ApiClient, enqueue: Enqueue, events: Events, *, restart_timeout: timedelta
    ) -> None:
        self._events = events
        self._world = world
        self._api = api
        self._enqueue = enqueue
        self._states = VmStates(world, api)
        self._demands: dict[ObjectKey, VmCandidates] = {}
        """VMs that want devices, kept until their input changes."""
        self._seen: set[ObjectKey] = set()
        """Demands that the last allocation already took into account, unchanged since."""
        self._choices: Choices = {}
        self._overcommitted: set[ObjectKey] = set()
        """VMs that were assigned devices which other VMs have."""
        self._awaiting_echo: set[ObjectKey] = set()
        """Patched VMs whose change is not in the cache yet. Their assignment stands."""
        self._rejected_patches: dict[ObjectKey, tuple[VirtualMachine | None, str]] = {}
        """VMs whose patch failed, as they were then, with the message if it is worth reporting."""
        self._facts: ClusterFacts | None = None
        self._matched: dict[str, Counter[str]] = defaultdict(Counter)
        """Number of VMs that each policy selects, by policy and namespace."""
        self._restarts = Restarts(world, api, enqueue, self._tell, restart_timeout=restart_timeout)
        self.slots = self._restarts.slots
        self.notes: dict[ObjectKey, tuple[NicDecisionRecord, ...]] = {}
        """Recorded decisions by VM. VMs that no policy selects are left out."""
        self._equal_notes: dict[tuple[NicDecisionRecord, ...], tuple[NicDecisionRecord, ...]] = {}
        """One copy of equal records, because most VMs have the same ones."""

    def remembered(self) -> set[ObjectKey]:
        """Return the VMs with any remembered state.

        A follower does not see deletions, so a new leader has to reconcile these VMs too.
        """
        return {*self.notes, *self._demands, *self.slots.in_progress()}

    async def allocate(self) -> None:
        """Assign devices over all VMs that want them, and enqueue the VMs whose assignment changed."""
        if not self._world.machines_synced:
            return
        cluster = self._world.inputs.cluster_facts
        # Most events of nodes change no fact. A difference concerns every VM, since these facts hold for all.
        if self._facts is not None and self._facts != cluster:
            self._world.enqueue_machines()
        self._facts = cluster
        capacity = self._world.devices.capacity
        demands = dict(self._demands)
        self._overcommitted = {ObjectKey(*key) for key in capacity.overshot}
        for key in self._overcommitted:
            found = self._candidates_or_none(key)
            # Such a VM claims nothing, because it has its device, but it has to get another candidate.
            if found is not None and not found.claims:
                demands.setdefault(key, found)
        before = self._choices
        # The capacity does not contain these devices yet, and would give them to another VM.
        granted = {nic: choice for nic, choice in before.items() if ObjectKey(*nic[:2]) in self._awaiting_echo}
        choices = allocate(demands.values(), cluster, capacity, granted)
        changed = {ObjectKey(*nic[:2]) for nic in {*choices, *before} if choices.get(nic) != before.get(nic)}
        # A VM waits until an allocation has seen it, also if its choice is the same as before.
        fresh = set(demands) - self._seen
        self._choices, self._seen = choices, set(demands)
        for key in changed | fresh:
            self._enqueue(vm_key(*key))

    async def reconcile(self, namespace: str, name: str) -> None:
        """Decide one VM, patch and restart it if its policy says so, and record the decision.

        Raises:
            InvalidError: the VM has changed since, or KubeVirt refuses the patch. The queue decides again.
            ApiError: a write failed. The queue retries.
        """
        if not self._world.machines_synced:
            return  # All VMs are enqueued once the caches are complete.
        key = ObjectKey(namespace, name)
        if self._world.is_unreadable(key):
            state = self._states.known(key)  # A VM that is set aside still exists, so its decision stands.
            self._restarts.settle_unreadable(key, state.restart if state is not None else None)
            return
        await self._load_revisions(key)
        self._awaiting_echo.discard(key)
        found = self._candidates(key)
        if found is None:
            self._forget(key)
            return
        if found.unreadable_policy:
            # The policy's own condition reports this. A VmNicState for each of its VMs would be a storm of writes.
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
        # Only the record of a new device names the total, so no capacity is counted for other VMs.
        patch = render_patch(decision, machine, self._world.devices.capacity.total if found.claims else {})
        if patch:
            # The same patch is due again only if another client has undone it.
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

    async def _load_revisions(self, key: ObjectKey) -> None:
        """Read what the VM keeps of its preference and instancetype. What cannot be read is tried again later."""
        machine = self._world.machines.items.get(key)
        again_s = await self._world.inputs.load_revisions(machine, key.namespace) if machine is not None else None
        if again_s is not None:
            self._enqueue(vm_key(*key), again_s)

    def _candidates_or_none(self, key: ObjectKey) -> VmCandidates | None:
        """Evaluate a VM as part of the allocation.

        If that fails, enqueue the VM, whose own reconcile reports the error.
        """
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
        """Return whether the last allocation took this state of the VM into account."""
        if not found.claims:
            if self._demands.pop(key, None) is not None:
                self._enqueue(ALLOCATION, _SETTLE_S)
            return True
        if self._demands.get(key) != found:
            self._demands[key] = found
            self._seen.discard(key)
        return key in self._seen

    def _choices_for(self, key: ObjectKey, found: VmCandidates) -> Choices:
        """Return the allocation's choices for a VM.

        A choice that was made for an earlier state of the VM does not count.
        """
        # The capacity may have been counted again since the allocation, and the VM may keep its device by now.
        if found.claims or (key in self._overcommitted and tuple(key) in self._world.devices.capacity.overshot):
            return self._choices
        return {}

    def _rollout_slot(self, key: ObjectKey, found: VmCandidates, restart: Restart | None) -> str:
        matched = self._matched[found.effective_rule.policy] if found.effective_rule is not None else {}
        return self._restarts.blocking_reason(key, found, restart, matched)

    async def _patch(
        self,
        key: ObjectKey,
        decision: VmDecision,
        patch: list[dict[str, Any]],
        reverts: Reverts | None,
        restart: Restart | None,
    ) -> None:
        """Patch a VM and restart it if its policy says so.

        The restart is recorded first.
        """
        digest, begun = digest_of(patch), None
        if requires_restart(decision):
            # If this process ends after the patch, the next leader finds the record and requests the restart.
            begun = self._restarts.begin(key, decision, digest)
            await self._states.write(key, self._world.machines.items[key], self._as_refused(key, decision), reverts, begun)
        # Before the request: if the answer is lost, the patch may have taken effect all the same.
        self._awaiting_echo.add(key)
        try:
            await self._api.patch_json(VIRTUAL_MACHINES, key.name, patch, key.namespace)
        except ApiError as error:
            await self._note_failure(key, decision, error, reverts, restart)
            raise
        self._rejected_patches.pop(key, None)
        # Only a patch that was made counts: one that failed would look as if another client had undone it.
        self._states.hold(key, record_patch(reverts, digest, datetime.now(UTC)))
        self._remember(key, notes_of(decision))
        changed = " ".join(f"NIC {nic.nic.name}: {nic.message}" for nic in decision.nics if nic.action is Action.PATCH)
        self._tell(key, "NicChanged", "Patch", changed)
        if begun is not None:
            await self._restarts.resume(key, begun)
        elif never_started(decision) and key in self._world.instances.items:
            # The VM cannot start on its assigned device, and nothing has run in this instance yet, so a restart loses nothing.
            await self._restarts.request_restart(key)

    async def _note_failure(
        self, key: ObjectKey, decision: VmDecision, error: ApiError, reverts: Reverts | None, restart: Restart | None
    ) -> None:
        """Record that a patch was refused and release its restart slot.

        Failures that pass by themselves are not reported.
        """
        machine = self._world.machines.items.get(key)
        doubted, message = self._rejected_patches.get(key, (None, ""))
        # The first time, the VM may have changed in between; its event then leads to a new patch.
        # The cache keeps the same object while nothing in it changes, so identity tells whether the VM has changed.
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
        """Return the decision with its earlier refusal, as long as the same change of the same VM is retried."""
        machine, message = self._rejected_patches.get(key, (None, ""))
        return refused(decision, message) if message and machine is self._world.machines.items.get(key) else decision

    async def _roll(
        self, key: ObjectKey, decision: VmDecision, digest: str, reverts: Reverts | None, restart: Restart | None
    ) -> None:
        """Restart a VM whose NICs are changed at admission of its next instance."""
        machine = self._world.machines.items[key]
        if restart is not None and restart.digest == digest:
            await self._states.write(key, machine, already_restarted(decision), reverts, restart)
            return
        restart = self._restarts.begin(key, decision, digest)
        await self._states.write(key, machine, decision, reverts, restart)
        await self._restarts.resume(key, restart)

    def _tell(self, key: ObjectKey, reason: str, action: str, note: str) -> None:
        """Log what was done to a VM, and report it to its owner as an Event."""
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
        """Store the records of a VM, and enqueue every policy that they name or named."""
        before = self.notes.get(key, ())
        if before == notes:
            return
        self.notes.pop(key, None)
        if notes:
            if len(self._equal_notes) > _EQUAL_NOTES:
                self._equal_notes.clear()
            self.notes[key] = self._equal_notes.setdefault(notes, notes)
        before_policies, policies = ({note.policy for note in one} for one in (before, notes))
        for policy in before_policies:
            self._matched[policy][key.namespace] -= 1
        for policy in policies:
            self._matched[policy][key.namespace] += 1
        for policy in before_policies | policies:
            self._enqueue(policy_key(policy), _REPORT_S)


def _spared(decision: VmDecision, digest: str, reverts: Reverts | None, restart: Restart | None) -> VmDecision | None:
    """Return the decision that replaces a patch which another client reverted, or None if no client did."""
    if is_suspended(reverts, digest, datetime.now(UTC)):
        return yielded_decision(decision, reverts.manager if reverts is not None else "")
    if requires_restart(decision) and restart is not None and restart.digest == digest and restart.state == "Done":
        return already_restarted(decision)
    return None
