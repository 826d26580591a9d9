"""Whether VMs that have to leave a node find devices elsewhere: a matching to free ones, made before anybody is moved."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from .capacity import Capacity, Claim, can_drive, may_use

__all__ = ["find_unplaceable"]

_VISITS = 50_000
"""Looks at a node, about 0.2 s, after which what has been found must do: a dozen VMs on 1,000 nodes need some 10,000."""


def find_unplaceable(claims: Sequence[Claim], capacity: Capacity, *, leaving: Collection[str]) -> tuple[Claim, ...]:
    """Give the VMs for which no node has free devices; empty: all of them fit at the same time.

    Args:
        claims: The VMs that have to leave; what each holds is what it needs.
        capacity: What is free.
        leaving: Nodes that nobody can go to.
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
    """Tries the VMs with the fewest options first, and steps back where one is left without."""

    def __init__(self, claims: Sequence[Claim], capacity: Capacity, targets: dict[str, dict[str, int]]) -> None:
        self._claims = claims
        self._capacity = capacity
        self._targets = targets
        self._visits = 0
        self._placed: set[tuple[str, str]] = set()
        self.best: set[tuple[str, str]] = set()

    def place(self, index: int) -> bool:
        """Place the VMs from an index on; True once all have a place."""
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
        # Whether all fit is decided; the others are still placed, so that only those without a place are named.
        return self.place(index + 1) and False

    def _move(self, claim: Claim, node: str, sign: int) -> None:
        for resource, count in claim.held.items():
            self._targets[node][resource] = self._targets[node].get(resource, 0) + sign * count


def _options(claim: Claim, capacity: Capacity, targets: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Nodes with enough, those with the least left first."""
    fitting = [
        name
        for name, free in targets.items()
        if may_use(claim.vm, capacity.nodes[name])
        and can_drive(claim.vm, capacity.nodes[name], claim.held)
        and all(free.get(one, 0) >= count for one, count in claim.held.items())
    ]
    return sorted(fitting, key=lambda name: (sum(targets[name].get(one, 0) for one in claim.held), name))
