"""Schemas of what `kubectl vmnic` prints with `-o json`.

`docs/reference/plan.schema.json` is generated from it, and `drainplan.schema.json` and `survival.schema.json` from the shapes
of `drain-plan` and `capacity --survive`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NotRequired

# pydantic generates the JSON Schema, and before Python 3.12 it accepts only this TypedDict.
from typing_extensions import TypedDict

__all__ = [
    "DrainPlan",
    "DrainSummary",
    "DrainedVm",
    "FailOn",
    "LossEntry",
    "NicPlan",
    "NicShape",
    "PfProblemEntry",
    "Plan",
    "PoolNode",
    "PoolPlan",
    "PoolSurvival",
    "ProblemEntry",
    "Summary",
    "Survival",
    "UnplacedVm",
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


class DrainedVm(TypedDict):
    """What happens to one VM when its node is drained."""

    kind: Literal["VirtualMachine", "VirtualMachineInstance"]
    """A VirtualMachineInstance is one that no VirtualMachine owns."""
    namespace: str
    name: str
    outcome: Literal["Migrates", "LosesLink", "Stopped", "Blocks", "Unknown"]
    node: str | None
    """Where its devices fit. Null if it has none, or no place."""
    devices: dict[str, int]
    """Devices that it holds, by resource."""
    linkLost: list[str]
    """NICs that have no link during the migration."""
    startsAgain: bool | None
    """Whether KubeVirt starts it again after it was stopped. Null if that is unknown, or if it is not stopped."""
    message: str


class DrainSummary(TypedDict):
    """Numbers of VMs by outcome."""

    vms: int
    migrates: int
    losesLink: int
    stopped: int
    blocks: int
    unknown: int


class DrainPlan(TypedDict):
    """What a drain of a node does to its VMs, as far as VFs, node selectors, node affinity and taints go."""

    apiVersion: Literal["cli.vmnic.dev/v1alpha1"]
    kind: Literal["DrainPlan"]
    node: str
    summary: DrainSummary
    vms: list[DrainedVm]
    problems: list[ProblemEntry]


class UnplacedVm(TypedDict):
    """A VM that has no place."""

    namespace: str
    name: str
    devices: dict[str, int]


class LossEntry(TypedDict):
    """What the loss of one node or PF does."""

    node: str
    pf: str | None
    """PCI address. Null if the whole node is lost."""
    vms: int
    """Number of VMs that need another place."""
    survives: bool | None
    """Null if unknown."""
    unplaced: list[UnplacedVm]
    message: str


class PoolSurvival(TypedDict):
    """Whether the VMs with devices of a pool fit after any loss."""

    name: str
    survives: bool | None
    """Null if unknown."""


class Survival(TypedDict):
    """Whether all VMs with VFs or whole NICs still fit after the loss of any one node or PF."""

    apiVersion: Literal["cli.vmnic.dev/v1alpha1"]
    kind: Literal["Survival"]
    lossOf: Literal["node", "pf"]
    survives: bool | None
    """Null if unknown."""
    unplaced: list[UnplacedVm]
    """VMs that have no place even if nothing is lost."""
    losses: list[LossEntry]
    pools: list[PoolSurvival]
    problems: list[ProblemEntry]
