"""Check whether all VMs with devices still fit after a node or a PF is lost."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .capacity import Capacity, Claim, NodeDevices, count_capacity
from .eviction import describe_unbounded
from .facts import GuestOs
from .relocation import MOST_VISITS, Relocation, match_claims

__all__ = ["Loss", "LossOutcome", "Residents", "assess_losses", "describe_unknown", "find_residents", "settle"]

_NODES_PER_VM = 4
"""Number of nodes per VM that are tried first."""
_Need = frozenset[tuple[str, int]]
"""Devices of one VM by resource."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A node or one of its PFs that is lost."""

    node: str
    pf: str = ""
    """PCI address; empty if the whole node is lost."""
    devices: Mapping[str, int] = field(default_factory=dict)
    """Devices of the PF, by resource."""
    holders: frozenset[tuple[str, str]] = frozenset()
    """VMs that hold a device of the PF."""
    possible: frozenset[tuple[str, str]] = frozenset()
    """VMs that hold a device of the PF or of another PF of the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOutcome:
    """What is left without a place after a loss."""

    loss: Loss
    leaving: int = 0
    """Number of VMs that need another place."""
    unplaced: tuple[Claim, ...] = ()
    unknown: str = ""
    """Why the answer is unknown; empty if it is known."""

    @property
    def survives(self) -> bool | None:
        """Return whether all VMs have a place. None if unknown."""
        return None if self.unknown else not self.unplaced


@dataclass(frozen=True, slots=True, kw_only=True)
class Residents:
    """VMs with devices on their nodes, and what they leave free."""

    capacity: Capacity
    by_node: Mapping[str, Sequence[Claim]]
    before: Capacity | None = None
    """Capacity without the VMs that have not started; None if there are none."""
    waiting: tuple[Claim, ...] = ()
    """VMs that have not started and have a place. Their nodes are chosen here, so each loss may place them elsewhere."""
    unplaced: tuple[Claim, ...] = ()
    """VMs that have no place even if nothing is lost."""
    is_certain: bool = True
    """Whether those VMs have no place in any matching."""


def find_residents(claims: Iterable[Claim], capacity: Capacity) -> Residents:
    """Group running VMs by their nodes.

    VMs that have not started are left out, because the capacity already counts them.
    """
    return Residents(capacity=capacity, by_node=_by_node(claim for claim in claims if claim.held))


def _by_node(claims: Iterable[Claim]) -> dict[str, list[Claim]]:
    found: dict[str, list[Claim]] = defaultdict(list)
    for claim in claims:
        found[claim.vm.node].append(claim)
    return found


def settle(nodes: Mapping[str, NodeDevices], claims: Sequence[Claim]) -> Residents:
    """Find nodes for the VMs that have not started, beside those that run."""
    running = [claim for claim in claims if claim.held]
    waiting = tuple(
        replace(claim, held=wanted)
        for claim in claims
        if not claim.held and not claim.vm.halted and (wanted := _bounded(claim.wanted, nodes))
    )
    before = count_capacity(nodes, running)
    found = match_claims(waiting, before)
    by_node = _by_node(running)
    free = {resource: dict(left) for resource, left in before.free.items()}
    for claim in waiting:
        place = found.places.get(claim.key)
        if place is not None:
            by_node[place].append(claim)
            for resource, count in claim.held.items():
                free[resource][place] -= count
    return Residents(
        capacity=replace(before, free=free),
        by_node=by_node,
        before=before if waiting else None,
        waiting=tuple(claim for claim in waiting if claim.key in found.places),
        unplaced=found.unplaced,
        is_certain=found.is_certain,
    )


def _bounded(wanted: Mapping[str, int], nodes: Mapping[str, NodeDevices]) -> dict[str, int]:
    """Return the devices whose number is known. Others limit no node."""
    return {one: count for one, count in wanted.items() if any(one in node.total for node in nodes.values())}


def assess_losses(residents: Residents, losses: Iterable[Loss], *, most_visits: int | None = None) -> Iterator[LossOutcome]:
    """Yield for each loss which VMs have no place.

    Args:
        residents: VMs and free devices.
        losses: Nodes or PFs, each of which is lost alone.
        most_visits: Bound on visits to nodes for all losses together; None for a bound per loss. Beyond it, answers are
            unknown.
    """
    slots = _Slots(residents.capacity)
    visited = 0
    for loss in losses:
        moving = [one for one in residents.by_node.get(loss.node, ()) if not loss.pf or one.key in loss.holders | loss.possible]
        if not moving and not loss.pf:
            yield LossOutcome(loss=loss)
            continue
        if not loss.pf and slots.suffice(moving, loss.node):
            yield LossOutcome(loss=loss, leaving=len(moving))
            continue
        left = MOST_VISITS if most_visits is None else most_visits - visited
        if left <= 0:
            yield LossOutcome(loss=loss, leaving=len(moving), unknown="the search reached its bound")
            continue
        found = _match(residents, slots, loss, moving, left)
        visited += found.visits
        unknown = describe_unknown(residents.capacity, found.unplaced, is_certain=found.is_certain, lost=loss.node)
        if found.unplaced and loss.possible and not unknown:
            unknown = f"which PF holds the devices of {len(loss.possible)} VMs on {loss.node} is not known"
        yield LossOutcome(loss=loss, leaving=len(moving), unplaced=found.unplaced, unknown=unknown)


def _match(residents: Residents, slots: _Slots, loss: Loss, moving: Sequence[Claim], most_visits: int) -> Relocation:
    leaving = () if loss.pf else (loss.node,)
    capacity, is_overfull = _after(residents.capacity, loss, moving)
    found = _match_near(moving, capacity, slots.rank(moving), leaving, most_visits) if moving else Relocation()
    if residents.before is None or not (found.unplaced or is_overfull):
        return found
    # VMs that have not started may be placed on other nodes from the beginning.
    waiting = {one.key for one in residents.waiting}
    bound = [one for one in moving if one.key not in waiting]
    everything, _ = _after(residents.before, loss, bound)
    return match_claims([*bound, *residents.waiting], everything, leaving=leaving, most_visits=most_visits)


def _match_near(
    claims: Sequence[Claim], capacity: Capacity, ranked: Sequence[str], leaving: Sequence[str], most_visits: int
) -> Relocation:
    """Match VMs with the nodes that have the most free devices, and with all if those do not suffice."""
    near = list(itertools.islice((name for name in ranked if name not in leaving), _NODES_PER_VM * len(claims)))
    found = match_claims(claims, capacity, leaving=leaving, among=near, most_visits=most_visits)
    if not found.unplaced or len(near) >= len(ranked) - len(leaving):
        return found
    again = match_claims(claims, capacity, leaving=leaving, most_visits=most_visits)
    return replace(again, visits=again.visits + found.visits)


def _after(capacity: Capacity, loss: Loss, moving: Sequence[Claim]) -> tuple[Capacity, bool]:
    """Return the capacity after a loss, and whether VMs that stay on the node hold more than is left."""
    if not loss.pf:
        return capacity, False
    back: Counter[str] = Counter()
    for claim in moving:
        back.update(claim.held)
    free = {resource: dict(by_node) for resource, by_node in capacity.free.items()}
    is_overfull = False
    for resource in {*loss.devices, *back}:
        if resource in free:
            left = free[resource].get(loss.node, 0) + back[resource] - loss.devices.get(resource, 0)
            is_overfull = is_overfull or left < 0
            free[resource][loss.node] = max(left, 0)
    return replace(capacity, free=free), is_overfull


def describe_unknown(capacity: Capacity, unplaced: Sequence[Claim], *, is_certain: bool = True, lost: str = "") -> str:
    """Return why VMs without a place may have one. Empty if they have none.

    Args:
        capacity: Nodes and free devices.
        unplaced: VMs for which no place was found.
        is_certain: Whether all places were tried.
        lost: A node that does not count.
    """
    if not unplaced:
        return ""
    if not is_certain:
        return "no place was found before the search reached its bound"
    needed = {resource for claim in unplaced for resource in claim.held}
    unbounded = describe_unbounded(needed, capacity)
    if unbounded:
        return unbounded
    unread = sorted(name for name, node in capacity.nodes.items() if name != lost and not node.unknown.isdisjoint(needed))
    return f"how many devices {', '.join(unread[:3])} has is not known" if unread else ""


class _Slots:
    """Numbers of VMs that fit, which answer for VMs that any node suits."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._usable = [name for name, node in capacity.nodes.items() if node.usable]
        self._tainted = {
            resource
            for resource, by_node in capacity.free.items()
            if any(by_node.get(name) and any(one.keeps_off for one in capacity.nodes[name].taints) for name in self._usable)
        }
        self._linux_only = frozenset().union(*(node.linux_only for node in capacity.nodes.values()))
        self._sums: dict[_Need, int] = {}
        self._ranks: dict[frozenset[str], list[str]] = {}

    def suffice(self, claims: Sequence[Claim], lost: str) -> bool:
        """Return whether VMs surely fit on the other nodes. False if that takes a matching."""
        needs = Counter(frozenset(claim.held.items()) for claim in claims)
        resources = [resource for need in needs for resource, _ in need]
        # VMs with different needs of one resource compete for it.
        if len(resources) != len(set(resources)) or not self._tainted.isdisjoint(resources):
            return False
        return all(map(self._is_easy, claims)) and all(
            self._sum(need) - self._on(lost, need) >= count for need, count in needs.items()
        )

    def rank(self, claims: Sequence[Claim]) -> list[str]:
        """Return the nodes that VMs may be matched with, those with the most free devices first."""
        needed = frozenset(resource for claim in claims for resource in claim.held)
        if needed not in self._ranks:
            free = [self._capacity.free.get(resource, {}) for resource in needed]
            self._ranks[needed] = sorted(self._usable, key=lambda name: -sum(one.get(name, 0) for one in free))
        return self._ranks[needed]

    def _is_easy(self, claim: Claim) -> bool:
        vm = claim.vm
        has_drivers = vm.guest_os is GuestOs.LINUX or self._linux_only.isdisjoint(claim.held)
        return not vm.node_selector and not vm.node_terms and has_drivers

    def _sum(self, need: _Need) -> int:
        if need not in self._sums:
            self._sums[need] = sum(self._on(name, need) for name in self._usable)
        return self._sums[need]

    def _on(self, node: str, need: _Need) -> int:
        """Return how many VMs with this need fit on a node."""
        one = self._capacity.nodes.get(node)
        if one is None or not one.usable:
            return 0
        return min(self._capacity.free.get(resource, {}).get(node, 0) // count for resource, count in need)
