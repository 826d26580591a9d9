"""First phase of a decision, which collects the candidates of each NIC of one VM.

Capacity is global, so a decision has two phases. `evaluate_vm` reads one VM, and its result can be cached until its input
changes. `allocate` chooses over all VMs that want devices. `decide` then determines the result for one VM. This code fetches
nothing, and its result does not depend on the order of the policies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .checks import Finding, binding_missing
from .facts import ClusterFacts, Datapath, NicFacts, VmFacts
from .preferences import evaluate_nic, judge_present, keeps_current
from .reasons import Reason
from .rules import Rule, decides_nic, selecting_rules
from .types import Candidate, NicCandidates, VmCandidates, first_accepted
from .unknowns import unknown_candidate, unknown_input

__all__ = ["evaluate_vm"]


def evaluate_vm(vm: VmFacts, rules: Iterable[Rule], cluster: ClusterFacts) -> VmCandidates:
    """Return the candidates of each NIC of one VM."""
    selecting = selecting_rules(rules, vm)
    decisive = [[rule for rule in selecting if decides_nic(rule, nic)] for nic in vm.nics]
    # Action, restarts and live migration exist once for a VM, so one rule gives them even if others decide its NICs.
    effective_rule = min(
        (rules[0] for rules in decisive if rules), key=lambda rule: (-rule.priority, rule.policy), default=None
    )
    if effective_rule is None:
        return VmCandidates(vm=vm, effective_rule=None, nics=tuple(NicCandidates(nic=nic) for nic in vm.nics))
    # Every rule counts, not only the first one: the version that cannot be read may have another priority.
    unreadable = next((rule for rules in decisive for rule in rules if rule.unreadable), None)
    if unreadable is not None:
        return _left_alone(vm, unreadable, decisive)
    if effective_rule.action == "Admit" and vm.running:
        vm = _as_admitted(vm)
    nics = tuple(_nic_candidates(vm, nic, own, effective_rule, cluster) for nic, own in zip(vm.nics, decisive, strict=True))
    return VmCandidates(vm=vm, effective_rule=effective_rule, nics=nics, refused=binding_missing(vm, cluster))


def _left_alone(vm: VmFacts, unreadable: Rule, decisive: list[list[Rule]]) -> VmCandidates:
    """Block every NIC of a VM that an unreadable policy selects.

    The unreadable policy might decide differently from the readable ones, so the VM stays as it is.
    """
    finding = Finding(Reason.INPUT_UNREADABLE, f"policy {unreadable.policy} cannot be read: {unreadable.unreadable}")
    nics = tuple(
        NicCandidates(nic=nic, rule=rules[0], blocked=finding) if rules else NicCandidates(nic=nic)
        for nic, rules in zip(vm.nics, decisive, strict=True)
    )
    return VmCandidates(vm=vm, effective_rule=unreadable, nics=nics)


def _as_admitted(vm: VmFacts) -> VmFacts:
    """Return the facts of a VM with the NICs of its running instance.

    With Admit the running instance counts, because the VM's own spec never changes.
    """
    # A NIC that was added to the spec after the start has no live state. It exists with the next instance.
    nics = tuple(replace(nic, present=nic.live) if nic.live is not None else nic for nic in vm.nics)
    # The instance's multiqueue switch shows only in its virtio NICs.
    queues = max((nic.present.queues for nic in nics if nic.present.datapath is Datapath.VHOST), default=vm.virtio_queues)
    return replace(vm, nics=nics, virtio_queues=queues)


def _nic_candidates(
    vm: VmFacts, nic: NicFacts, rules: list[Rule], effective_rule: Rule, cluster: ClusterFacts
) -> NicCandidates:
    if not rules:
        return NicCandidates(nic=nic)
    rule, *others = rules
    present, warnings = judge_present(vm, nic, rule, effective_rule, cluster)
    blocked = unknown_input(vm, nic, cluster) or (binding_missing(vm, cluster) if nic.lacks_binding else None)
    if blocked is not None:
        return NicCandidates(nic=nic, rule=rule, blocked=blocked, warnings=warnings)
    found = evaluate_nic(vm, nic, rule, effective_rule, cluster)
    unknown = unknown_candidate(vm, found, cluster)
    if unknown is not None:
        return NicCandidates(nic=nic, rule=rule, blocked=unknown, warnings=warnings)
    aim = _aim(nic, rule, found)
    # With different priorities the administrator has chosen an order, so only equal ones conflict.
    conflicts = tuple(
        other.policy
        for other in others
        if other.priority == rule.priority and _aim(nic, other, evaluate_nic(vm, nic, other, effective_rule, cluster)) != aim
    )
    return NicCandidates(
        nic=nic, rule=rule, candidates=found, unchanged=keeps_current(vm, rule), conflicts_with=conflicts,
        present=present, warnings=warnings,
    )  # fmt: skip


def _aim(nic: NicFacts, rule: Rule, found: tuple[Candidate, ...]) -> tuple[object, ...]:
    """Return the datapath, model and resource that a rule would give to a NIC.

    Rules with equal results do not conflict.
    """
    chosen = first_accepted(found)
    if chosen is None or chosen.is_current:
        return (nic.present.datapath, nic.present.model, nic.present.resource)
    if chosen.datapath is nic.present.datapath and not chosen.resource:
        return (nic.present.datapath, nic.present.model, nic.present.resource)
    model = rule.emulated_model if chosen.datapath is Datapath.EMULATED else None
    return (chosen.datapath, model, chosen.resource)
