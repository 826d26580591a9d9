"""Ledger of a rollout.

Per pool it lists the nodes that drain, change, have failed or are still cordoned by vmnic.
Budgets are counted from it. An entry counts until its change has ended and its node is uncordoned, or until the agent has
confirmed a spec without the grant, because the agent may be claiming a grant at the moment it is revoked. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from ...api.node_state import NodeNicState
from ..pools.shares import VfTotals

__all__ = ["CORDONED", "Entry", "EntryState", "Ledger", "NodeView", "PoolLedger"]

CORDONED = "vmnic.dev/cordoned"
"""Annotation of a Node that vmnic has cordoned. Its value is the pool that the node is drained for."""


class EntryState(StrEnum):
    """State of a node's entry."""

    DRAINING = "Draining"
    """The node is cordoned and its VMs are leaving. Nothing is granted yet."""
    GRANTED = "Granted"
    """The node's plans are granted."""
    REVOKED = "Revoked"
    """The grant is revoked, and the agent has not confirmed this yet."""
    ENDED = "Ended"
    """The change is over, and the node still has to be uncordoned."""
    FAILED = "Failed"
    """The change failed, which counts towards `maxFailures`."""
    RESTING = "Resting"
    """The attempt was given up for now. The node is unchanged and is tried again later."""


_NONE = VfTotals()
_UNDER_WAY = (EntryState.DRAINING, EntryState.GRANTED, EntryState.REVOKED)


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One node of one pool."""

    generation: int
    """The pool's generation when the entry began."""
    boot_id: str
    digests: dict[str, str]
    """Digests of plans by PCI address, which are granted, or are to be granted once the node is drained."""
    # From here on every field has a default, because a ledger of an older version does not have it.
    state: EntryState = EntryState.GRANTED
    disruptive: bool = False
    """Whether the change takes the node out of service. It then counts against `maxUnavailable` and not `maxConcurrent`."""
    cordoned: bool = False
    """Whether vmnic cordons the node and so has to uncordon it."""
    since: int = 0
    """Time at which the drain or the grant began, in seconds since 1970."""
    until: int = 0
    """Time from which a resting node may be tried again, in seconds since 1970."""
    silent: bool = False
    """Whether the entry failed because its agent did not answer in time. It may be tried again once the agent answers."""

    @property
    def under_way(self) -> bool:
        """Return whether the node is changing, is about to change, or is not back in service yet."""
        # A node whose change is over but that is still cordoned takes no VMs, so it keeps its slot.
        return self.state in _UNDER_WAY or self.cordoned

    @property
    def to_uncordon(self) -> bool:
        """Return whether the node only has to be uncordoned."""
        return self.cordoned and self.state not in _UNDER_WAY


class PoolLedger(msgspec.Struct, frozen=True, kw_only=True):
    """Entries of one pool."""

    proven_generation: int = 0
    """Newest generation that a first node has applied."""
    entries: dict[str, Entry] = {}
    """Entries by node."""

    def running(self, *, disruptive: bool | None = None) -> int:
        """Return how many nodes count against a budget, or against any budget if `disruptive` is None."""
        return sum(entry.under_way and disruptive in (None, entry.disruptive) for entry in self.entries.values())

    def failed(self) -> int:
        """Return how many nodes have failed."""
        return sum(entry.state is EntryState.FAILED for entry in self.entries.values())


class Ledger(msgspec.Struct, frozen=True):
    """All entries, by pool."""

    pools: dict[str, PoolLedger] = {}

    @classmethod
    def parse(cls, stored: Any) -> Ledger:
        """Parse the output of `render`.

        Raises:
            msgspec.ValidationError: The value is not a ledger. This is a ValueError.
        """
        return msgspec.convert(stored, cls)

    def render(self) -> Any:
        """Return the JSON-compatible form."""
        return msgspec.to_builtins(self)

    def size(self) -> int:
        """Return the size in the ConfigMap, in bytes."""
        return len(msgspec.json.encode(self))

    def of(self, pool: str) -> PoolLedger:
        """Return a pool's part, which is empty if the pool has none."""
        return self.pools.get(pool, PoolLedger())

    def granted(self, node: str) -> dict[str, str]:
        """Return the granted digests of a node by PCI address."""
        return {
            address: digest
            for part in self.pools.values()
            # Only this state grants. A draining entry has digests too, and its node still runs VMs.
            if (entry := part.entries.get(node)) is not None and entry.state is EntryState.GRANTED
            for address, digest in entry.digests.items()
        }

    def cordons(self, node: str) -> bool:
        """Return whether vmnic still has to uncordon a node."""
        return any(entry.cordoned for part in self.pools.values() if (entry := part.entries.get(node)) is not None)

    def busy(self, *, disruptive: bool | None = None, but: str = "") -> set[str]:
        """Return the nodes that are under way for any pool except `but`."""
        return {
            node
            for pool, part in self.pools.items()
            if pool != but
            for node, entry in part.entries.items()
            if entry.under_way and disruptive in (None, entry.disruptive)
        }

    def with_pool(self, pool: str, part: PoolLedger | None) -> Ledger:
        """Return a ledger in which a pool's part is replaced, or removed if `part` is None."""
        rest = {name: other for name, other in self.pools.items() if name != pool}
        return Ledger(rest if part is None else rest | {pool: part})


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """One node as the rollout sees it."""

    name: str
    state: NodeNicState
    current: bool
    """Whether its spec already matches the pools. A plan for an older spec is not granted."""
    ready: bool = True
    """Whether its kubelet reports."""
    cordoned: bool = False
    """Whether the node is unschedulable, no matter who cordoned it."""
    lost: bool = False
    """Whether its kubelet has been silent for so long that the rollout no longer waits for the node."""
    vfs: VfTotals = _NONE
    """The pool's VFs on the node."""
    refused: bool = False
    """Whether a function of the node does not get what the pool asks, because of a conflict or a fault of the pool."""

    @property
    def confirmed(self) -> bool:
        """Return whether the agent has seen the present spec."""
        return self.state.status.observed_generation >= self.state.metadata.generation

    def leaves(self, pool: str) -> bool:
        """Return whether the node only releases PFs of a pool, because it or the pool is being removed."""
        mine = [spec for spec in self.state.spec.pfs if spec.pool == pool]
        return bool(mine) and all(spec.release for spec in mine)

    @property
    def answers(self) -> bool:
        """Return whether the agent has published its plans for what the pools ask now."""
        return self.current and self.confirmed

    @property
    def available(self) -> bool:
        """Return whether the node is in service."""
        return self.ready and not self.cordoned


def by_name(nodes: Iterable[NodeView]) -> dict[str, NodeView]:
    """Return views by node name."""
    return {view.name: view for view in nodes}
