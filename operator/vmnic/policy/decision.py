"""Decision for one VM from the chosen candidates.

Each NIC gets a verdict, an action, a reason and a message of one or more sentences.
"""

from __future__ import annotations

from dataclasses import dataclass

from .checks import Finding
from .facts import Datapath, NicFacts, NicState, Platform, VmFacts
from .queues import QueueChoice, choose_queues
from .reasons import Reason
from .rules import Rule
from .sentences import join_sentences
from .types import Action, Candidate, Choices, NicCandidates, NicDecision, Verdict, VmCandidates, VmDecision, first_accepted

__all__ = ["decide"]

_WITH_QUEUES = (Datapath.VHOST, Datapath.MACVTAP)
"""Datapaths whose tap device may have several queues."""
_EVER_FIRST = (Reason.GUEST_OS_UNKNOWN, Reason.VIRTIO_NOT_CHOSEN_FOR_WINDOWS)
"""Reasons that candidates after the chosen one keep. Other candidates after it are reported as `NotPreferred`."""


def decide(found: VmCandidates, choices: Choices, *, waiting_for: str = "") -> VmDecision:
    """Decide about one VM.

    Args:
        found: Candidates of its NICs.
        choices: Results of `allocate`.
        waiting_for: With `existingVMs: Rolling`, why the running VM must not be restarted yet; empty if it may be.
    """
    vm, effective_rule = found.vm, found.effective_rule
    if effective_rule is None:
        return VmDecision(vm=vm, effective_rule=None, nics=tuple(_untouched(nic.nic) for nic in found.nics))
    if vm.excluded and effective_rule.may_exclude:
        return VmDecision(
            vm=vm, effective_rule=effective_rule, nics=tuple(_untouched(nic.nic, Reason.EXCLUDED) for nic in found.nics)
        )
    # `allocate` returns only NICs that want or lose a device. The others keep the candidates of the first phase.
    reported = [choices.get((vm.namespace, vm.name, nic.nic.name), nic.candidates) for nic in found.nics]
    chosen = [first_accepted(one) for one in reported]
    # On KubeVirt one number of queues applies to all virtio NICs, and memory bounds their sum.
    # So the NICs that will be virtio are counted before the first of them is decided.
    virtio = sum(
        _counts_queues(vm, nic.nic.present) if pick is None or pick.is_current else pick.datapath in _WITH_QUEUES
        for nic, pick in zip(found.nics, chosen, strict=True)
    )
    queues = choose_queues(vm, effective_rule, virtio)
    if (
        queues.queues == 1
        and vm.virtio_queues > 1
        and any(nic.rule is None and nic.nic.present.uses_switch for nic in found.nics)
    ):
        # The switch is the whole VM's, and a NIC that no policy decides uses it.
        queues = QueueChoice(None)
    context = _Context(vm, effective_rule, queues, waiting_for, found.refused)
    nics = tuple(_decide_nic(context, nic, one, pick) for nic, one, pick in zip(found.nics, reported, chosen, strict=True))
    return VmDecision(vm=vm, effective_rule=effective_rule, nics=nics)


def _counts_queues(vm: VmFacts, present: NicState) -> bool:
    return present.uses_switch if vm.platform is Platform.KUBEVIRT else present.has_queues


@dataclass(frozen=True, slots=True)
class _Context:
    vm: VmFacts
    effective_rule: Rule
    queues: QueueChoice
    waiting_for: str
    refused: Finding | None


@dataclass(frozen=True, slots=True)
class _Judged:
    verdict: Verdict
    action: Action | None
    reason: Reason | None
    message: str


def _untouched(nic: NicFacts, reason: Reason | None = None) -> NicDecision:
    text = 'the VM has the annotation vmnic.dev/exclude: "true"' if reason is Reason.EXCLUDED else ""
    return NicDecision(nic=nic, policy=None, verdict=Verdict.NOT_SELECTED, wanted=nic.present, reason=reason, message=text)


def _decide_nic(context: _Context, nic: NicCandidates, told: tuple[Candidate, ...], chosen: Candidate | None) -> NicDecision:
    if nic.rule is None:
        return _untouched(nic.nic)
    if nic.blocked is not None:
        return _blocked_decision(nic, nic.rule, nic.blocked)
    wanted = _wanted(context, nic.nic, nic.rule, chosen)
    finding = context.queues.finding if wanted.has_queues else None
    if chosen is not None and finding is not None and finding.reason is Reason.PREFERENCE_UNKNOWN:
        return _blocked_decision(nic, nic.rule, finding)
    judged = _judge(context, nic, told, chosen, wanted)
    # A NIC has one reason. That of its datapath matters more than that of its queues.
    if finding is not None and judged.reason is None:
        judged = _Judged(judged.verdict, judged.action, finding.reason, join_sentences(judged.message, finding.message))
    moved = chosen is not None and not chosen.is_current and chosen.network is not None and chosen.network != nic.nic.network
    return NicDecision(
        nic=nic.nic,
        policy=nic.rule.policy,
        verdict=judged.verdict,
        wanted=wanted,
        network=chosen.network if moved and chosen is not None else None,
        action=judged.action,
        reason=judged.reason,
        message=judged.message,
        candidates=_told(told, chosen),
        conflicts_with=nic.conflicts_with,
        # A patched VM starts next time with another datapath.
        warnings=() if judged.action is Action.PATCH and wanted.datapath is not nic.nic.present.datapath else nic.warnings,
    )


def _blocked_decision(nic: NicCandidates, rule: Rule, finding: Finding) -> NicDecision:
    return NicDecision(
        nic=nic.nic,
        policy=rule.policy,
        verdict=Verdict.BLOCKED,
        wanted=nic.nic.present,
        reason=finding.reason,
        message=finding.message,
        warnings=nic.warnings,
    )


def _wanted(context: _Context, nic: NicFacts, rule: Rule, chosen: Candidate | None) -> NicState:
    """Return the chosen datapath with its settings. Settings of the present datapath are kept."""
    present = nic.present
    if chosen is None:
        return present
    queues = context.queues.queues
    if chosen.is_current:
        if not present.has_queues or queues is None:
            return present
        return NicState(datapath=present.datapath, model=present.model, queues=queues)
    match chosen.datapath:
        case Datapath.EMULATED:
            return NicState(datapath=chosen.datapath, model=rule.emulated_model)
        case Datapath.SRIOV | Datapath.PASSTHROUGH:
            return NicState(datapath=chosen.datapath, resource=chosen.resource)
        case Datapath.VIRTIO:
            return NicState(datapath=chosen.datapath, model=_virtio_model(present))
    # A new virtio NIC gets the queues of the VM's other virtio NICs, because KubeVirt has one switch for all of them.
    several = context.vm.virtio_queues if queues is None else queues
    return NicState(datapath=chosen.datapath, model=_virtio_model(present), queues=several)


def _virtio_model(present: NicState) -> str:
    """Return the present variant of virtio, or virtio.

    An old guest may have a driver for `virtio-transitional` only.
    """
    is_virtio = present.datapath in (Datapath.VIRTIO, *_WITH_QUEUES) and present.model is not None
    return present.model if is_virtio and present.model is not None and present.model.startswith("virtio") else "virtio"


def _judge(
    context: _Context, nic: NicCandidates, told: tuple[Candidate, ...], chosen: Candidate | None, wanted: NicState
) -> _Judged:
    """Determine verdict, action, reason and message of a NIC that a rule decides."""
    present = nic.nic.present
    policy = nic.rule.policy if nic.rule is not None else ""
    if chosen is None and nic.unchanged and nic.present is None:
        return _Judged(Verdict.COMPLIANT, None, None, "auto does not change Windows guests under high network pressure")
    if chosen is None:
        return _blocked(nic, told)
    if wanted == present:
        return _Judged(Verdict.COMPLIANT, None, None, f"{present.datapath} is the datapath that policy {policy} asks for")
    change = join_sentences(f"{_words(present)} to {_words(wanted)}", _price(context, chosen))
    if context.refused is not None:
        text = join_sentences(change, f"Blocked: {context.refused.message}")
        return _Judged(Verdict.BLOCKED, None, context.refused.reason, text)
    # A VM that has not started and whose device another VM was assigned too changes at once, regardless of existingVMs.
    taken_back = any(one.is_current and one.finding is not None and one.finding.reason is Reason.NO_FREE_VF for one in told)
    return _enforce(context, nic.nic, wanted, change, forced=taken_back and not context.vm.started)


def _blocked(nic: NicCandidates, told: tuple[Candidate, ...]) -> _Judged:
    """Describe why a NIC cannot have any datapath that the policy allows."""
    finding, standing = _blocking(told), nic.present
    # A guest that cannot drive what it has needs help first. `auto` has no other goal for a NIC that it leaves unchanged.
    if standing is not None and (nic.unchanged or standing.reason is Reason.GUEST_LACKS_VF_DRIVER):
        more = "" if finding.message == standing.message else f"No other datapath is possible: {finding.message}"
        return _Judged(Verdict.BLOCKED, None, standing.reason, join_sentences(standing.message, more))
    return _Judged(Verdict.BLOCKED, None, finding.reason, finding.message)


def _price(context: _Context, chosen: Candidate) -> str:
    """Describe how the datapath limits migration of a VM that prefers to stay migratable."""
    if context.effective_rule.live_migration != "Preferred" or context.vm.platform is Platform.LIBVIRT:
        return ""
    match chosen.datapath:
        case Datapath.SRIOV:
            return "A live migration detaches the VF until it ends, and needs a free VF on another node"
        case Datapath.MACVTAP | Datapath.PASSTHROUGH:
            return "The VM can then no longer migrate"
    return ""


def _enforce(context: _Context, nic: NicFacts, wanted: NicState, change: str, *, forced: bool) -> _Judged:
    """Determine what is done about a NIC that is to change."""
    vm, effective_rule = context.vm, context.effective_rule
    if effective_rule.action == "Audit":
        return _Judged(
            Verdict.CHANGE, Action.AUDIT, None, join_sentences(change, "Applied only with enforcement.action: Patch")
        )
    # Admit and Audit do not change the VM, so they need no record to undo anything.
    if effective_rule.action == "Patch" and vm.record_fault:
        return _Judged(Verdict.BLOCKED, None, Reason.RECORD_UNREADABLE, join_sentences(change, f"Blocked: {vm.record_fault}"))
    if not forced:
        waiting = _waiting(context, change)
        if waiting is not None:
            return waiting
    if effective_rule.action == "Admit":
        when = "Applied at the next start of the VM" if vm.running else "Applied when the VM starts"
        return _Judged(Verdict.CHANGE, Action.ADMIT, None, join_sentences(change, when))
    # The VM cannot start with a device that another VM has, so its owner in Git does not delay the patch. It has no running NIC
    # whose MAC address must be kept.
    blocked = None if forced else _blocked_patch(context, nic, wanted, change)
    # KubeVirt's condition RestartRequired is set until the restart.
    restart = "Applied at the next restart; until then KubeVirt does not hotplug CPUs or memory" if vm.running else ""
    mac = "vmnic adds the MAC address of the running NIC" if vm.assumed_running and _lacks_mac(vm, nic) else ""
    text = join_sentences(change, restart, mac)
    return blocked or _Judged(Verdict.CHANGE, Action.PATCH, None, text)


def _waiting(context: _Context, change: str) -> _Judged | None:
    """Return why a VM that has run before is not changed now, or None if it may be."""
    vm, effective_rule = context.vm, context.effective_rule

    def wait(reason: Reason, text: str) -> _Judged:
        return _Judged(Verdict.CHANGE, Action.AUDIT, reason, join_sentences(change, text))

    # Admit never writes the VM object, so only creation times show whether the policy or the VM came first.
    # The API server writes both times in UTC and with whole seconds, so text can be compared. A policy from a file has no time.
    is_new = vm.is_new or (
        effective_rule.action == "Admit" and bool(effective_rule.created) and vm.created >= effective_rule.created
    )
    if effective_rule.existing_vms == "Leave":
        return None if is_new else wait(Reason.EXISTING_VM, "Not applied: the VM has run before, and existingVMs is Leave")
    if not vm.running or effective_rule.existing_vms == "Immediately":
        return None
    if effective_rule.existing_vms == "Rolling" and not (vm.never_restart and effective_rule.may_forbid_restart):
        return wait(Reason.WAITS_FOR_WINDOW, f"Applied later: {context.waiting_for}") if context.waiting_for else None
    return wait(Reason.WAITS_FOR_STOP, "Applied when the VM stops")


def _blocked_patch(context: _Context, nic: NicFacts, wanted: NicState, change: str) -> _Judged | None:
    """Return why the VM's spec must not be patched, or None if it may be."""
    vm = context.vm
    adapter = wanted.datapath is not nic.present.datapath or wanted.model != nic.present.model
    # A NIC without a MAC address in the spec gets another one at the next start, so the patch must set the present one.
    if _lacks_mac(vm, nic) and adapter and wanted.datapath is not Datapath.PASSTHROUGH and not vm.assumed_running:
        text = "Blocked until the MAC address of the running NIC is known, because the change must keep it"
        return _Judged(Verdict.BLOCKED, None, Reason.MAC_UNKNOWN, join_sentences(change, text))
    # A change at creation stays: the webhook restores it when the applier applies the VM again.
    if vm.applier and context.effective_rule.yields_to_git and not vm.is_new:
        recipe = _recipe(nic, wanted)
        text = f"{vm.applier} applies this VM: write {recipe} in the manifest that it applies"
        return _Judged(Verdict.BLOCKED, None, Reason.OWNED_BY_GIT, join_sentences(change, text))
    return None


def _lacks_mac(vm: VmFacts, nic: NicFacts) -> bool:
    """Return whether a running NIC has a MAC address that is not known."""
    return vm.running and not (nic.spec_mac or nic.live_mac)


def _recipe(nic: NicFacts, wanted: NicState) -> str:
    """Describe what a person has to write into the VM's manifest."""
    if wanted.datapath is Datapath.PASSTHROUGH:
        return f"a hostDevice with deviceName: {wanted.resource} in place of the interface"
    parts = []
    if wanted.datapath in (Datapath.SRIOV, Datapath.MACVTAP) and wanted.datapath is not nic.present.datapath:
        parts.append("sriov: {}" if wanted.datapath is Datapath.SRIOV else "binding: {name: macvtap}")
    if wanted.model is not None and wanted.model != nic.present.model:
        parts.append(f"model: {wanted.model}")
    if wanted.queues != nic.present.queues:
        parts.append(f"networkInterfaceMultiqueue: {str(wanted.queues > 1).lower()}")
    return " and ".join(parts)


def _words(state: NicState) -> str:
    queues = f", {state.queues} queues" if state.queues > 1 else ""
    inner = f"{state.model or ''}{queues}" or state.resource
    return f"{state.datapath} ({inner})" if inner else str(state.datapath)


def _blocking(told: tuple[Candidate, ...]) -> Finding:
    """Return the finding of the first, most preferred candidate."""
    findings = [candidate.finding for candidate in told if candidate.finding is not None]
    if findings:
        return findings[0]
    # Only `auto` has no candidates at all, and only for an unknown guest.
    text = "the guest OS is unknown: set the annotation vm.kubevirt.io/os on spec.template, or use a preference"
    return Finding(Reason.GUEST_OS_UNKNOWN, text)


def _told(found: tuple[Candidate, ...], chosen: Candidate | None) -> tuple[Candidate, ...]:
    """Return the candidates as they are reported.

    Candidates after the chosen one are reported as `NotPreferred`, except for reasons in `_EVER_FIRST`.
    """
    told = []
    passed = False
    for candidate in found:
        finding = candidate.finding
        if passed and (finding is None or finding.reason not in _EVER_FIRST):
            text = f"{chosen.datapath if chosen is not None else ''} is preferred"
            told.append(Candidate(datapath=candidate.datapath, finding=Finding(Reason.NOT_PREFERRED, text)))
        else:
            told.append(candidate)
        passed = passed or (chosen is not None and finding is None)
    return tuple(told)
