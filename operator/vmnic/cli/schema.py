"""Schema of a Plan as `kubectl vmnic plan -o json` prints it.

`docs/reference/plan.schema.json` is generated from it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NotRequired

# pydantic generates the JSON Schema, and before Python 3.12 it accepts only this TypedDict.
from typing_extensions import TypedDict

__all__ = [
    "FailOn",
    "NicPlan",
    "NicShape",
    "PfProblemEntry",
    "Plan",
    "PoolNode",
    "PoolPlan",
    "ProblemEntry",
    "Summary",
    "VmPlan",
]


class FailOn(StrEnum):
    """Plans that give exit code 1."""

    CHANGES = "changes"
    DISRUPTIVE = "disruptive"
    PROBLEMS = "problems"
    NEVER = "never"


class NicShape(TypedDict):
    """A datapath with its settings."""

    datapath: str
    model: NotRequired[str]
    queues: int


class NumberChange(TypedDict("NumberChange", {"from": int, "to": int})):
    """A number before and after."""


class GuestEntry(TypedDict):
    """What the guest sees of a NIC if the plan is carried out.

    `staticMtu` is the MTU of a guest with static configuration, which KubeVirt's DHCP does not tell.
    """

    mtu: NumberChange | None
    staticMtu: NotRequired[NumberChange]
    adapter: Literal["Same", "New"]
    interfaceName: Literal["Same", "MayChange"]
    queues: NumberChange
    link: Literal["Kept", "LostAtRestart", "LostDuringMigration"]


class CandidateEntry(TypedDict):
    """A datapath that the policy names, and why it is excluded."""

    datapath: str
    chosen: bool
    reason: NotRequired[str]
    message: NotRequired[str]


class WarningEntry(TypedDict):
    """What fails at the next start of a VM although its NIC keeps its datapath."""

    reason: str
    message: str


# `from` is a keyword of Python, so this type cannot be written as a class.
NicPlan = TypedDict(
    "NicPlan",
    {
        "name": str,
        "policy": str | None,
        "action": Literal["None", "Audit", "Patch", "Admit"],
        "verdict": Literal["Change", "Compliant", "Blocked", "NotSelected"],
        "reason": str | None,
        "from": NicShape,
        "to": NicShape,
        "message": str,
        "macAddress": str | None,
        "guest": GuestEntry,
        "candidates": list[CandidateEntry],
        "warnings": NotRequired[list[WarningEntry]],
        "queueCount": NotRequired[int],
    },
)


class PatchOperation(TypedDict):
    """One operation of a JSON Patch."""

    op: Literal["test", "add", "replace", "remove"]
    path: str
    value: NotRequired[object]


class VmPlan(TypedDict):
    """One VM that a policy selects, or what the new VMs of a VirtualMachinePool get."""

    kind: Literal["VirtualMachine", "VirtualMachinePool", "Domain"]
    namespace: str
    name: str
    platform: Literal["KubeVirt", "Libvirt"]
    guestOS: Literal["linux", "windows", "unknown"]
    restartRequired: bool
    nics: list[NicPlan]
    patch: NotRequired[list[PatchOperation]]
    patchComplete: bool
    domainXml: NotRequired[str]
    guestCommands: list[str]


class PfProblemEntry(TypedDict):
    """Why a PF is not, or cannot be, as its pool asks."""

    reason: str
    message: str


class PoolNode(TypedDict):
    """What a pool would do to one PF, or the problem that prevents it."""

    node: str
    pf: str
    actions: list[str]
    disruptive: bool
    blockedBy: list[str]
    problem: PfProblemEntry | None


class PoolPlan(TypedDict):
    """What a pool would do."""

    name: str
    nodes: list[PoolNode]


class ProblemEntry(TypedDict):
    """A problem that a person may want to fix."""

    object: str
    reason: str
    message: str


class Summary(TypedDict):
    """Counts of VMs, NICs to change, blocked NICs, restarts and disruptive pool plans.

    A VirtualMachinePool has no NICs to change: its new VMs get theirs when they are created.
    """

    vms: int
    changes: int
    blocked: int
    disruptive: int


class Plan(TypedDict):
    """What the policies and pools would do."""

    apiVersion: Literal["cli.vmnic.dev/v1alpha1"]
    kind: Literal["Plan"]
    summary: Summary
    vms: list[VmPlan]
    pools: list[PoolPlan]
    problems: list[ProblemEntry]
