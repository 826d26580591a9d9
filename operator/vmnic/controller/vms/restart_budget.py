"""Who may be restarted now: `existingVMs: Rolling`, one decision a VM at most once, a few at a time, inside the window.

Restarts under way are read from the VMs' VmNicStates, which are written before a restart is asked for, so that a new leader
counts those of the old one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from ...kube.reflector import ObjectKey
from ...kubevirt.vm import VirtualMachine
from ...kubevirt.vm_state import Restart
from ...kubevirt.vmi import VirtualMachineInstance
from ...policy.rules import Rule
from ...policy.window import WindowError, is_open

__all__ = ["RestartBudget", "advance_restart", "mark_started"]

_OPEN_STATES = ("Restarting", "Failed")


def mark_started(digest: str, policy: str, instance: str, now: datetime) -> Restart:
    """Note a restart that is about to be asked for."""
    return Restart(digest=digest, policy=policy, state="Restarting", instance=instance, at=now.strftime("%Y-%m-%dT%H:%M:%SZ"))


def advance_restart(
    restart: Restart,
    machine: VirtualMachine | None,
    instance: VirtualMachineInstance | None,
    *,
    now: datetime,
    restart_timeout: timedelta,
) -> Restart:
    """Say how far a restart is: done once another instance runs, or once its owner has stopped the VM instead.

    Args:
        restart: The restart.
        machine: The VM; None: it cannot be read, and its owner may or may not have stopped it.
        instance: The VM's present instance; None: there is none that can be read.
        now: The time.
        restart_timeout: A VM that does not run so long after its restart did not come back; it may still do so.
    """
    if restart.state not in _OPEN_STATES:
        return restart
    if instance is not None and instance.metadata.uid != restart.instance and instance.status.phase == "Running":
        return msgspec.structs.replace(restart, state="Done")
    late = now - datetime.fromisoformat(restart.at) > restart_timeout
    # With another run strategy nothing tells a VM that was stopped by hand from one that is about to come back, but time.
    if machine is not None and instance is None and (machine.halted or (late and not machine.always_runs)):
        return msgspec.structs.replace(restart, state="Done")
    return msgspec.structs.replace(restart, state="Failed" if late else restart.state)


class RestartBudget:
    """Slots of all policies."""

    def __init__(self) -> None:
        self._open: dict[ObjectKey, Restart] = {}
        """Restarts that are not done, by VM."""
        self._waiting: dict[str, set[ObjectKey]] = defaultdict(set)
        """VMs that wait for their turn, by policy."""

    def note(self, key: ObjectKey, restart: Restart | None) -> bool:
        """Take in how far a VM's restart is; tells whether a slot has become free."""
        before = self._open.pop(key, None)
        if restart is not None and restart.state in _OPEN_STATES:
            self._open[key] = restart
            return False
        return before is not None

    def restart_of(self, key: ObjectKey) -> Restart | None:
        """Return the restart whose slot a VM holds; None if it holds none."""
        return self._open.get(key)

    def refusal(self, key: ObjectKey, rule: Rule, restart: Restart | None, matched: Mapping[str, int]) -> str:
        """Say why it is not a VM's turn; empty: it is.

        Args:
            key: The VM.
            rule: The policy whose settings hold for it.
            restart: The VM's last restart.
            matched: How many VMs the policy has, in each namespace.
        """
        if restart is not None and restart.state in _OPEN_STATES:
            return "" if restart.state == "Restarting" else "it did not come back from its restart"
        busy = {other: one for other, one in self._open.items() if one.policy == rule.policy}
        failed = sorted(other for other, one in busy.items() if one.state == "Failed")
        if failed:
            return f"VM {'/'.join(failed[0])} did not come back, and the rollout waits for it"
        if len(busy) >= _slots(rule.max_unavailable, sum(matched.values())):
            return f"{len(busy)} VMs restart already (maxUnavailable)"
        own = sum(other.namespace == key.namespace for other in busy)
        limit = rule.max_unavailable_per_namespace
        if limit is not None and own >= _slots(limit, matched.get(key.namespace, 0)):
            return f"{own} VMs of its namespace restart already (maxUnavailablePerNamespace)"
        try:
            return "" if is_open(rule.window, datetime.now(UTC)) else "enforcement.window is closed"
        except WindowError as error:
            return str(error)

    def failed(self, policy: str) -> list[ObjectKey]:
        """Give the VMs of a policy that did not come back."""
        return sorted(key for key, one in self._open.items() if one.policy == policy and one.state == "Failed")

    def in_progress(self) -> list[ObjectKey]:
        """Give the VMs whose restart is not done."""
        return list(self._open)

    def wait(self, policy: str, key: ObjectKey) -> None:
        """Note that a VM waits for its turn."""
        self._waiting[policy].add(key)

    def next_waiting(self, policy: str, count: int) -> list[ObjectKey]:
        """Give the first VMs by name that wait for their turn."""
        return sorted(self._waiting.get(policy, ()))[:count]

    def forget(self, key: ObjectKey) -> None:
        """Drop a VM that no longer waits."""
        for waiting in self._waiting.values():
            waiting.discard(key)


def _slots(limit: int | str, matched: int) -> int:
    """A number, or a share of the VMs rounded up."""
    if isinstance(limit, int):
        return limit
    return math.ceil(matched * int(limit.removesuffix("%")) / 100)
