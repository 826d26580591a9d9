"""What the phases of a decision hand to each other, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from .checks import Finding
from .facts import Datapath, Network, NicFacts, NicState, VmFacts
from .reasons import Reason
from .rules import Rule

__all__ = [
    "Action",
    "Candidate",
    "Choices",
    "NicCandidates",
    "NicDecision",
    "NicKey",
    "Verdict",
    "VmCandidates",
    "VmDecision",
    "first_accepted",
]


class Verdict(StrEnum):
    """What is the matter with a NIC."""

    CHANGE = "Change"
    COMPLIANT = "Compliant"
    BLOCKED = "Blocked"
    NOT_SELECTED = "NotSelected"


class Action(StrEnum):
    """What is done about it."""

    AUDIT = "Audit"
    PATCH = "Patch"
    ADMIT = "Admit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A datapath that a NIC might have, and why it falls out."""

    datapath: Datapath
    finding: Finding | None = None
    network: Network | None = None
    """The network that offers it."""
    resource: str = ""
    """The device that it takes; empty: none."""
    is_current: bool = False
    """Whether the NIC has it already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NicCandidates:
    """What a NIC might have, by the rule that decides it."""

    nic: NicFacts
    rule: Rule | None = None
    candidates: tuple[Candidate, ...] = ()
    unchanged: bool = False
    """`auto` aims at nothing for this guest: where no candidate stands, the NIC is right as it is."""
    conflicts_with: tuple[str, ...] = ()
    """Policies of the same priority that would decide differently."""
    blocked: Finding | None = None
    """Why the NIC stays as it is, whatever the candidates are: something that decides about it cannot be read."""

    @property
    def claims(self) -> bool:
        """Whether a candidate that stands would take a device that the NIC does not have."""
        return any(one.resource and not one.is_current and one.finding is None for one in self.candidates)


@dataclass(frozen=True, slots=True, kw_only=True)
class VmCandidates:
    """The first phase's result for one VM."""

    vm: VmFacts
    effective_rule: Rule | None
    """The highest rule that selects any NIC: its settings of the whole VM hold."""
    nics: tuple[NicCandidates, ...]

    @property
    def unreadable_policy(self) -> bool:
        """Whether a policy that cannot be read selects the VM."""
        return self.effective_rule is not None and bool(self.effective_rule.unreadable)

    @property
    def claims(self) -> bool:
        """Whether capacity has a say: a device is wanted, or one that was assigned may have to be given back."""
        return any(nic.claims for nic in self.nics)


NicKey = tuple[str, str, str]
"""Namespace, VM and NIC."""
Choices = Mapping[NicKey, tuple[Candidate, ...]]
"""The candidates of NICs over whose devices capacity had a say, with what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NicDecision:
    """What follows for one NIC."""

    nic: NicFacts
    policy: str | None
    verdict: Verdict
    wanted: NicState
    network: Network | None = None
    """Where it is to be connected; None: as it is."""
    action: Action | None = None
    reason: Reason | None = None
    message: str = ""
    candidates: tuple[Candidate, ...] = ()
    conflicts_with: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VmDecision:
    """What follows for one VM."""

    vm: VmFacts
    effective_rule: Rule | None
    nics: tuple[NicDecision, ...]

    @property
    def selected(self) -> bool:
        """Whether any policy decides any NIC."""
        return any(nic.verdict is not Verdict.NOT_SELECTED or nic.reason is not None for nic in self.nics)

    @property
    def restart_required(self) -> bool:
        """Whether a change takes effect only by a restart."""
        return self.vm.running and any(nic.verdict is Verdict.CHANGE for nic in self.nics)


def first_accepted(found: tuple[Candidate, ...]) -> Candidate | None:
    """Give the candidate that is chosen; None where all fell out."""
    return next((candidate for candidate in found if candidate.finding is None), None)
