"""Restart slots of `existingVMs: Rolling`.

A few VMs at a time restart, once per decision, inside the window. Restarts in progress are read from the VmNicStates, which are
written before a restart is requested, so that a new leader counts the restarts of the previous one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from ...api.vm_state import Restart
from ...checked.amounts import resolve_percentage
from ...checked.moments import format_time
from ...kube.reflector import ObjectKey
from ...kubevirt.vm import VirtualMachine
from ...kubevirt.vmi import VirtualMachineInstance
from ...policy.rules import Rule
from ...policy.window import WindowError, is_open

__all__ = ["RestartBudget", "advance_restart", "mark_started"]

# A failed restart keeps its slot, because the VM may still come back, and until then it is unavailable.
_OPEN_STATES = ("Restarting", "Failed")


def mark_started(digest: str, policy: str, instance: str, now: datetime) -> Restart:
    """Return the record of a restart that is about to be requested."""
    return Restart(digest=digest, policy=policy, state="Restarting", instance=instance, at=format_time(now))


def advance_restart(
    restart: Restart,
    machine: VirtualMachine | None,
    instance: VirtualMachineInstance | None,
    *,
    now: datetime,
    restart_timeout: timedelta,
) -> Restart:
    """Return the restart with its current state.

    A restart is done once another instance runs, or once the VM's owner has stopped the VM instead.

    Args:
        restart: The restart.
        machine: The VM. None if it cannot be read; whether its owner has stopped it is then unknown.
        instance: The VM's current instance. None if there is none, or it cannot be read.
        now: The time.
        restart_timeout: Time after which a VM that does not run counts as failed. It may still come back.
    """
    if restart.state not in _OPEN_STATES:
        return restart
    if instance is not None and instance.metadata.uid != restart.instance and instance.status.phase == "Running":
        return msgspec.structs.replace(restart, state="Done")
    late = now - datetime.fromisoformat(restart.at) > restart_timeout
    # Under other run strategies, only time distinguishes a VM that was stopped by hand from one that is about to come back.
    if machine is not None and instance is None and (machine.halted or (late and not machine.always_runs)):
        return msgspec.structs.replace(restart, state="Done")
    return msgspec.structs.replace(restart, state="Failed" if late else restart.state)


class RestartBudget:
    """Restart slots of all policies."""

    def __init__(self) -> None:
        self._open: dict[ObjectKey, Restart] = {}
        """Restarts that are not done, by VM."""
        self._waiting: dict[str, set[ObjectKey]] = defaultdict(set)
        """VMs that wait for a slot, by policy."""

    def note(self, key: ObjectKey, restart: Restart | None) -> bool:
        """Record the state of a VM's restart and return whether a slot became free."""
        before = self._open.pop(key, None)
        if restart is not None and restart.state in _OPEN_STATES:
            self._open[key] = restart
            return False
        return before is not None

    def restart_of(self, key: ObjectKey) -> Restart | None:
        """Return the restart that holds a slot for this VM, or None."""
        return self._open.get(key)

    def blocking_reason(self, key: ObjectKey, rule: Rule, restart: Restart | None, matched: Mapping[str, int]) -> str:
        """Return why a VM may not restart now, or an empty string if it may.

        Args:
            key: The VM.
            rule: The policy whose settings apply to it.
            restart: The VM's last restart.
            matched: Number of VMs that the policy selects, by namespace.
        """
        if restart is not None and restart.state in _OPEN_STATES:
            # A VM that restarts has its slot already.
            return "" if restart.state == "Restarting" else "it did not come back from its restart"
        busy = {other: one for other, one in self._open.items() if one.policy == rule.policy}
        failed = sorted(other for other, one in busy.items() if one.state == "Failed")
        # Also while slots are free, because the change itself may keep VMs from coming back.
        if failed:
            return f"VM {'/'.join(failed[0])} did not come back, and the rollout waits for it"
        if len(busy) >= resolve_percentage(rule.max_unavailable, sum(matched.values()), round_up=True):
            return f"{len(busy)} VMs are already restarting (maxUnavailable)"
        own = sum(other.namespace == key.namespace for other in busy)
        limit = rule.max_unavailable_per_namespace
        if limit is not None and own >= resolve_percentage(limit, matched.get(key.namespace, 0), round_up=True):
            return f"{own} VMs of its namespace are already restarting (maxUnavailablePerNamespace)"
        try:
            return "" if is_open(rule.window, datetime.now(UTC)) else "enforcement.window is closed"
        except WindowError as error:
            return str(error)

    def failed(self, policy: str) -> list[ObjectKey]:
        """Return the VMs of a policy that did not come back from their restart, sorted by name."""
        return sorted(key for key, one in self._open.items() if one.policy == policy and one.state == "Failed")

    def in_progress(self) -> list[ObjectKey]:
        """Return the VMs whose restart is not done."""
        return list(self._open)

    def wait(self, policy: str, key: ObjectKey) -> None:
        """Record that a VM waits for a slot."""
        self._waiting[policy].add(key)

    def next_waiting(self, policy: str, count: int) -> list[ObjectKey]:
        """Return the first waiting VMs by name."""
        return sorted(self._waiting.get(policy, ()))[:count]

    def forget(self, key: ObjectKey) -> None:
        """Remove a VM that no longer waits."""
        for waiting in self._waiting.values():
            waiting.discard(key)
