"""Policies as sorted rules.

Values that do not depend on a VM are computed once.
"""

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
    """In order of preference; empty for `auto`."""
    emulated_model: str
    created: str
    """Creation time of the policy as RFC 3339 in UTC."""
    sriov_pool: str
    """The pool that provides VFs; empty for any pool."""
    sriov_resource: str
    """The device resource of another operator, used instead of a pool; empty if none."""
    spreads: bool
    """Whether the VFs of one VM come from different functions."""
    accepts_detach: bool
    """Whether a VM counts as migratable although a migration detaches its VF."""
    passthrough_pool: str
    live_migration: str
    action: str
    existing_vms: str
    max_unavailable: int | str
    max_unavailable_per_namespace: int | str | None
    window: Window | None
    yields_to_git: bool
    """Whether a VM whose NIC list another manager applies is left to that manager."""
    pressure: str
    multiqueue: str
    """Mode of `multiqueue`."""
    max_queues: int
    may_exclude: bool
    """Whether a tenant's annotation `exclude` counts."""
    honours_pressure: bool
    """Whether a tenant's annotation `network-pressure` counts."""
    may_forbid_restart: bool
    """Whether a tenant's annotation `restart: Never` counts."""
    accepts: tuple[str, ...] = ()
    """Reasons of `spec.accept`, which do not exclude a datapath for its NICs."""
    unreadable: str = ""
    """Why the policy cannot be read; empty if it can be. The other fields are then those of its last readable version."""


def rules_of(policies: Iterable[VmNicPolicy]) -> tuple[Rule, ...]:
    """Return the policies as rules, sorted by descending priority and then by name."""
    # A policy that is being deleted decides nothing. VMs keep what it gave them.
    alive = (policy for policy in policies if not policy.metadata.deletion_timestamp)
    return tuple(sorted(map(_rule, alive), key=lambda rule: (-rule.priority, rule.policy)))


def unreadable_rule(name: str, last: VmNicPolicy | None, why: str) -> Rule:
    """Return the rule of a policy that cannot be read.

    It selects what its last readable version selected, or else every NIC. These NICs must stay as they are.
    """
    # Validation refuses a selector without any field. Here exactly that is meant: any VM might have been selected.
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
        spreads=sriov is not None and sriov.spread == "PerPf",
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
        accepts=tuple(spec.accept),
    )


def selecting_rules(rules: Iterable[Rule], vm: VmFacts) -> tuple[Rule, ...]:
    """Return the rules that select the VM, in their order. NICs are selected separately."""
    return tuple(rule for rule in rules if _selects_vm(rule.selector, vm))


def _selects_vm(selector: Selector, vm: VmFacts) -> bool:
    return (
        vm.platform in selector.platforms
        and (not selector.guest_os or vm.guest_os in selector.guest_os)
        and matches_labels(selector.namespace_selector, vm.namespace_labels)
        and matches_labels(selector.vm_selector, vm.labels)
    )


def decides_nic(rule: Rule, nic: NicFacts) -> bool:
    """Return whether a rule that selects the VM also selects this NIC of it."""
    globs = rule.selector.networks
    return not globs or "*" in globs or any(fnmatchcase(name, glob) for name in _names(nic.network) for glob in globs)


def _names(network: Network) -> tuple[str, ...]:
    return ("pod",) if network.pod else (network.name, f"{network.namespace}/{network.name}")
