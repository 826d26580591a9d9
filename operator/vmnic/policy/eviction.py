"""What happens to each VM of a node that is drained.

KubeVirt decides by the eviction strategy of the running VM (pkg/virt-api/webhooks/validating-webhook/admitters,
pod-eviction-admitter.go): it migrates the VM, refuses the eviction, or lets the pod go, which stops the VM. A migration needs a
node with free devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ..checked.printable import cut
from .capacity import Capacity, Claim
from .relocation import Relocation, match_claims, may_move_to

__all__ = ["EvictedVm", "EvictionOutcome", "Verdict", "describe_unbounded", "judge_drain"]

_MOST_BYTES = 60
_MOST_NODES = 3
"""Most nodes that a message names."""


class EvictionOutcome(StrEnum):
    """What a drain does to a VM."""

    MIGRATES = "Migrates"
    LOSES_LINK = "LosesLink"
    """It migrates, and KubeVirt detaches its VFs meanwhile."""
    STOPPED = "Stopped"
    BLOCKS = "Blocks"
    UNKNOWN = "Unknown"
    """An input that decides is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictedVm:
    """A running VM of the drained node."""

    claim: Claim
    """Its placement, and the devices that it holds."""
    strategy: str = ""
    """Its eviction strategy, or the cluster's; empty if neither has one."""
    strategy_unknown: str = ""
    """Why the strategy is unknown; empty if it is known."""
    migratable: bool | None = None
    """Whether it can migrate; None if unknown."""
    migratable_message: str = ""
    """Why it cannot migrate, or why that is unknown."""
    placement_unknown: str = ""
    """Why the nodes that it may use are unknown; empty if they are known."""
    vf_nics: tuple[str, ...] = ()
    """The NICs that KubeVirt detaches for a migration."""
    starts_again: bool | None = None
    """Whether KubeVirt starts it again after it was stopped; None if unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What happens to one VM."""

    vm: EvictedVm
    outcome: EvictionOutcome
    node: str = ""
    """The node to which it is matched; empty if it holds no device, or has no place."""
    message: str = ""


def judge_drain(node: str, vms: Sequence[EvictedVm], capacity: Capacity) -> tuple[Verdict, ...]:
    """Return what happens to the VMs of a node, in their order.

    VMs that migrate are matched first. VMs that are stopped and start again get what is left.
    """
    verdicts = {vm.claim.key: _judge_strategy(vm) for vm in vms}
    moving = [vm.claim for vm in vms if verdicts[vm.claim.key].outcome is EvictionOutcome.MIGRATES]
    found = _match(moving, capacity, node)
    left = _without(capacity, moving, found)
    stopped = [one.vm.claim for one in verdicts.values() if one.outcome is EvictionOutcome.STOPPED and one.vm.starts_again]
    later = _match(stopped, left, node)
    return tuple(
        _place_migrating(verdicts[vm.claim.key], node, capacity, found)
        if verdicts[vm.claim.key].outcome is EvictionOutcome.MIGRATES
        else _place_stopped(verdicts[vm.claim.key], node, capacity, later)
        for vm in vms
    )


def _judge_strategy(vm: EvictedVm) -> Verdict:
    """Decide by strategy and migratability alone."""

    def verdict(outcome: EvictionOutcome, message: str = "") -> Verdict:
        return Verdict(vm=vm, outcome=outcome, message=message)

    if vm.strategy_unknown:
        return verdict(EvictionOutcome.UNKNOWN, vm.strategy_unknown)
    match vm.strategy:
        case "" | "None":
            words = f"evictionStrategy is {vm.strategy}" if vm.strategy else "it has no evictionStrategy"
            return verdict(EvictionOutcome.STOPPED, words)
        case "External":
            text = "evictionStrategy is External: another controller must move or stop it"
            return verdict(EvictionOutcome.BLOCKS, text)
        case "LiveMigrate" | "LiveMigrateIfPossible" if vm.migratable is None:
            return verdict(EvictionOutcome.UNKNOWN, vm.migratable_message)
        case "LiveMigrate" | "LiveMigrateIfPossible" if vm.migratable and vm.placement_unknown:
            return verdict(EvictionOutcome.UNKNOWN, f"on which nodes it may run is not known: {vm.placement_unknown}")
        case "LiveMigrate" | "LiveMigrateIfPossible" if vm.migratable:
            return verdict(EvictionOutcome.MIGRATES)
        case "LiveMigrate":
            return verdict(EvictionOutcome.BLOCKS, f"evictionStrategy is LiveMigrate, and {vm.migratable_message}: stop it")
        case "LiveMigrateIfPossible":
            return verdict(EvictionOutcome.STOPPED, f"evictionStrategy is LiveMigrateIfPossible, and {vm.migratable_message}")
        case other:
            text = f"evictionStrategy {cut(other, _MOST_BYTES)!r} is not known to this version"
            return verdict(EvictionOutcome.UNKNOWN, text)


def _match(claims: Iterable[Claim], capacity: Capacity, node: str) -> Relocation:
    # A VM without a device needs no matching: as far as devices go, it fits on every node that it may use.
    return match_claims([claim for claim in claims if claim.held], capacity, leaving={node})


def _without(capacity: Capacity, claims: Iterable[Claim], found: Relocation) -> Capacity:
    """Return the capacity that the matched VMs leave."""
    free = {resource: dict(by_node) for resource, by_node in capacity.free.items()}
    for claim in claims:
        place = found.places.get(claim.key)
        for resource, count in claim.held.items() if place is not None else ():
            free[resource][place or ""] -= count
    return replace(capacity, free=free)


def _place_migrating(verdict: Verdict, node: str, capacity: Capacity, found: Relocation) -> Verdict:
    vm = verdict.vm
    outcome = EvictionOutcome.LOSES_LINK if vm.vf_nics else EvictionOutcome.MIGRATES
    link = f"NIC {', '.join(vm.vf_nics)} has no link during the migration" if vm.vf_nics else ""
    if not vm.claim.held:
        targets = _targets(vm.claim, node, capacity)
        if targets:
            return replace(verdict, outcome=outcome, message=_joined(link, f"it may use {_names(targets)}"))
        return replace(verdict, outcome=EvictionOutcome.BLOCKS, message="no other node is allowed for it: add one, or stop it")
    place = found.places.get(vm.claim.key, "")
    if place:
        return replace(verdict, outcome=outcome, node=place, message=_joined(link, f"{_needs(vm.claim)} fits on {place}"))
    unknown = _why_unknown(vm.claim, node, capacity, found)
    if unknown:
        return replace(verdict, outcome=EvictionOutcome.UNKNOWN, message=unknown)
    text = f"no other node that it may use has {_needs(vm.claim)} free: free some, or stop it"
    return replace(verdict, outcome=EvictionOutcome.BLOCKS, message=text)


def _place_stopped(verdict: Verdict, node: str, capacity: Capacity, found: Relocation) -> Verdict:
    """Add to the message of a stopped VM whether it starts again."""
    if verdict.outcome is not EvictionOutcome.STOPPED:
        return verdict
    claim = verdict.vm.claim
    place = found.places.get(claim.key, "")
    if verdict.vm.starts_again is None:
        text = "whether it starts again is not known"
    elif not verdict.vm.starts_again:
        text = "it does not start again by itself"
    elif place:
        text = f"it starts again on {place}"
    elif not claim.held:
        targets = _targets(claim, node, capacity)
        text = f"it starts again, and may use {_names(targets)}" if targets else "it does not start: no other node is allowed"
    else:
        unknown = _why_unknown(claim, node, capacity, found)
        text = f"whether it starts again is not known: {unknown}" if unknown else f"it waits for {_needs(claim)} to start"
    return replace(verdict, node=place, message=_joined(verdict.message, text))


def _targets(claim: Claim, node: str, capacity: Capacity) -> list[str]:
    return [name for name, one in sorted(capacity.nodes.items()) if name != node and one.usable and may_move_to(claim, one)]


def _why_unknown(claim: Claim, node: str, capacity: Capacity, found: Relocation) -> str:
    """Return why it is unknown whether a VM without a place has one. Empty if it has none."""
    unbounded = describe_unbounded(claim.held, capacity)
    if unbounded:
        return unbounded
    unread = [name for name in _targets(claim, node, capacity) if not capacity.nodes[name].unknown.isdisjoint(claim.held)]
    if unread:
        return f"whether {_names(unread)} has {_needs(claim)} free is not known"
    return "" if found.is_certain else "no place was found before the search reached its bound"


def describe_unbounded(resources: Iterable[str], capacity: Capacity) -> str:
    """Return which of these resources have no known number of devices. Empty if all have one."""
    if "" in resources:
        return "the resource of its VF is not known: add or repair its NetworkAttachmentDefinition"
    found = sorted(set(resources) - capacity.free.keys())
    return f"how many devices of {', '.join(found)} there are is not known" if found else ""


def _needs(claim: Claim) -> str:
    return ", ".join(f"{count} of {resource}" for resource, count in sorted(claim.held.items()))


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _names(nodes: Sequence[str]) -> str:
    more = f" and {len(nodes) - _MOST_NODES} more" if len(nodes) > _MOST_NODES else ""
    return ", ".join(nodes[:_MOST_NODES]) + more
