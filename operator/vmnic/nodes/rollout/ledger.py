"""The books of a rollout: which node of which pool is draining, may start, has failed, or is still cordoned by vmnic. Pure.

Budgets are counted from here. An entry counts until its run has ended and its node is uncordoned, or until the agent has
confirmed that it no longer sees a grant: one that was merely taken back may just be being claimed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from ..pools.shares import VfTotals
from ..state import NodeNicState

__all__ = ["CORDONED", "Entry", "EntryState", "Ledger", "NodeView", "PoolLedger"]

CORDONED = "vmnic.dev/cordoned"
"""Annotation of a Node that vmnic has cordoned: the pool that it is drained for."""


class EntryState(StrEnum):
    """What a node's entry stands for."""

    DRAINING = "Draining"
    """The node is cordoned and its VMs are leaving; nothing is granted yet."""
    GRANTED = "Granted"
    """Its plans are granted."""
    REVOKED = "Revoked"
    """The grant is taken back and the agent has not confirmed it yet."""
    ENDED = "Ended"
    """It is over; the node has to be uncordoned yet."""
    FAILED = "Failed"
    """Its run failed, which counts towards `maxFailures`."""
    RESTING = "Resting"
    """It was given up for now: the node is as it was found, and is tried again later."""


_NONE = VfTotals()
_UNDER_WAY = (EntryState.DRAINING, EntryState.GRANTED, EntryState.REVOKED)


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One node of one pool."""

    generation: int
    """The pool's generation at the start."""
    boot_id: str
    digests: dict[str, str]
    """Plan by PCI address: granted, or to be granted once the node is drained."""
    state: EntryState = EntryState.GRANTED
    disruptive: bool = False
    """Whether it takes the node out of service: counts against `maxUnavailable` and not against `maxConcurrent`."""
    cordoned: bool = False
    """Whether vmnic cordons the node and so has to uncordon it."""
    since: int = 0
    """When the drain began, or the grant, in seconds since 1970."""
    until: int = 0
    """Of a resting one: when it may be tried again, in seconds since 1970."""
    silent: bool = False
    """Of a failed one: its agent did not answer in time, so it may be tried again once the agent does."""

    @property
    def under_way(self) -> bool:
        """Whether the node is changing, about to, or not yet back in service."""
        return self.state in _UNDER_WAY or self.cordoned

    @property
    def to_uncordon(self) -> bool:
        """Whether all that is left to do is to uncordon the node."""
        return self.cordoned and self.state not in _UNDER_WAY


class PoolLedger(msgspec.Struct, frozen=True, kw_only=True):
    """What is under way for one pool."""

    proven_generation: int = 0
    """The newest generation that a first node has been brought to."""
    entries: dict[str, Entry] = {}
    """By node."""

    def running(self, *, disruptive: bool | None = None) -> int:
        """How many nodes count against a budget; None: against any."""
        return sum(entry.under_way and disruptive in (None, entry.disruptive) for entry in self.entries.values())

    def failed(self) -> int:
        """How many nodes have failed."""
        return sum(entry.state is EntryState.FAILED for entry in self.entries.values())


class Ledger(msgspec.Struct, frozen=True):
    """Everything under way, by pool."""

    pools: dict[str, PoolLedger] = {}

    @classmethod
    def parse(cls, stored: Any) -> Ledger:
        """Read what `render` gave.

        Raises:
            msgspec.ValidationError: it is no ledger; a ValueError.
        """
        return msgspec.convert(stored, cls)

    def render(self) -> Any:
        """Give the JSON-able form."""
        return msgspec.to_builtins(self)

    def size(self) -> int:
        """Return how many bytes it takes in its ConfigMap."""
        return len(msgspec.json.encode(self))

    def of(self, pool: str) -> PoolLedger:
        """Give a pool's part, empty if there is none."""
        return self.pools.get(pool, PoolLedger())

    def granted(self, node: str) -> dict[str, str]:
        """Give the granted digests of a node by PCI address."""
        return {
            address: digest
            for part in self.pools.values()
            if (entry := part.entries.get(node)) is not None and entry.state is EntryState.GRANTED
            for address, digest in entry.digests.items()
        }

    def cordons(self, node: str) -> bool:
        """Tell whether vmnic has to uncordon a node some time."""
        return any(entry.cordoned for part in self.pools.values() if (entry := part.entries.get(node)) is not None)

    def busy(self, *, disruptive: bool | None = None, but: str = "") -> set[str]:
        """Name the nodes that are under way for any pool but one."""
        return {
            node
            for pool, part in self.pools.items()
            if pool != but
            for node, entry in part.entries.items()
            if entry.under_way and disruptive in (None, entry.disruptive)
        }

    def with_pool(self, pool: str, part: PoolLedger | None) -> Ledger:
        """Replace a pool's part; None removes it."""
        rest = {name: other for name, other in self.pools.items() if name != pool}
        return Ledger(rest if part is None else rest | {pool: part})


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """One node as the rollout sees it."""

    name: str
    state: NodeNicState
    current: bool
    """Whether its spec already says what the pools ask now; a plan for an older spec is not granted."""
    ready: bool = True
    """Whether its kubelet is heard of."""
    cordoned: bool = False
    """Whether nothing new is scheduled there, whoever has cordoned it."""
    lost: bool = False
    """Whether its kubelet has not been heard of for so long that nobody waits for it."""
    vfs: VfTotals = _NONE
    """The pool's VFs there."""

    @property
    def confirmed(self) -> bool:
        """Whether its agent has seen its present spec."""
        return self.state.status.observed_generation >= self.state.metadata.generation

    def leaves(self, pool: str) -> bool:
        """Return whether the node only gives up functions of a pool: it was taken out of it, or the pool is being removed."""
        mine = [spec for spec in self.state.spec.pfs if spec.pool == pool]
        return bool(mine) and all(spec.release for spec in mine)

    @property
    def answers(self) -> bool:
        """Whether its agent has published its plans for what the pools ask now."""
        return self.current and self.confirmed

    @property
    def available(self) -> bool:
        """Whether it is in service."""
        return self.ready and not self.cordoned


def by_name(nodes: Iterable[NodeView]) -> dict[str, NodeView]:
    """Give views by the name of their node."""
    return {view.name: view for view in nodes}
