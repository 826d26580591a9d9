"""One policy: its status, summed up from what was decided about the VMs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal

from ...api.common import Condition
from ...api.policy import PolicyProblem, PolicyStatus, VmCounts, VmNicPolicy
from ...kube.client import ApiClient
from ...kube.conditions import merged_conditions
from ...kube.reflector import ObjectKey
from ...kube.resources import POLICIES
from ...policy.engine import Verdict
from ..world import World
from .machines import MachineReconciler, NicNote

__all__ = ["PolicyReconciler", "summarise_policy"]

_MAX_PROBLEMS = 10


class PolicyReconciler:
    """Keeps policies' statuses true."""

    def __init__(self, world: World, api: ApiClient, machines: MachineReconciler) -> None:
        self._world = world
        self._api = api
        self._machines = machines

    async def reconcile(self, name: str) -> None:
        """Write the status, if it differs.

        Raises:
            ApiError: the write failed; the queue tries again.
        """
        policy = self._world.policies.items.get(ObjectKey("", name))
        if policy is None or not self._world.machines_synced:
            return  # All policies are asked for once the caches are complete.
        status = summarise_policy(policy, self._machines.notes)
        conditions = merged_conditions(policy.status.conditions, status.conditions, now=datetime.now(UTC))
        status = status.model_copy(update={"conditions": conditions})
        if status != policy.status:
            body = [{"op": "add", "path": "/status", "value": status.dump()}]
            await self._api.patch_json(POLICIES, name, body, subresource="status")


def summarise_policy(policy: VmNicPolicy, notes: Mapping[ObjectKey, tuple[NicNote, ...]]) -> PolicyStatus:
    """Sum up a policy's VMs; conditions come without transition times."""
    name = policy.metadata.name
    mine = {key: own for key in sorted(notes) if (own := [note for note in notes[key] if note.policy == name])}
    counts = _count(mine.values())
    problems = [
        PolicyProblem(vm="/".join(key), nic=note.nic, reason=note.reason or "Conflict", message=_told(note)[:512])
        for key, own in mine.items()
        for note in own
        if note.reason or note.conflicts_with
    ]
    return PolicyStatus(
        observed_generation=policy.metadata.generation,
        conditions=_conditions(policy, counts),
        problems=problems[:_MAX_PROBLEMS],
        vms=counts,
        nics_by_datapath=dict(sorted(Counter(note.datapath for own in mine.values() for note in own).items())),
    )


def _told(note: NicNote) -> str:
    if note.conflicts_with:
        others = ", ".join(note.conflicts_with)
        return f"policy {others} of the same priority decides differently: give one of them another spec.priority"
    return note.message


def _count(vms: Iterable[list[NicNote]]) -> VmCounts:
    counted: Counter[str] = Counter()
    for notes in vms:
        verdicts = {note.verdict for note in notes}
        counted["matched"] += 1
        counted["compliant"] += verdicts == {Verdict.COMPLIANT}
        counted["to_change"] += Verdict.CHANGE in verdicts
        counted["blocked"] += Verdict.BLOCKED in verdicts
        counted["pending_restart"] += any(note.pending_restart for note in notes)
        counted["conflicting"] += any(note.conflicts_with for note in notes)
    return VmCounts(**counted)


def _conditions(policy: VmNicPolicy, counts: VmCounts) -> list[Condition]:
    def make(kind: str, holds: bool, reason: str, message: str) -> Condition:
        status: Literal["True", "False"] = "True" if holds else "False"
        generation = policy.metadata.generation
        return Condition(type=kind, status=status, reason=reason, message=message, observed_generation=generation)

    compliant = counts.compliant == counts.matched
    missing = f"{counts.to_change} to change, {counts.blocked} blocked"
    conflicts = f"{counts.conflicting} VMs have a NIC that another policy of the same priority decides differently"
    return [
        make("Ready", True, "Evaluated", f"{counts.matched} VMs are selected"),
        make(
            "Compliant",
            compliant,
            "AllCompliant" if compliant else "NotCompliant",
            f"{counts.compliant} of {counts.matched} VMs are as wanted" + ("" if compliant else f"; {missing}"),
        ),
        make(
            "Conflict",
            counts.conflicting > 0,
            "Conflict" if counts.conflicting else "NoConflict",
            conflicts if counts.conflicting else "",
        ),
    ]
