"""Limits on the webhook's open connections, which any client in the cluster's network may open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

__all__ = ["ConnectionSweeper"]

_MOST = 512
_FIRST_REQUEST_S = 10.0
"""Maximum time from the TLS handshake until the first request has arrived completely."""
_IDLE_S = 120.0
"""Longer than the API server's 90 s, so that the API server is the side that closes an idle connection."""
_SWEEP_S = 1.0


class Connection(Hashable, Protocol):
    """Server side of one connection, as aiohttp implements it."""

    def force_close(self) -> None:
        """Close the connection at once."""
        ...


class ConnectionSweeper:
    """Closes silent connections, and the longest idle ones if there are too many.

    Args:
        connections: Returns the open connections.
        clock: Returns the time in seconds.
    """

    def __init__(self, connections: Callable[[], Sequence[Connection]], clock: Callable[[], float] = time.monotonic) -> None:
        self._connections = connections
        self._clock = clock
        self._ends_at: dict[Connection, float] = {}
        """Time at which to close each connection, unless a request arrives."""

    def note_request(self, connection: Connection) -> None:
        """Record that a complete request has arrived."""
        self._ends_at[connection] = self._clock() + _IDLE_S

    async def run(self) -> None:
        """Close silent and surplus connections periodically until cancelled."""
        while True:
            self.sweep()
            await asyncio.sleep(_SWEEP_S)

    def sweep(self) -> None:
        """Close connections that are idle for too long or exceed the maximum number."""
        now = self._clock()
        present = self._connections()
        # Made again from the open connections, so that closed ones are forgotten.
        self._ends_at = {one: self._ends_at.get(one, now + _FIRST_REQUEST_S) for one in present}
        by_end = sorted(present, key=self._ends_at.__getitem__)
        beyond = max(0, len(present) - _MOST)
        for number, one in enumerate(by_end):
            if number < beyond or self._ends_at[one] <= now:
                one.force_close()
