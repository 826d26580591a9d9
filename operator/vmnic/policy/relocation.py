"""Check whether VMs that must leave a node fit elsewhere.

The VMs are matched to free devices before any of them moves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from .capacity import Capacity, Claim, NodeDevices, can_drive, may_use, tolerates

__all__ = ["MOST_VISITS", "Relocation", "find_unplaceable", "match_claims", "may_move_to"]

MOST_VISITS = 50_000
"""Bound on visits to nodes, about 0.2 s, after which the best result so far counts. A dozen VMs on 1,000 nodes need about
10,000."""
_MOST_SEARCHED = 256
"""Most VMs for which other matchings than the first one are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relocation:
    """A matching of VMs with nodes."""

    places: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Node by namespace and name of the VM."""
    unplaced: tuple[Claim, ...] = ()
    """VMs without a place."""
    is_certain: bool = True
    """Whether no other matching places all VMs. The search has a bound, beyond which a VM without a place may have one."""
    visits: int = 0


def find_unplaceable(claims: Sequence[Claim], capacity: Capacity, *, leaving: Collection[str]) -> tuple[Claim, ...]:
    """Return the VMs for which no node has free devices. Empty if all of them fit at the same time.

    Args:
        claims: VMs that must leave. Each needs the devices that it holds.
        capacity: Free devices.
        leaving: Nodes that no VM can move to.
    """
    return match_claims(claims, capacity, leaving=leaving).unplaced


def match_claims(
    claims: Sequence[Claim],
    capacity: Capacity,
    *,
    leaving: Collection[str] = (),
    among: Collection[str] | None = None,
    most_visits: int = MOST_VISITS,
) -> Relocation:
    """Match VMs with nodes that have the devices which they hold.

    Args:
        claims: VMs that need a place. Each has at least one device.
        capacity: Free devices.
        leaving: Nodes that no VM can move to.
        among: The only nodes that count; None for all.
        most_visits: Bound on visits to nodes.
    """
    needed = {resource for claim in claims for resource in claim.held}
    targets = {
        name: free
        for name in (capacity.nodes if among is None else among)
        if capacity.nodes[name].usable and name not in leaving and any((free := _free_on(name, needed, capacity)).values())
    }
    ordered = sorted(claims, key=lambda claim: (len(_options(claim, capacity, targets)), claim.key))
    lacks = _is_short(claims, targets)
    search = _Search(ordered, capacity, targets, most_visits)
    ended = len(ordered) <= _MOST_SEARCHED
    if ended:
        search.place(0)
        ended = search.visits <= most_visits
    else:
        search.place_in_order()
    unplaced = tuple(claim for claim in ordered if claim.key not in search.best)
    return Relocation(places=search.best, unplaced=unplaced, is_certain=ended or lacks or not unplaced, visits=search.visits)


def _is_short(claims: Sequence[Claim], targets: Mapping[str, Mapping[str, int]]) -> bool:
    """Return whether there are fewer devices in all than the VMs need."""
    need: Counter[str] = Counter()
    for claim in claims:
        need.update(claim.held)
    return any(sum(free.get(resource, 0) for free in targets.values()) < count for resource, count in need.items())


def may_move_to(claim: Claim, node: NodeDevices) -> bool:
    """Return whether a node allows a VM, and the guest has drivers for the devices there."""
    return may_use(claim.vm, node) and tolerates(claim.vm, node) and can_drive(claim.vm, node, claim.held)


def _free_on(node: str, needed: Collection[str], capacity: Capacity) -> dict[str, int]:
    return {resource: left.get(node, 0) for resource, left in capacity.free.items() if resource in needed}


class _Search:
    """Backtracking search that places VMs with the fewest options first."""

    def __init__(
        self, claims: Sequence[Claim], capacity: Capacity, targets: dict[str, dict[str, int]], most_visits: int
    ) -> None:
        self._claims = claims
        self._capacity = capacity
        self._targets = targets
        self._most_visits = most_visits
        self._placed: dict[tuple[str, str], str] = {}
        self.visits = 0
        self.best: dict[tuple[str, str], str] = {}

    def place(self, index: int) -> bool:
        """Find places for the VMs from an index on and return whether all have one."""
        # The search undoes its moves when it gets nowhere or exceeds its bound. Only the copy remains.
        if len(self._placed) > len(self.best):
            self.best = dict(self._placed)
        if index == len(self._claims) or self.visits > self._most_visits:
            return index == len(self._claims) == len(self._placed)
        claim = self._claims[index]
        self.visits += len(self._targets)
        for name in _options(claim, self._capacity, self._targets):
            self._move(claim, name, -1)
            self._placed[claim.key] = name
            if self.place(index + 1):
                return True
            del self._placed[claim.key]
            self._move(claim, name, 1)
        # Not all VMs fit. The rest is still placed, so that only VMs without a place are named.
        return self.place(index + 1) and False

    def place_in_order(self) -> None:
        """Find the first fitting place for each VM, without a search."""
        for claim in self._claims:
            self.visits += len(self._targets)
            found = _options(claim, self._capacity, self._targets)
            if found:
                self._move(claim, found[0], -1)
                self.best[claim.key] = found[0]

    def _move(self, claim: Claim, node: str, sign: int) -> None:
        for resource, count in claim.held.items():
            self._targets[node][resource] = self._targets[node].get(resource, 0) + sign * count


def _options(claim: Claim, capacity: Capacity, targets: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return the nodes with enough free devices, those with the fewest first."""
    fitting = [
        name
        for name, free in targets.items()
        if all(free.get(one, 0) >= count for one, count in claim.held.items()) and may_move_to(claim, capacity.nodes[name])
    ]
    return sorted(fitting, key=lambda name: (sum(targets[name].get(one, 0) for one in claim.held), name))
