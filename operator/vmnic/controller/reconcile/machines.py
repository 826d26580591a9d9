"""One VirtualMachine: decide its NICs, patch it where a policy says so, and write down what was decided.

Where devices are wanted, the decision waits for the one look at all VMs that want them (`allocate`).
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ...kube.client import ApiClient, ConflictError
from ...kube.events import Events
from ...kube.reflector import ObjectKey
from ...kube.resources import MACHINE_SUBRESOURCES, VIRTUAL_MACHINES
from ...kubevirt.gather import gather_vm_facts
from ...kubevirt.patch import render_patch
from ...kubevirt.state import Restart, Reverts
from ...policy.allocate import allocate
from ...policy.decision import Action, Choices, Verdict, VmCandidates, VmDecision
from ...policy.enforce import decide
from ...policy.engine import candidates
from ...policy.facts import ClusterFacts, Datapath
from ...policy.reasons import Reason
from ..keys import ALLOCATION, policy_key, vm_key
from ..news import machine_subject
from ..rollout import Rollout, began, settled
from ..world import Enqueue, World
from . import reverts as fights
from .vm_states import VmStates

__all__ = ["MachineReconciler", "NicNote"]

_log = logging.getLogger(__name__)

_REPORT_S = 1.0
"""Policies are summed up at most so often."""
_SETTLE_S = 0.05
"""Demands of a burst are looked at together."""
_RESTARTING_S = 20.0
"""How often a restart under way is looked at, if nothing happens."""


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

    def __init__(self, world: World, api: ApiClient, enqueue: Enqueue, events: Events, *, comes_back: timedelta) -> None:
        self._comes_back = comes_back
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
        self._overshot: set[ObjectKey] = set()
        """VMs that were given what others have."""
        self._granted: set[ObjectKey] = set()
        """VMs that were patched and whose change has not come back yet: what they were given stands."""
        self._facts: ClusterFacts | None = None
        self._matched: dict[str, Counter[str]] = defaultdict(Counter)
        """How many VMs each policy has, by namespace."""
        self._asked: dict[ObjectKey, tuple[str, datetime]] = {}
        """Instances that KubeVirt was asked to replace, and when."""
        self.rollout = Rollout()
        self.notes: dict[ObjectKey, tuple[NicNote, ...]] = {}
        """What was decided, by VM; VMs that no policy selects are left out."""

    async def allocate(self) -> None:
        """Choose over all VMs that want devices, and have those looked at for which something changes."""
        if not self._world.machines_synced:
            return
        cluster = self._world.cluster_facts
        if self._facts is not None and self._facts != cluster:
            self._world.enqueue_machines()
        self._facts = cluster
        capacity = self._world.devices.capacity
        demands = dict(self._demands)
        self._overshot = {ObjectKey(*key) for key in capacity.overshot}
        for key in self._overshot:
            found = self._candidates(key)
            if found is not None and not found.claims:
                demands.setdefault(key, found)
        before = self._choices
        granted = {nic: made for nic, made in before.items() if ObjectKey(*nic[:2]) in self._granted}
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
        self._granted.discard(key)
        found = self._candidates(key)
        if found is None:
            self._forget(key)
            return
        if not self._is_allocated(key, found):
            self._enqueue(ALLOCATION, _SETTLE_S)
            return
        state = self._states.known(key)
        restart = self._settle_restart(key, state.restart if state is not None else None)
        reverts = state.reverts if state is not None else None
        decision = decide(found, self._choices_for(key, found), turn=self._refusal(key, found, restart))
        self._note_waiting(key, decision)
        machine = self._world.machines.items[key]
        patch = render_patch(decision, machine, self._world.devices.capacity.total if found.claims else {})
        if patch:
            digest, now = fights.digest_of(patch), datetime.now(UTC)
            reverts = fights.yielded(reverts, digest, now, machine.applier) or reverts
            if fights.has_yielded(reverts, digest, now):
                decision, patch = _given_in(decision, reverts.manager if reverts is not None else ""), []
            elif self._rolls(decision) and restart is not None and restart.digest == digest and restart.state == "Done":
                decision, patch = _rolled_already(decision), []
        self._remember(key, _notes(decision))
        if patch:
            await self._patch(key, decision, patch, reverts, restart)
        elif restart is not None and restart.state == "Restarting":
            await self._restart(key, restart)
            await self._states.write(key, machine, decision, reverts, restart)
        elif self._rolls(decision) and (digest := _admit_digest(decision)):
            await self._roll(key, decision, digest, reverts, restart)
        else:
            await self._free_from_vain_wait(key, decision)
            await self._states.write(key, machine, decision, reverts, restart)

    def _candidates(self, key: ObjectKey) -> VmCandidates | None:
        machine = self._world.machines.items.get(key)
        if machine is None or machine.metadata.deletion_timestamp:
            return None
        facts = gather_vm_facts(self._world.input_of(machine, key.namespace))
        return candidates(facts, self._world.rules, self._world.cluster_facts)

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
        if found.claims or (key in self._overshot and tuple(key) in self._world.devices.capacity.overshot):
            return self._choices
        return {}

    def _settle_restart(self, key: ObjectKey, restart: Restart | None) -> Restart | None:
        """Say how far the VM's last restart is; a slot that becomes free is the next one's."""
        if restart is not None:
            before = restart.state
            restart = settled(restart, self._world.instances.items.get(key), datetime.now(UTC), self._comes_back)
            if restart.state != before:
                self._enqueue(policy_key(restart.policy))
        if self.rollout.note(key, restart) and restart is not None:
            for other in self.rollout.next_waiting(restart.policy, 1):
                self._enqueue(vm_key(*other))
        return restart

    def _refusal(self, key: ObjectKey, found: VmCandidates, restart: Restart | None) -> str:
        lead = found.lead
        if lead is None or lead.existing_vms != "Rolling" or not found.vm.running:
            return ""
        return self.rollout.refusal(key, lead, restart, self._matched[lead.policy])

    def _note_waiting(self, key: ObjectKey, decision: VmDecision) -> None:
        self.rollout.forget(key)
        if decision.lead is not None and any(nic.reason is Reason.WAITS_FOR_WINDOW for nic in decision.nics):
            self.rollout.wait(decision.lead.policy, key)

    @staticmethod
    def _rolls(decision: VmDecision) -> bool:
        return decision.lead is not None and decision.lead.existing_vms == "Rolling" and decision.vm.running

    async def _patch(
        self,
        key: ObjectKey,
        decision: VmDecision,
        patch: list[dict[str, Any]],
        reverts: Reverts | None,
        restart: Restart | None,
    ) -> None:
        """Patch a VM, and restart it where that is asked for: what is about to happen is written down first."""
        digest, machine = fights.digest_of(patch), self._world.machines.items[key]
        reverts = fights.made(reverts, digest, datetime.now(UTC))
        if self._rolls(decision):
            restart = self._begin(key, decision, digest)
            await self._states.write(key, machine, decision, reverts, restart)
        self._granted.add(key)
        await self._api.patch_json(VIRTUAL_MACHINES, key.name, patch, key.namespace)
        self._states.hold(key, reverts)
        changed = ", ".join(nic.message for nic in decision.nics if nic.action is Action.PATCH)
        self._tell(key, "NicChanged", "Patch", changed)
        if self._rolls(decision) and restart is not None:
            await self._restart(key, restart)
        elif self._never_started(decision) and key in self._world.instances.items:
            # It cannot start on what it was assigned, and nothing has run in it yet.
            await self._ask_once(key)

    @staticmethod
    def _never_started(decision: VmDecision) -> bool:
        gives_back = any(
            one.stays and one.finding is not None and one.finding.reason is Reason.NO_FREE_VF
            for nic in decision.nics
            for one in nic.candidates
        )
        return gives_back and decision.vm.running and not decision.vm.started

    async def _free_from_vain_wait(self, key: ObjectKey, decision: VmDecision) -> None:
        """Restart a VM that never started and waits for a device that its spec no longer asks for.

        KubeVirt may have made the instance from the spec as it was a moment before vmnic took the device back.
        """
        scarce = (Datapath.SRIOV, Datapath.PASSTHROUGH)
        patches = decision.lead is not None and decision.lead.action == "Patch"
        if not patches or not decision.vm.running or decision.vm.started:
            return
        for nic in decision.nics:
            if nic.nic.live is not None and nic.nic.live.datapath in scarce and nic.nic.present.datapath not in scarce:
                await self._ask_once(key)

    async def _roll(
        self, key: ObjectKey, decision: VmDecision, digest: str, reverts: Reverts | None, restart: Restart | None
    ) -> None:
        """Restart a VM whose instance is changed at its next start."""
        machine = self._world.machines.items[key]
        if restart is not None and restart.digest == digest:
            await self._states.write(key, machine, _rolled_already(decision), reverts, restart)
            return
        restart = self._begin(key, decision, digest)
        await self._states.write(key, machine, decision, reverts, restart)
        await self._restart(key, restart)

    def _begin(self, key: ObjectKey, decision: VmDecision, digest: str) -> Restart:
        instance = self._world.instances.items[key]
        policy = decision.lead.policy if decision.lead is not None else ""
        restart = began(digest, policy, instance.metadata.uid, datetime.now(UTC))
        self.rollout.note(key, restart)
        return restart

    async def _restart(self, key: ObjectKey, restart: Restart) -> None:
        """Ask KubeVirt to restart a VM whose old instance is still there; look again until it is done."""
        instance = self._world.instances.items.get(key)
        pause_s = min(_RESTARTING_S, self._comes_back.total_seconds() + 1)
        self._enqueue(vm_key(*key), pause_s)
        if instance is None or instance.metadata.uid != restart.instance or instance.metadata.deletion_timestamp:
            return
        await self._ask_once(key, again_s=pause_s)

    async def _ask_once(self, key: ObjectKey, again_s: float = _RESTARTING_S) -> None:
        """Ask for a restart, and for the same instance not again before so long."""
        uid, now = self._world.instances.items[key].metadata.uid, datetime.now(UTC)
        asked, at = self._asked.get(key, ("", now))
        if asked != uid or now - at > timedelta(seconds=again_s):
            self._asked[key] = (uid, now)
            self._tell(key, "Restarted", "Restart", "restarted, so that its NICs become what the policy wants")
            await self._ask_restart(key)

    async def _ask_restart(self, key: ObjectKey) -> None:
        """Have KubeVirt stop the instance and start a new one; asking twice is refused by it, and harmless."""
        try:
            await self._api.replace(MACHINE_SUBRESOURCES, {}, key.name, key.namespace, subresource="restart")
        except ConflictError as error:
            _log.info("VM %s/%s is not restarted: %s", *key, error.message, extra={"vm": "/".join(key)})

    def _tell(self, key: ObjectKey, reason: str, action: str, note: str) -> None:
        """Log what was done to a VM, and tell its owner by an Event."""
        _log.info("VM %s/%s: %s", *key, note, extra={"vm": "/".join(key)})
        self._events.tell(machine_subject(key, self._world.machines.items[key]), "Normal", reason, action, note)

    def _forget(self, key: ObjectKey) -> None:
        self._asked.pop(key, None)
        self._remember(key, ())
        self._states.forget(key)
        self.rollout.forget(key)
        self.rollout.note(key, None)
        if self._demands.pop(key, None) is not None:
            self._enqueue(ALLOCATION, _SETTLE_S)

    def _remember(self, key: ObjectKey, notes: tuple[NicNote, ...]) -> None:
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


def _given_in(decision: VmDecision, manager: str) -> VmDecision:
    """The decision about a VM that somebody put back twice."""
    who = f"{manager} puts" if manager else "somebody put"
    text = f"{who} it back, twice within an hour, so it is left for a day: change it where they take the VM from"
    nics = tuple(
        replace(nic, verdict=Verdict.BLOCKED, action=None, reason=Reason.OWNED_BY_GIT, message=f"{nic.message}: {text}")
        if nic.action is Action.PATCH
        else nic
        for nic in decision.nics
    )
    return replace(decision, nics=nics)


def _rolled_already(decision: VmDecision) -> VmDecision:
    """The decision about a VM that was restarted for it and is again as it was before."""
    text = "it was restarted once for this and somebody put it back, so it waits until it is stopped"
    nics = tuple(
        replace(nic, action=Action.AUDIT, reason=Reason.WAITS_FOR_STOP, message=f"{nic.message}: {text}")
        if nic.action in (Action.PATCH, Action.ADMIT)
        else nic
        for nic in decision.nics
    )
    return replace(decision, nics=nics)


def _admit_digest(decision: VmDecision) -> str:
    """Name what the VM's next instance is to get; empty: nothing."""
    wanted = [
        {"op": "admit", "path": nic.nic.name, "value": f"{nic.wanted.model} {nic.wanted.queues}"}
        for nic in decision.nics
        if nic.action is Action.ADMIT
    ]
    return fights.digest_of(wanted) if wanted else ""


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
            pending_restart=nic.verdict is Verdict.COMPLIANT and nic.nic.live is not None and nic.nic.live != nic.nic.present,
            conflicts_with=nic.conflicts_with,
        )
        for nic in decision.nics
        if nic.policy is not None
    )
