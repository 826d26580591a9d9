"""Check whether VMs that must leave a node fit elsewhere.

The VMs are matched to free devices before any of them moves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from .capacity import Capacity, Claim, can_drive, may_use

__all__ = ["find_unplaceable"]

_VISITS = 50_000
"""Bound on visits to nodes, about 0.2 s, after which the best result so far counts. A dozen VMs on 1,000 nodes need about
10,000."""


def find_unplaceable(claims: Sequence[Claim], capacity: Capacity, *, leaving: Collection[str]) -> tuple[Claim, ...]:
    """Return the VMs for which no node has free devices. Empty if all of them fit at the same time.

    Args:
        claims: VMs that must leave. Each needs the devices that it holds.
        capacity: Free devices.
        leaving: Nodes that no VM can move to.
    """
    needed = {resource for claim in claims for resource in claim.held}
    targets = {
        name: free
        for name, node in capacity.nodes.items()
        if node.usable and name not in leaving and any((free := _free_on(name, needed, capacity)).values())
    }
    ordered = sorted(claims, key=lambda claim: (len(_options(claim, capacity, targets)), claim.key))
    search = _Search(ordered, capacity, targets)
    search.place(0)
    return tuple(claim for claim in ordered if claim.key not in search.best)


def _free_on(node: str, needed: Collection[str], capacity: Capacity) -> dict[str, int]:
    return {resource: left.get(node, 0) for resource, left in capacity.free.items() if resource in needed}


class _Search:
    """Backtracking search that places VMs with the fewest options first."""

    def __init__(self, claims: Sequence[Claim], capacity: Capacity, targets: dict[str, dict[str, int]]) -> None:
        self._claims = claims
        self._capacity = capacity
        self._targets = targets
        self._visits = 0
        self._placed: set[tuple[str, str]] = set()
        self.best: set[tuple[str, str]] = set()

    def place(self, index: int) -> bool:
        """Find places for the VMs from an index on and return whether all have one."""
        # The search undoes its moves when it gets nowhere or exceeds its bound. Only the copy remains.
        if len(self._placed) > len(self.best):
            self.best = set(self._placed)
        if index == len(self._claims) or self._visits > _VISITS:
            return index == len(self._claims) == len(self._placed)
        claim = self._claims[index]
        self._visits += len(self._targets)
        for name in _options(claim, self._capacity, self._targets):
            self._move(claim, name, -1)
            self._placed.add(claim.key)
            if self.place(index + 1):
                return True
            self._placed.discard(claim.key)
            self._move(claim, name, 1)
        # Not all VMs fit. The rest is still placed, so that only VMs without a place are named.
        return self.place(index + 1) and False

    def _move(self, claim: Claim, node: str, sign: int) -> None:
        for resource, count in claim.held.items():
            self._targets[node][resource] = self._targets[node].get(resource, 0) + sign * count


def _options(claim: Claim, capacity: Capacity, targets: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return the nodes with enough free devices, those with the fewest first."""
    fitting = [
        name
        for name, free in targets.items()
        if may_use(claim.vm, capacity.nodes[name])
        and can_drive(claim.vm, capacity.nodes[name], claim.held)
        and all(free.get(one, 0) >= count for one, count in claim.held.items())
    ]
    return sorted(fitting, key=lambda name: (sum(targets[name].get(one, 0) for one in claim.held), name))
