"""What this agent has written of its node, and what the watch, which may be behind, has yet to show of that."""

from __future__ import annotations

from collections import deque

import msgspec

from ..nodes.state import NodeNicState, NodeStatus
from .reporter import Reporter
from .status import same_status

__all__ = ["Publisher"]

_BEHIND = 16
"""By how many statuses a watch may be behind: a run has six."""


class Publisher:
    """Writes statuses, each only if it differs from the one before."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.shown: NodeNicState | None = None
        """The object as this agent has written it last; None: there is none, or nobody to write it to."""
        self._written: deque[NodeStatus] = deque(maxlen=_BEHIND)
        """What the watch may still show: statuses that this agent wrote, or wrote over, up to the last one."""

    def begin(self, state: NodeNicState | None) -> NodeNicState | None:
        """Begin with what the watch shows; where it is behind, the status is the one written last. Nobody else writes any."""
        if state is not None and state.status in self._written:
            last = self._written[-1]
            if state.status == last:
                self._written = deque([last], _BEHIND)
            state = msgspec.structs.replace(state, status=last)
        self.shown = state
        return state

    async def publish(self, status: NodeStatus) -> None:
        """Write a status.

        Raises:
            ApiError: it could not be published.
        """
        if self.shown is not None and not same_status(status, self.shown.status):
            await self._reporter.publish(status)
            self._note(self.shown, status)

    async def claim(self, live: NodeNicState, status: NodeStatus) -> bool:
        """Write a status over exactly this version of the object; False: it is another by now.

        Raises:
            ApiError: whether it was written is not known.
        """
        if not await self._reporter.claim(live, status):
            return False
        self._note(live, status)
        return True

    def _note(self, over: NodeNicState, status: NodeStatus) -> None:
        self._written += [over.status, status]
        self.shown = msgspec.structs.replace(over, status=status)
