"""Results of the phases of a decision."""

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
    """State of a NIC relative to its policy."""

    CHANGE = "Change"
    COMPLIANT = "Compliant"
    BLOCKED = "Blocked"
    NOT_SELECTED = "NotSelected"


class Action(StrEnum):
    """What vmnic does about a NIC."""

    AUDIT = "Audit"
    PATCH = "Patch"
    ADMIT = "Admit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One datapath that a policy allows for a NIC, with the finding that excludes it."""

    datapath: Datapath
    finding: Finding | None = None
    network: Network | None = None
    """The network that offers the datapath."""
    resource: str = ""
    """The device resource that it takes; empty if none."""
    is_current: bool = False
    """Whether the NIC has it already."""
    options: tuple[Candidate, ...] = ()
    """The same datapath by other resources of the same pool. `allocate` chooses one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NicCandidates:
    """Candidates of one NIC under the rule that decides it."""

    nic: NicFacts
    rule: Rule | None = None
    candidates: tuple[Candidate, ...] = ()
    unchanged: bool = False
    """Whether the NIC is compliant if no candidate is accepted. `auto` has no goal for such a guest."""
    conflicts_with: tuple[str, ...] = ()
    """Policies of the same priority that would decide differently."""
    blocked: Finding | None = None
    """Why the NIC stays as it is regardless of its candidates."""
    present: Finding | None = None
    """Why the datapath that it has already would be excluded as a candidate."""
    warnings: tuple[Finding, ...] = ()
    """What fails at the next start if the NIC keeps its datapath."""

    @property
    def claims(self) -> bool:
        """Return whether an accepted candidate would take a device that the NIC does not have."""
        return any(one.resource and not one.is_current and one.finding is None for one in self.candidates)


@dataclass(frozen=True, slots=True, kw_only=True)
class VmCandidates:
    """Result of the first phase for one VM."""

    vm: VmFacts
    effective_rule: Rule | None
    """The highest rule that selects any NIC. Its VM-wide settings apply."""
    nics: tuple[NicCandidates, ...]
    refused: Finding | None = None
    """Why KubeVirt refuses every change of the VM."""

    @property
    def unreadable_policy(self) -> bool:
        """Return whether a policy that cannot be read selects the VM."""
        return self.effective_rule is not None and bool(self.effective_rule.unreadable)

    @property
    def claims(self) -> bool:
        """Return whether a NIC of the VM wants a device that it does not have."""
        return self.refused is None and any(nic.claims for nic in self.nics)


NicKey = tuple[str, str, str]
"""Namespace, VM and NIC."""
Choices = Mapping[NicKey, tuple[Candidate, ...]]
"""Judged candidates of NICs whose devices are limited by capacity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NicDecision:
    """Result for one NIC."""

    nic: NicFacts
    policy: str | None
    verdict: Verdict
    wanted: NicState
    network: Network | None = None
    """The network to connect it to; None if it stays as it is."""
    action: Action | None = None
    reason: Reason | None = None
    message: str = ""
    candidates: tuple[Candidate, ...] = ()
    conflicts_with: tuple[str, ...] = ()
    warnings: tuple[Finding, ...] = ()
    """Findings that do not change the verdict: the NIC keeps its datapath, and the next start of the VM fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmDecision:
    """Result for one VM."""

    vm: VmFacts
    effective_rule: Rule | None
    nics: tuple[NicDecision, ...]

    @property
    def selected(self) -> bool:
        """Return whether any policy decides any NIC."""
        # A VM that its tenant excludes has the verdict NotSelected, but the reason Excluded, and is reported.
        return any(nic.verdict is not Verdict.NOT_SELECTED or nic.reason is not None for nic in self.nics)

    @property
    def restart_required(self) -> bool:
        """Return whether a change takes effect only after a restart."""
        return self.vm.running and any(nic.verdict is Verdict.CHANGE for nic in self.nics)


def first_accepted(found: tuple[Candidate, ...]) -> Candidate | None:
    """Return the first candidate without a finding, or None if all are excluded."""
    for candidate in found:
        if candidate.finding is None:
            return candidate
    return None
