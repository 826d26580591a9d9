"""Status of a VmNicPolicy, summed up over the recorded VM decisions."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal

from ...api.common import Condition
from ...api.policy import PolicyProblem, PolicyStatus, VmCounts, VmNicPolicy
from ...kube.client import ApiClient
from ...kube.events import Events
from ...kube.reflector import ObjectKey
from ...kube.resources import POLICIES
from ...policy.condition_reasons import PolicyReason
from ...policy.types import Verdict
from ...policy.window import WindowError, is_open
from ..caches.cluster_cache import ClusterCache, Enqueue
from ..caches.keys import policy_key, vm_key
from ..status.status_writer import StatusWriter
from .decision_record import NicDecisionRecord
from .reconciler import MachineReconciler

__all__ = ["PolicyReconciler"]

_MAX_PROBLEMS = 10
_LOOK_AGAIN_S = 30.0
"""Interval for reconciling a policy whose VMs wait for a restart: its window may open, and the clock may jump."""
_SLICE = 200
"""VMs counted before the event loop gets a turn: about a millisecond."""
_MOST_NAME = 253
_MOST_MESSAGE = 512
_ABSENT = "the API server does not serve virtualmachines.kubevirt.io, so there is no VM: install KubeVirt"
_Problem = tuple[ObjectKey, int, str, str, str]
"""VM, number of the problem, NIC, reason and message."""
_WAKE = 100
"""Waiting VMs enqueued in one pass."""


class PolicyReconciler:
    """Writes the status of every VmNicPolicy."""

    def __init__(
        self, world: ClusterCache, api: ApiClient, machines: MachineReconciler, enqueue: Enqueue, events: Events
    ) -> None:
        self._world = world
        self._machines = machines
        self._enqueue = enqueue
        self._statuses = StatusWriter(api, events)

    async def reconcile(self, name: str) -> None:
        """Write the status if it differs.

        Raises:
            ApiError: the write failed. The queue retries.
        """
        key = ObjectKey("", name)
        if key in self._world.policies.malformed:
            await self._statuses.write_invalid(POLICIES, name, self._world.policies.malformed[key])
        policy = self._world.policies.items.get(key)
        if policy is None or not self._world.machines_synced:
            return  # Every policy is enqueued once the caches are complete.
        waiting = self._machines.slots.next_waiting(name, _WAKE)
        for machine in (*waiting, *self._machines.slots.in_progress()):
            self._enqueue(vm_key(*machine))
        if waiting:
            self._enqueue(policy_key(name), _LOOK_AGAIN_S)
        sums = _Sums(name)
        # A copy, because VMs are reconciled while this pass lets the event loop have its turns. It contains only the keys,
        # because making a pair for each of tens of thousands of VMs would hold the loop for milliseconds.
        for number, machine in enumerate(list(self._machines.notes)):
            sums.add(machine, self._machines.notes.get(machine, ()))
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        status = sums.status(policy, self._machines.slots.failed(name), is_kubevirt_absent=self._world.machines.absent)
        await self._statuses.write(POLICIES, policy, status)


class _Sums:
    """Counts over VMs, which may be added in any order and in slices."""

    def __init__(self, policy: str) -> None:
        self._policy = policy
        self._counted: Counter[str] = Counter()
        self._datapaths: Counter[str] = Counter()
        self._problems: list[_Problem] = []
        """The first problems by name of the VM and number of the problem."""

    def add(self, key: ObjectKey, notes: tuple[NicDecisionRecord, ...]) -> None:
        """Count one VM."""
        own = [note for note in notes if note.policy == self._policy]
        if not own:
            return
        verdicts = {note.verdict for note in own}
        self._counted["matched"] += 1
        self._counted["compliant"] += verdicts == {Verdict.COMPLIANT}
        self._counted["to_change"] += Verdict.CHANGE in verdicts
        self._counted["blocked"] += Verdict.BLOCKED in verdicts
        self._counted["pending_restart"] += any(note.pending_restart for note in own)
        self._counted["conflicting"] += any(note.conflicts_with for note in own)
        self._counted["at_risk"] += any(note.warnings for note in own)
        self._datapaths.update(note.datapath for note in own)
        for number, problem in enumerate(problem for note in own for problem in _problems_of(note)):
            self._note_problem((key, number, *problem))

    def _note_problem(self, problem: _Problem) -> None:
        # The first by name and not those met first. Otherwise the status would change with the order of the VMs.
        if len(self._problems) == _MAX_PROBLEMS and problem[:2] > self._problems[-1][:2]:
            return
        insort(self._problems, problem, key=lambda one: one[:2])
        del self._problems[_MAX_PROBLEMS:]

    def status(self, policy: VmNicPolicy, lost: Sequence[ObjectKey], *, is_kubevirt_absent: bool) -> PolicyStatus:
        """Return the status of the policy."""
        counts = VmCounts(**self._counted)
        return PolicyStatus(
            observed_generation=policy.metadata.generation,
            conditions=_conditions(policy, counts, _stalled(policy, lost), is_kubevirt_absent=is_kubevirt_absent),
            problems=[
                PolicyProblem(vm="/".join(key), nic=nic[:_MOST_NAME], reason=reason, message=message[:_MOST_MESSAGE])
                for key, _, nic, reason, message in self._problems
            ],
            vms=counts,
            nics_by_datapath=dict(sorted(self._datapaths.items())),
        )


def _problems_of(note: NicDecisionRecord) -> Iterator[tuple[str, str, str]]:
    """Yield NIC, reason and message of each problem of a NIC."""
    if note.reason or note.conflicts_with:
        yield note.nic, note.reason or PolicyReason.CONFLICT.value, _told(note)
    for warning in note.warnings:
        yield note.nic, warning.reason.value, warning.message


def _told(note: NicDecisionRecord) -> str:
    if note.conflicts_with:
        others = ", ".join(note.conflicts_with)
        return f"policy {others} of the same priority decides differently: give one of them another spec.priority"
    return note.message


def _stalled(policy: VmNicPolicy, lost: Sequence[ObjectKey]) -> tuple[str, str]:
    """Return reason and message of why an administrator must act, both empty if there is no need."""
    try:
        # Only for its error, which tells that the window can never open.
        is_open(policy.spec.enforcement.window, datetime.now(UTC))
    except WindowError as error:
        return PolicyReason.INVALID_WINDOW, str(error)
    if lost:
        return (
            PolicyReason.VM_DID_NOT_COME_BACK,
            f"VM {'/'.join(lost[0])} did not come back from its restart: no further VM is restarted until it runs",
        )
    return "", ""


def _conditions(
    policy: VmNicPolicy, counts: VmCounts, stalled: tuple[str, str], *, is_kubevirt_absent: bool
) -> list[Condition]:
    def make(kind: str, holds: bool, reason: str, message: str) -> Condition:
        status: Literal["True", "False"] = "True" if holds else "False"
        generation = policy.metadata.generation
        return Condition(type=kind, status=status, reason=reason, message=message, observed_generation=generation)

    compliant = counts.compliant == counts.matched
    missing = "" if compliant else f"; {counts.to_change} to change, {counts.blocked} blocked"
    risk = f"; {counts.at_risk} keep a datapath that fails at their next start" if counts.at_risk else ""
    conflicts = f"{counts.conflicting} VMs have a NIC that another policy of the same priority decides differently"
    reason, message = stalled
    going = (
        policy.spec.enforcement.action != "Audit" and policy.spec.enforcement.existing_vms == "Rolling" and counts.to_change > 0
    )
    return [
        make("Ready", False, PolicyReason.KUBEVIRT_ABSENT, _ABSENT)
        if is_kubevirt_absent
        else make("Ready", True, PolicyReason.EVALUATED, f"{counts.matched} VMs are selected"),
        make("Reconciling", going and not reason, PolicyReason.ROLLING_OUT if going else PolicyReason.SETTLED, ""),
        make("Stalled", bool(reason), reason or PolicyReason.NOT_STALLED, message),
        make(
            "Compliant",
            compliant,
            PolicyReason.ALL_COMPLIANT if compliant else PolicyReason.NOT_COMPLIANT,
            f"{counts.compliant} of {counts.matched} VMs comply{missing}{risk}",
        ),
        make(
            "Conflict",
            counts.conflicting > 0,
            PolicyReason.CONFLICT if counts.conflicting else PolicyReason.NO_CONFLICT,
            conflicts if counts.conflicting else "",
        ),
    ]
