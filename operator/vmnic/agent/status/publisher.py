"""Publishes what this agent reports of its node, and remembers it, so that a lagging watch makes nothing be written twice."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

import msgspec

from ...kube.errors import ApiError
from ...nodes.state import NodeNicState, NodeStatus
from ..node_state_client import NodeStateClient
from .conditions import same_status
from .reduced import is_refusal, reduced_statuses

__all__ = ["Publisher"]

_log = logging.getLogger(__name__)

_BEHIND = 16
"""By how many statuses a watch may be behind: a run has six."""
_AGAIN_S = 300.0
"""After this time a status that was refused is published again, in case the CRD has been updated."""


class Publisher:
    """Writes statuses, each only if it differs from the one before.

    Args:
        reporter: Where they go.
        clock: Seconds, monotonic.
    """

    def __init__(self, reporter: NodeStateClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._reporter = reporter
        self._clock = clock
        self.shown: NodeNicState | None = None
        """The object as this agent has written it last; None: there is none, or the API server is away."""
        self._written: deque[NodeStatus] = deque(maxlen=_BEHIND)
        """What the watch may still show: statuses that this agent wrote, or wrote over, up to the last one."""
        self._refused: NodeStatus | None = None
        """The last status that the API server refused, without conditions, whose times move."""
        self._refused_at = 0.0

    def begin(self, state: NodeNicState | None) -> NodeNicState | None:
        """Begin with what the watch shows; where it is behind, with the status written last. No other client writes it."""
        if state is not None and state.status in self._written:
            last = self._written[-1]
            if state.status == last:
                self._written = deque([last], _BEHIND)
            state = msgspec.structs.replace(state, status=last)
        self.shown = state
        return state

    async def publish(self, status: NodeStatus) -> None:
        """Write a status; one that the API server refuses is written reduced, with the reason.

        Raises:
            ApiError: it could not be published.
        """
        if self.shown is None or same_status(status, self.shown.status) or self._is_refused(status):
            return
        try:
            await self._write(self.shown, status)
        except ApiError as error:
            if not is_refusal(error):
                raise
            self._refused, self._refused_at = _without_conditions(status), self._clock()
            _log.error("the API server refuses the status of this node, which is published reduced: %s", error.message)
            await self._write_reduced(self.shown, status, error)
        else:
            self._refused = None

    async def claim(self, live: NodeNicState, status: NodeStatus) -> bool:
        """Write a status over exactly this version of the object; False: it is another by now.

        Raises:
            ApiError: whether it was written is not known.
        """
        if not await self._reporter.claim(live, status):
            return False
        self._note(live, status)
        return True

    def _is_refused(self, status: NodeStatus) -> bool:
        """Return whether the API server has refused the same status a while ago."""
        return self._clock() - self._refused_at < _AGAIN_S and self._refused == _without_conditions(status)

    async def _write_reduced(self, over: NodeNicState, status: NodeStatus, error: ApiError) -> None:
        for reduced in reduced_statuses(status, over.status, error):
            if same_status(reduced, over.status):
                return
            try:
                await self._write(over, reduced)
            except ApiError as again:
                if not is_refusal(again):
                    raise
            else:
                return
        raise error

    async def _write(self, over: NodeNicState, status: NodeStatus) -> None:
        await self._reporter.publish(status)
        self._note(over, status)

    def _note(self, over: NodeNicState, status: NodeStatus) -> None:
        self._written += [over.status, status]
        self.shown = msgspec.structs.replace(over, status=status)


def _without_conditions(status: NodeStatus) -> NodeStatus:
    return msgspec.structs.replace(status, conditions=())
