"""What a leader remembers of one generation of a pool between two looks: which nodes it waits for, and which nodes pause.

None of it is stored. A new leader begins with an empty memory, and so waits once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...nodes.rollout.ledger import EntryState, NodeView, PoolLedger
from ...nodes.rollout.turns import unanswered

__all__ = ["RolloutMemory"]

_PLANS_S = 30
"""For so long nodes may publish their plans after an edit, before one is drained."""
_NODES_A_SECOND = 20
"""So many specs are written in a second; a large pool is given the time for it."""
_FREE_S = 30
"""For so long after a free node has ended its change, nodes that VMs have to leave wait for the next free one."""
_REFUSED_S = 15
"""For so long it is not asked again whether a node's VMs can be moved."""
_FULL_S = 15
"""Between looks whether the ledger has room again: other pools make it."""
_FAILED_S = 10
"""A failed node that may be tried again pauses for so long: others come first."""
_PROMPT = 2
"""Changes of one node that may follow each other at once."""
_LONGEST_PAUSE_S = 1800


@dataclass(slots=True)
class RolloutMemory:
    """The memory of one generation.

    Args:
        generation: The pool's.
        since: When this leader saw it first, in seconds since 1970.
        nodes: How many nodes the pool has.
    """

    generation: int
    since: int
    nodes: int = 0
    refusals: dict[str, str] = field(default_factory=dict)
    """Why VMs of a node cannot be moved, by node."""
    left_out: int = 0
    """Nodes that the ledger had no room for at the last look."""
    waits: bool = False
    """Whether nodes waited for others at the last look."""
    _refused_until: dict[str, int] = field(default_factory=dict)
    _pauses: dict[str, int] = field(default_factory=dict)
    """Until when a node pauses."""
    _ends: dict[str, int] = field(default_factory=dict)
    """How many changes of a node have ended."""
    _free_until: int = 0

    @property
    def plans_until(self) -> int:
        """Until when plans are waited for."""
        return self.since + _PLANS_S + self.nodes // _NODES_A_SECOND

    @property
    def free_until(self) -> int:
        """Until when free nodes are waited for; each that ends its change prolongs it once."""
        return max(self.plans_until + _FREE_S, self._free_until)

    def waits_for_plans(self, views: Sequence[NodeView], now: int) -> bool:
        """Return whether a node may still publish its plan for this generation."""
        return now < self.plans_until and bool(unanswered(views))

    def note_ends(self, before: PoolLedger, part: PoolLedger, now: int) -> None:
        """Note which changes have ended: a node whose changes end again and again pauses between them, ever longer.

        Whatever an agent reports, such as another boot id or another plan at each look, costs others no more than that.
        """
        for node in before.entries.keys() - part.entries.keys():
            entry, count = before.entries[node], self._ends.get(node, 0) + 1
            if not entry.disruptive and count == 1:
                self._free_until = now + _FREE_S
            self._ends[node] = count
            pause_s = min(2**count, _LONGEST_PAUSE_S) if count > _PROMPT else 0
            if entry.state is EntryState.FAILED:
                pause_s = max(pause_s, _FAILED_S)
            self._pauses[node] = now + pause_s

    def write_invalid(self, refused: dict[str, str], now: int) -> None:
        """Note why VMs of nodes cannot be moved now."""
        self.refusals |= refused
        self._refused_until |= dict.fromkeys(refused, now + _REFUSED_S)

    def accept(self, node: str) -> None:
        """Note that a node's VMs can be moved after all."""
        self._refused_until.pop(node, None)

    def pausing(self, now: int) -> set[str]:
        """Name the nodes that pause."""
        return {node for node, until in self._pauses.items() if until > now}

    def refused(self, now: int) -> set[str]:
        """Name the nodes whose VMs cannot be moved, as far as known."""
        return {node for node, until in self._refused_until.items() if until > now}

    def next_look(self, now: int) -> int | None:
        """Return in how many seconds something that was waited for is over; None: nothing is."""
        ends = [*self._pauses.values(), *self._refused_until.values()]
        ends += [self.plans_until, self.free_until] if self.waits else []
        ends += [now + _FULL_S] if self.left_out else []
        return min((end - now for end in ends if end > now), default=None)
