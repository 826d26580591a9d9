"""Publication of the node's status.

The publisher remembers what it wrote, so that a lagging watch causes no second write.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

import msgspec

from ...api.node_state import NodeNicState, NodeStatus
from ...kube.errors import ApiError
from ..node_state_client import NodeStateClient
from .conditions import same_status
from .reduced import is_refusal, reduced_statuses

__all__ = ["Publisher"]

_log = logging.getLogger(__name__)

_BEHIND = 16
"""Number of statuses by which a watch may lag. A change writes six."""
_AGAIN_S = 300.0
"""Seconds after which a refused status is published again, in case the CRD has been updated."""


class Publisher:
    """Writes statuses, each only if it differs from the one before.

    Args:
        reporter: Client of this node's NodeNicState.
        clock: Monotonic seconds.
    """

    def __init__(self, reporter: NodeStateClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._reporter = reporter
        self._clock = clock
        self.shown: NodeNicState | None = None
        """The object as this agent wrote it last. None if there is none, or the API server does not answer."""
        self._written: deque[NodeStatus] = deque(maxlen=_BEHIND)
        """Statuses that the watch may still show, which this agent wrote or replaced, up to the last one."""
        self._refused: NodeStatus | None = None
        """The last status that the API server refused, without conditions, because their times change."""
        self._refused_at = 0.0

    def begin(self, state: NodeNicState | None) -> NodeNicState | None:
        """Start a pass with the object that the watch shows.

        If the watch lags, the status that was written last replaces the one it shows. No other client writes the status.
        """
        if state is not None and state.status in self._written:
            last = self._written[-1]
            if state.status == last:
                # The watch has caught up, so it shows no older status any more.
                self._written = deque([last], _BEHIND)
            state = msgspec.structs.replace(state, status=last)
        self.shown = state
        return state

    async def publish(self, status: NodeStatus) -> None:
        """Write a status. If the API server refuses it, write a reduced one with the reason.

        Raises:
            ApiError: The status could not be published.
        """
        if self.shown is None or same_status(status, self.shown.status) or self._is_refused(status):
            return
        try:
            await self._write(self.shown, status)
        except ApiError as error:
            if not is_refusal(error):
                raise
            self._refused, self._refused_at = _without_conditions(status), self._clock()
            _log.error(
                "the API server refuses the status of this node, so the agent publishes a reduced status: %s", error.message
            )
            await self._write_reduced(self.shown, status, error)
        else:
            self._refused = None

    async def claim(self, live: NodeNicState, status: NodeStatus) -> bool:
        """Write a status over exactly this version of the object.

        Returns:
            False if the object has changed since.

        Raises:
            ApiError: It is unknown whether the status was written.
        """
        if not await self._reporter.claim(live, status):
            return False
        self._note(live, status)
        return True

    def _is_refused(self, status: NodeStatus) -> bool:
        """Return whether the API server refused the same status recently."""
        return self._clock() - self._refused_at < _AGAIN_S and self._refused == _without_conditions(status)

    async def _write_reduced(self, over: NodeNicState, status: NodeStatus, error: ApiError) -> None:
        for reduced in reduced_statuses(status, over.status, error):
            # The API server has this one from an earlier refusal.
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
