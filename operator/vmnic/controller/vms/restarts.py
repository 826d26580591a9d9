"""Restarts of VMs, from taking a slot to the request to KubeVirt and its progress."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol

from ...api.vm_state import Restart
from ...kube.client import ApiClient, ConflictError
from ...kube.reflector import ObjectKey
from ...kube.resources import MACHINE_SUBRESOURCES
from ...kubevirt.vmi import VirtualMachineInstance
from ...policy.reasons import Reason
from ...policy.types import VmCandidates, VmDecision
from ..caches.cluster_cache import ClusterCache, Enqueue
from ..caches.keys import policy_key, vm_key
from .restart_budget import RestartBudget, advance_restart, mark_started

__all__ = ["EventEmitter", "Restarts", "never_started", "requires_restart"]

_log = logging.getLogger(__name__)

_RESTARTING_S = 20.0
"""Interval for reconciling a VM whose restart is in progress."""


class EventEmitter(Protocol):
    """Reports to a VM's owner what was done."""

    def __call__(self, key: ObjectKey, reason: str, action: str, note: str) -> None:
        """Report one action on a VM."""
        ...


class Restarts:
    """Restarts VMs, a few at a time.

    Args:
        world: The caches.
        api: The leader's client.
        enqueue: Enqueues VMs that may get a slot, and policies.
        tell: Reports to a VM's owner.
        restart_timeout: Time after which a restarted VM that does not run counts as failed.
    """

    def __init__(
        self, world: ClusterCache, api: ApiClient, enqueue: Enqueue, tell: EventEmitter, *, restart_timeout: timedelta
    ) -> None:
        self._world = world
        self._api = api
        self._enqueue = enqueue
        self._tell = tell
        self._comes_back = restart_timeout
        self._asked: dict[ObjectKey, tuple[str, datetime]] = {}
        """Instances that KubeVirt was asked to replace, and when."""
        # One second more, so that the timeout is over when the VM is reconciled again.
        self._pause_s = min(_RESTARTING_S, restart_timeout.total_seconds() + 1)
        self.slots = RestartBudget()

    def settle(self, key: ObjectKey, found: VmCandidates, before: Restart | None) -> Restart | None:
        """Return the current state of the VM's last restart, or None if there was none or it became obsolete."""
        restart = before
        if before is not None:
            instance = self._world.instances.items.get(key)
            restart = None if self._is_obsolete(key, found, before, instance) else self._settled(key, before, instance)
            if restart is None or restart.state != before.state:
                self._enqueue(policy_key(before.policy))
        self._note(key, restart, before.policy if before is not None else "")
        return restart

    def settle_unreadable(self, key: ObjectKey, before: Restart | None) -> None:
        """Keep the slot of a VM that cannot be read until another instance runs.

        After the restart timeout, the restart counts as failed.
        """
        before = self.slots.restart_of(key) or before
        if before is None:
            return
        instance = self._world.instances.items.get(key)
        restart = advance_restart(before, None, instance, now=datetime.now(UTC), restart_timeout=self._comes_back)
        if restart.state != before.state:
            self._enqueue(policy_key(before.policy))
        self._note(key, restart, before.policy)
        if restart.state == "Restarting":
            self._enqueue(vm_key(*key), self._pause_s)

    def _settled(self, key: ObjectKey, before: Restart, instance: VirtualMachineInstance | None) -> Restart:
        now = datetime.now(UTC)
        restart = advance_restart(before, self._world.machines.items[key], instance, now=now, restart_timeout=self._comes_back)
        unasked = instance is not None and _stands(instance, before) and self._asked.get(key, ("",))[0] != before.instance
        if before.state == "Restarting" and restart.state == "Failed" and unasked:
            # An earlier leader recorded this restart, and no replica led for so long that it timed out: start its time again.
            return mark_started(before.digest, before.policy, before.instance, now)
        return restart

    def _is_obsolete(
        self, key: ObjectKey, found: VmCandidates, restart: Restart, instance: VirtualMachineInstance | None
    ) -> bool:
        """Return whether a recorded restart has no change waiting for it.

        Its change was never made, or was reverted.
        """
        if restart.state == "Done" or instance is None or not _stands(instance, restart):
            return False
        if self._has_asked(instance, key, _RESTARTING_S) or (
            found.effective_rule is not None and found.effective_rule.action == "Admit"
        ):
            return False  # KubeVirt is about to end the instance, or the change happens at admission and is in no spec.
        return all(nic.nic.live == nic.nic.present for nic in found.nics)

    def _note(self, key: ObjectKey, restart: Restart | None, policy: str) -> None:
        """Record the state of a restart, and enqueue the next waiting VM if a slot became free."""
        if self.slots.note(key, restart):
            for other in self.slots.next_waiting(policy, 1):
                self._enqueue(vm_key(*other))

    def blocking_reason(self, key: ObjectKey, found: VmCandidates, restart: Restart | None, matched: Mapping[str, int]) -> str:
        """Return why a VM may not restart now, or an empty string if it may or needs no restart."""
        effective_rule = found.effective_rule
        if effective_rule is None or effective_rule.existing_vms != "Rolling" or not found.vm.running:
            return ""
        return self.slots.blocking_reason(key, effective_rule, restart, matched)

    def note_waiting(self, key: ObjectKey, decision: VmDecision) -> None:
        """Record whether a VM waits for a slot."""
        self.slots.forget(key)
        if decision.effective_rule is not None and any(nic.reason is Reason.WAITS_FOR_WINDOW for nic in decision.nics):
            self.slots.wait(decision.effective_rule.policy, key)

    def begin(self, key: ObjectKey, decision: VmDecision, digest: str) -> Restart:
        """Take a slot for a restart.

        The caller records it before requesting the restart.
        """
        instance = self._world.instances.items[key]
        policy = decision.effective_rule.policy if decision.effective_rule is not None else ""
        restart = mark_started(digest, policy, instance.metadata.uid, datetime.now(UTC))
        self.slots.note(key, restart)
        return restart

    def release_slot(self, key: ObjectKey, decision: VmDecision, before: Restart | None) -> None:
        """Release the slot of a restart that is not requested after all.

        Args:
            key: The VM.
            decision: Its decision.
            before: The VM's previous restart.
        """
        self._note(key, before, decision.effective_rule.policy if decision.effective_rule is not None else "")

    async def resume(self, key: ObjectKey, restart: Restart) -> None:
        """Request the restart of a VM whose old instance still runs, and enqueue the VM again."""
        instance = self._world.instances.items.get(key)
        self._enqueue(vm_key(*key), self._pause_s)
        if instance is not None and _stands(instance, restart):
            await self.request_restart(key, again_s=self._pause_s)

    async def request_restart(self, key: ObjectKey, again_s: float = _RESTARTING_S) -> None:
        """Request a restart, at most once for the same instance within `again_s` seconds."""
        instance = self._world.instances.items[key]
        if not self._has_asked(instance, key, again_s):
            # Before the request: if the answer is lost, KubeVirt may be restarting the VM already.
            self._asked[key] = (instance.metadata.uid, datetime.now(UTC))
            self._tell(key, "Restarted", "Restart", "restarted to apply the NICs that its policy asks for")
            await self._ask(key)

    def _has_asked(self, instance: VirtualMachineInstance, key: ObjectKey, within_s: float) -> bool:
        asked, at = self._asked.get(key, ("", datetime.now(UTC)))
        return asked == instance.metadata.uid and datetime.now(UTC) - at <= timedelta(seconds=within_s)

    async def _ask(self, key: ObjectKey) -> None:
        """Ask KubeVirt to stop the instance and start a new one.

        KubeVirt refuses a second request, which is harmless.
        """
        try:
            await self._api.replace(MACHINE_SUBRESOURCES, {}, key.name, key.namespace, subresource="restart")
        except ConflictError as error:
            _log.info("VM %s/%s is not restarted: %s", *key, error.message, extra={"vm": "/".join(key)})

    async def restart_stuck_instance(self, key: ObjectKey, decision: VmDecision) -> None:
        """Restart a VM that never started and waits for a device that its spec no longer requests.

        KubeVirt may have created the instance from the spec as it was just before vmnic took the device back.
        """
        # With Admit, an instance differs from the VM's spec on purpose.
        patches = decision.effective_rule is not None and decision.effective_rule.action == "Patch"
        if not patches or not decision.vm.running or decision.vm.started:
            return
        for nic in decision.nics:
            if nic.nic.live is not None and nic.nic.live.datapath.needs_device and not nic.nic.present.datapath.needs_device:
                await self.request_restart(key)

    def forget(self, key: ObjectKey) -> None:
        """Remove all state of a VM that is gone."""
        self._asked.pop(key, None)
        self.slots.forget(key)
        self.slots.note(key, None)


def _stands(instance: VirtualMachineInstance, restart: Restart) -> bool:
    """Return whether an instance is the one that a restart is to end, and is not being deleted yet."""
    return instance.metadata.uid == restart.instance and not instance.metadata.deletion_timestamp


def requires_restart(decision: VmDecision) -> bool:
    """Return whether the decision's change requires a restart of the VM."""
    return decision.effective_rule is not None and decision.effective_rule.existing_vms == "Rolling" and decision.vm.running


def never_started(decision: VmDecision) -> bool:
    """Return whether a VM gives back a device on which it could not start."""
    gives_back = any(
        one.is_current and one.finding is not None and one.finding.reason is Reason.NO_FREE_VF
        for nic in decision.nics
        for one in nic.candidates
    )
    return gives_back and decision.vm.running and not decision.vm.started
