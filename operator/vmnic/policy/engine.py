"""From facts and policies to decisions, in two phases, because capacity is global.

`candidates` looks at one VM and can be remembered until its input changes; `allocate` chooses among what still stands over all
VMs; `decide` says what follows for one VM. Nothing here fetches, and nothing depends on the order of the policies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from .checks import CHECKS, Finding, Question
from .facts import ClusterFacts, Datapath, GuestOs, NicFacts, NicState, VmFacts
from .queues import QueueChoice, choose_queues, pressure_on
from .reasons import Reason
from .rules import Rule, selecting_rules, selects_nic

__all__ = [
    "Action",
    "Candidate",
    "Choices",
    "NicCandidates",
    "NicDecision",
    "Verdict",
    "VmCandidates",
    "VmDecision",
    "allocate",
    "candidates",
    "decide",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A datapath that a NIC might have, and why it falls out."""

    datapath: Datapath
    finding: Finding | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class VmCandidates:
    """The first phase's result for one VM."""

    vm: VmFacts
    lead: Rule | None
    """The highest rule that selects any NIC: its settings of the whole VM hold."""
    nics: tuple[NicCandidates, ...]


Choices = Mapping[tuple[str, str, str], Datapath]
"""Chosen datapath by namespace, VM and NIC; a NIC for which nothing stands is absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NicDecision:
    """What follows for one NIC."""

    nic: NicFacts
    policy: str | None
    verdict: Verdict
    wanted: NicState
    action: Action | None = None
    reason: Reason | None = None
    message: str = ""
    candidates: tuple[Candidate, ...] = ()
    conflicts_with: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VmDecision:
    """What follows for one VM."""

    vm: VmFacts
    nics: tuple[NicDecision, ...]

    @property
    def selected(self) -> bool:
        """Whether any policy decides any NIC."""
        return any(nic.verdict is not Verdict.NOT_SELECTED or nic.reason is not None for nic in self.nics)

    @property
    def restart_required(self) -> bool:
        """Whether a change takes effect only by a restart."""
        return self.vm.running and any(nic.verdict is Verdict.CHANGE for nic in self.nics)


def candidates(vm: VmFacts, rules: Iterable[Rule], cluster: ClusterFacts) -> VmCandidates:
    """Phase one: what each NIC of one VM might have."""
    selecting = selecting_rules(rules, vm)
    nics = tuple(_nic_candidates(vm, nic, selecting, cluster) for nic in vm.nics)
    leads = [found.rule for found in nics if found.rule is not None]
    return VmCandidates(vm=vm, lead=min(leads, key=lambda rule: (-rule.priority, rule.policy), default=None), nics=nics)


def _nic_candidates(vm: VmFacts, nic: NicFacts, selecting: tuple[Rule, ...], cluster: ClusterFacts) -> NicCandidates:
    rules = [rule for rule in selecting if selects_nic(rule, nic)]
    if not rules:
        return NicCandidates(nic=nic)
    rule, *others = rules
    found = _evaluate(vm, nic, rule, cluster)
    wanted = _wanted(vm, nic, rule, _first_standing(found))
    conflicts = tuple(
        other.policy
        for other in others
        if other.priority == rule.priority
        and _wanted(vm, nic, other, _first_standing(_evaluate(vm, nic, other, cluster))) != wanted
    )
    unchanged = not rule.datapaths and vm.guest_os is GuestOs.WINDOWS and pressure_on(vm, rule) == "High"
    return NicCandidates(nic=nic, rule=rule, candidates=found, unchanged=unchanged, conflicts_with=conflicts)


def _evaluate(vm: VmFacts, nic: NicFacts, rule: Rule, cluster: ClusterFacts) -> tuple[Candidate, ...]:
    """Every datapath that the rule names, each with its first finding."""
    if rule.datapaths:
        return tuple(_candidate(vm, nic, datapath, cluster) for datapath in rule.datapaths)
    match vm.guest_os:
        case GuestOs.LINUX:
            return (_candidate(vm, nic, Datapath.VHOST, cluster),)
        case GuestOs.WINDOWS:
            finding = Finding(
                Reason.VIRTIO_NOT_CHOSEN_FOR_WINDOWS,
                "auto keeps Windows off virtio, which has shown brief disconnects: name vhost in spec.datapaths to have it",
            )
            vhost = Candidate(datapath=Datapath.VHOST, finding=finding)
            if pressure_on(vm, rule) == "High":
                return (vhost,)
            return (_candidate(vm, nic, Datapath.EMULATED, cluster), vhost)
        case GuestOs.UNKNOWN:
            return ()


def _candidate(vm: VmFacts, nic: NicFacts, datapath: Datapath, cluster: ClusterFacts) -> Candidate:
    question = Question(vm=vm, nic=nic, cluster=cluster, datapath=datapath)
    finding = next((found for check in CHECKS[datapath] if (found := check(question)) is not None), None)
    return Candidate(datapath=datapath, finding=finding)


def _first_standing(found: Iterable[Candidate]) -> Datapath | None:
    return next((candidate.datapath for candidate in found if candidate.finding is None), None)


def allocate(vms: Iterable[VmCandidates]) -> Choices:
    """Phase two: choose over all VMs. No datapath in use here is scarce, so each NIC gets the first that stands."""
    return {
        (found.vm.namespace, found.vm.name, nic.nic.name): chosen
        for found in vms
        for nic in found.nics
        if (chosen := _first_standing(nic.candidates)) is not None
    }


def decide(found: VmCandidates, choices: Choices) -> VmDecision:
    """Say what follows for one VM from what was chosen."""
    vm, lead = found.vm, found.lead
    if lead is None:
        return VmDecision(vm=vm, nics=tuple(_untouched(nic.nic) for nic in found.nics))
    if vm.excluded and lead.may_exclude:
        return VmDecision(vm=vm, nics=tuple(_untouched(nic.nic, Reason.EXCLUDED) for nic in found.nics))
    chosen = [choices.get((vm.namespace, vm.name, nic.nic.name)) for nic in found.nics]
    virtio = sum((pick or nic.nic.present.datapath) is Datapath.VHOST for nic, pick in zip(found.nics, chosen, strict=True))
    queues = choose_queues(vm, lead, virtio)
    nics = tuple(_decide_nic(vm, lead, nic, pick, queues) for nic, pick in zip(found.nics, chosen, strict=True))
    return VmDecision(vm=vm, nics=nics)


def _untouched(nic: NicFacts, reason: Reason | None = None) -> NicDecision:
    text = 'the VM has the annotation vmnic.dev/exclude: "true"' if reason is Reason.EXCLUDED else ""
    return NicDecision(nic=nic, policy=None, verdict=Verdict.NOT_SELECTED, wanted=nic.present, reason=reason, message=text)


def _decide_nic(vm: VmFacts, lead: Rule, nic: NicCandidates, chosen: Datapath | None, queues: QueueChoice) -> NicDecision:
    if nic.rule is None:
        return _untouched(nic.nic)
    wanted = _wanted(vm, nic.nic, nic.rule, chosen)
    if wanted.datapath is Datapath.VHOST:
        wanted = NicState(datapath=wanted.datapath, model=wanted.model, queues=queues.queues)
    judged = _judge(vm, lead, nic, chosen, wanted)
    if wanted.datapath is Datapath.VHOST and queues.finding is not None and judged.reason is None:
        judged = _Judged(judged.verdict, judged.action, queues.finding.reason, f"{judged.message}; {queues.finding.message}")
    return NicDecision(
        nic=nic.nic,
        policy=nic.rule.policy,
        verdict=judged.verdict,
        wanted=wanted,
        action=judged.action,
        reason=judged.reason,
        message=judged.message,
        candidates=_told(nic.candidates, chosen),
        conflicts_with=nic.conflicts_with,
    )


def _wanted(vm: VmFacts, nic: NicFacts, rule: Rule, chosen: Datapath | None) -> NicState:
    if chosen is None or chosen is nic.present.datapath:
        return nic.present
    if chosen is Datapath.EMULATED:
        return NicState(datapath=chosen, model=rule.emulated_model)
    return NicState(datapath=chosen, model="virtio", queues=vm.virtio_queues)


@dataclass(frozen=True, slots=True)
class _Judged:
    verdict: Verdict
    action: Action | None
    reason: Reason | None
    message: str


def _judge(vm: VmFacts, lead: Rule, nic: NicCandidates, chosen: Datapath | None, wanted: NicState) -> _Judged:
    """Verdict, action, reason and sentence for a NIC that a rule decides."""
    present = nic.nic.present
    policy = nic.rule.policy if nic.rule is not None else ""
    if chosen is None and nic.unchanged:
        return _Judged(Verdict.COMPLIANT, None, None, "auto leaves Windows under high network pressure as it is")
    if chosen is None:
        finding = _blocking(nic)
        return _Judged(Verdict.BLOCKED, None, finding.reason, finding.message)
    if wanted == present:
        return _Judged(Verdict.COMPLIANT, None, None, f"{present.datapath} is what policy {policy} asks for")
    return _enforce(vm, lead, nic.nic, wanted)


def _enforce(vm: VmFacts, lead: Rule, nic: NicFacts, wanted: NicState) -> _Judged:
    """What is done about a NIC that is to change."""
    change = f"{_words(nic.present)} becomes {_words(wanted)}"
    if not lead.patch:
        return _Judged(Verdict.CHANGE, Action.AUDIT, None, f"{change} once enforcement.action is Patch")
    if not vm.is_new and lead.existing_vms == "Leave":
        text = f"{change} is left undone: the VM has run before and existingVMs is Leave"
        return _Judged(Verdict.CHANGE, Action.AUDIT, Reason.EXISTING_VM, text)
    if vm.running and lead.existing_vms == "WhenStopped":
        return _Judged(Verdict.CHANGE, Action.AUDIT, Reason.WAITS_FOR_STOP, f"{change} when the VM is stopped")
    if vm.running and wanted.model != nic.present.model and not (nic.spec_mac or nic.live_mac):
        text = f"{change} waits: the running NIC's MAC address, which must be kept, is not known yet"
        return _Judged(Verdict.BLOCKED, None, Reason.MAC_UNKNOWN, text)
    if vm.applier and lead.yields_to_git and not vm.is_new:
        text = f"{change} is {vm.applier}'s to make, which applies this VM: write model: {wanted.model}"
        text += " and networkInterfaceMultiqueue" if wanted.queues != nic.present.queues else ""
        return _Judged(Verdict.BLOCKED, None, Reason.OWNED_BY_GIT, f"{text} where it takes the VM from")
    return _Judged(Verdict.CHANGE, Action.PATCH, None, change + (", in force after a restart" if vm.running else ""))


def _words(state: NicState) -> str:
    queues = f", {state.queues} queues" if state.queues > 1 else ""
    return f"{state.datapath} ({state.model}{queues})"


def _blocking(nic: NicCandidates) -> Finding:
    """Why no candidate stands."""
    if not nic.candidates:
        return Finding(
            Reason.GUEST_OS_UNKNOWN,
            "nothing tells what guest this is: set the annotation vm.kubevirt.io/os on spec.template, or use a preference",
        )
    findings = [candidate.finding for candidate in nic.candidates if candidate.finding is not None]
    return findings[0]


def _told(found: tuple[Candidate, ...], chosen: Datapath | None) -> tuple[Candidate, ...]:
    """The candidates as they are told: those after the chosen one were not preferred, unless something else speaks first."""
    told = []
    passed = False
    for candidate in found:
        if passed and candidate.finding is None:
            text = f"{chosen} comes before it"
            told.append(Candidate(datapath=candidate.datapath, finding=Finding(Reason.NOT_PREFERRED, text)))
        else:
            told.append(candidate)
        passed = passed or candidate.datapath is chosen
    return tuple(told)
