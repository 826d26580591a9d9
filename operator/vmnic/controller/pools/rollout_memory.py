"""What a leader remembers between passes about one generation of a pool.

It contains the nodes that are waited for and those that pause. None of it is stored: a new leader starts with an empty memory,
and so waits once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...nodes.rollout.ledger import EntryState, NodeView, PoolLedger
from ...nodes.rollout.turns import unanswered

__all__ = ["RolloutMemory"]

_PLANS_S = 30
"""Time in which nodes may publish their plans after an edit, before one is drained."""
_NODES_A_SECOND = 20
"""Specs written per second. A large pool gets that much more time for its plans."""
_FREE_S = 30
"""Time after a free node has ended its change in which nodes that VMs have to leave wait for the next free one."""
_REFUSED_S = 15
"""Time until a node's VMs are matched again after they had nowhere to go."""
_FULL_S = 15
"""Interval between checks whether other pools have made room in the ledger."""
_FAILED_S = 10
"""Pause of a failed node that may be retried, so that other nodes come first."""
_PROMPT = 2
"""Changes of one node that may follow each other without a pause."""
_LONGEST_PAUSE_S = 1800


@dataclass(slots=True)
class RolloutMemory:
    """Memory of one generation.

    Args:
        generation: The pool's generation.
        since: When this leader first saw it, in seconds since 1970.
        nodes: Number of the pool's nodes.
    """

    generation: int
    since: int
    nodes: int = 0
    refusals: dict[str, str] = field(default_factory=dict)
    """Why VMs of a node cannot be moved, by node."""
    left_out: int = 0
    """Nodes for which the ledger had no room in the last pass."""
    waits: bool = False
    """Whether nodes waited for others in the last pass."""
    _refused_until: dict[str, int] = field(default_factory=dict)
    _pauses: dict[str, int] = field(default_factory=dict)
    """End of a node's pause."""
    _ends: dict[str, int] = field(default_factory=dict)
    """Number of ended changes by node."""
    _free_until: int = 0

    @property
    def plans_until(self) -> int:
        """Return until when plans are waited for, in seconds since 1970."""
        return self.since + _PLANS_S + self.nodes // _NODES_A_SECOND

    @property
    def free_until(self) -> int:
        """Return until when free nodes are waited for, in seconds since 1970.

        The first ended change of each free node extends it.
        """
        return max(self.plans_until + _FREE_S, self._free_until)

    def waits_for_plans(self, views: Sequence[NodeView], now: int) -> bool:
        """Return whether a node may still publish its plan for this generation."""
        return now < self.plans_until and bool(unanswered(views))

    def note_ends(self, before: PoolLedger, part: PoolLedger, now: int) -> None:
        """Record which changes have ended.

        A node whose changes end again and again pauses between them for a growing time. So an agent whose reports keep
        changing, such as the boot id or the plan, costs other nodes no more than that.
        """
        for node in before.entries.keys() - part.entries.keys():
            entry, count = before.entries[node], self._ends.get(node, 0) + 1
            # The first end only: an agent whose changes end again and again must not extend the wait of all other nodes.
            if not entry.disruptive and count == 1:
                self._free_until = now + _FREE_S
            self._ends[node] = count
            pause_s = min(2**count, _LONGEST_PAUSE_S) if count > _PROMPT else 0
            if entry.state is EntryState.FAILED:
                pause_s = max(pause_s, _FAILED_S)
            self._pauses[node] = now + pause_s

    def refuse(self, refused: dict[str, str], now: int) -> None:
        """Record why VMs of nodes cannot be moved now."""
        self.refusals |= refused
        self._refused_until |= dict.fromkeys(refused, now + _REFUSED_S)

    def accept(self, node: str) -> None:
        """Record that a node's VMs can be moved after all."""
        self._refused_until.pop(node, None)

    def pausing(self, now: int) -> set[str]:
        """Return the nodes that pause."""
        return {node for node, until in self._pauses.items() if until > now}

    def refused(self, now: int) -> set[str]:
        """Return the nodes whose VMs could not be moved when last matched."""
        return {node for node, until in self._refused_until.items() if until > now}

    def next_look(self, now: int) -> int | None:
        """Return the seconds until the next wait is over, or None if nothing is waited for."""
        ends = [*self._pauses.values(), *self._refused_until.values()]
        ends += [self.plans_until, self.free_until] if self.waits else []
        ends += [now + _FULL_S] if self.left_out else []
        return min((end - now for end in ends if end > now), default=None)
