"""Policies made ready for deciding: sorted, and with what does not depend on a VM worked out once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from ..api.common import Metadata
from ..api.policy import PolicySpec, Selector, VmNicPolicy, Window
from .facts import Datapath, Network, NicFacts, VmFacts
from .labels import matches_labels

__all__ = ["Rule", "decides_nic", "rules_of", "selecting_rules", "unreadable_rule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One policy."""

    policy: str
    priority: int
    selector: Selector
    datapaths: tuple[Datapath, ...]
    """In order of preference; empty stands for `auto`."""
    emulated_model: str
    created: str
    """When the policy was made, as RFC 3339 in UTC."""
    sriov_pool: str
    """The pool that VFs are taken from; empty: any."""
    sriov_resource: str
    """The device resource of another operator in its place; empty: none."""
    accepts_detach: bool
    """Whether a VF that is taken away during a migration counts as migratable."""
    passthrough_pool: str
    live_migration: str
    action: str
    existing_vms: str
    max_unavailable: int | str
    max_unavailable_per_namespace: int | str | None
    window: Window | None
    yields_to_git: bool
    """Whether VMs whose NIC list another manager applies are left to it."""
    pressure: str
    multiqueue: str
    """Mode."""
    max_queues: int
    may_exclude: bool
    """Whether a tenant's `exclude` counts."""
    honours_pressure: bool
    """Whether a tenant's `network-pressure` counts."""
    may_forbid_restart: bool
    """Whether a tenant's `restart: Never` counts."""
    unreadable: str = ""
    """Why the policy cannot be read; empty: it can. The other fields are then those of its last readable version."""


def rules_of(policies: Iterable[VmNicPolicy]) -> tuple[Rule, ...]:
    """Give the policies as rules: the highest priority first, of equal ones the first by name."""
    alive = (policy for policy in policies if not policy.metadata.deletion_timestamp)
    return tuple(sorted(map(_rule, alive), key=lambda rule: (-rule.priority, rule.policy)))


def unreadable_rule(name: str, last: VmNicPolicy | None, why: str) -> Rule:
    """Return the rule of a policy that cannot be read: what it selected, or else every NIC, must stay as it is."""
    policy = last or VmNicPolicy.model_construct(
        metadata=Metadata(name=name), spec=PolicySpec.model_construct(selector=Selector.model_construct())
    )
    return replace(_rule(policy), unreadable=why)


def _rule(policy: VmNicPolicy) -> Rule:
    spec = policy.spec
    sriov, enforcement = spec.sriov, spec.enforcement
    return Rule(
        policy=policy.metadata.name,
        priority=spec.priority,
        selector=spec.selector,
        datapaths=tuple(Datapath(name) for name in spec.datapaths if name != "auto"),
        emulated_model=spec.emulated.model,
        created=policy.metadata.creation_timestamp,
        sriov_pool=(sriov.pool if sriov is not None else None) or "",
        sriov_resource=(sriov.resource_name if sriov is not None else None) or "",
        accepts_detach=sriov is not None and sriov.accept_detach,
        passthrough_pool=spec.passthrough.pool if spec.passthrough is not None else "",
        live_migration=spec.live_migration,
        action=enforcement.action,
        existing_vms=enforcement.existing_vms,
        max_unavailable=enforcement.max_unavailable,
        max_unavailable_per_namespace=enforcement.max_unavailable_per_namespace,
        window=enforcement.window,
        yields_to_git=enforcement.git_owned == "Yield",
        pressure=spec.network_pressure,
        multiqueue=spec.multiqueue.mode,
        max_queues=spec.multiqueue.max_queues,
        may_exclude=spec.tenant_overrides.exclude == "Allowed",
        honours_pressure=spec.tenant_overrides.network_pressure == "Allowed",
        may_forbid_restart=spec.tenant_overrides.restart == "Allowed",
    )


def selecting_rules(rules: Iterable[Rule], vm: VmFacts) -> tuple[Rule, ...]:
    """Give the rules that select the VM as such, in their order; which of its NICs they select is asked per NIC."""
    return tuple(rule for rule in rules if _selects_vm(rule.selector, vm))


def _selects_vm(selector: Selector, vm: VmFacts) -> bool:
    return (
        vm.platform.value in selector.platforms
        and (not selector.guest_os or vm.guest_os.value in selector.guest_os)
        and matches_labels(selector.namespace_selector, vm.namespace_labels)
        and matches_labels(selector.vm_selector, vm.labels)
    )


def decides_nic(rule: Rule, nic: NicFacts) -> bool:
    """Tell whether a rule that selects the VM selects this NIC of it."""
    globs = rule.selector.networks
    return not globs or any(fnmatchcase(name, glob) for name in _names(nic.network) for glob in globs)


def _names(network: Network) -> tuple[str, ...]:
    return ("pod",) if network.pod else (network.name, f"{network.namespace}/{network.name}")
