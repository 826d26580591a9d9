"""Bounds on the webhook's open connections, since anybody in the cluster's network may open them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

__all__ = ["ConnectionSweeper"]

_MOST = 512
_FIRST_REQUEST_S = 10.0
"""Time for the first request to arrive whole after the TLS handshake."""
_IDLE_S = 120.0
"""Longer than the 90 s of the API server, so that it is the one that closes an idle connection."""
_SWEEP_S = 1.0


class Connection(Hashable, Protocol):
    """Server side of one connection, as aiohttp has it."""

    def force_close(self) -> None:
        """Close the connection at once."""
        ...


class ConnectionSweeper:
    """Closes connections that send nothing, and the longest idle ones where there are too many.

    Args:
        connections: Returns the open connections.
        clock: Returns the time in seconds.
    """

    def __init__(self, connections: Callable[[], Sequence[Connection]], clock: Callable[[], float] = time.monotonic) -> None:
        self._connections = connections
        self._clock = clock
        self._ends_at: dict[Connection, float] = {}
        """When to close a connection unless a request arrives."""

    def note_request(self, connection: Connection) -> None:
        """Note that a whole request has arrived."""
        self._ends_at[connection] = self._clock() + _IDLE_S

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            self.sweep()
            await asyncio.sleep(_SWEEP_S)

    def sweep(self) -> None:
        """Close what is idle for too long, and what is beyond the most connections."""
        now = self._clock()
        present = self._connections()
        self._ends_at = {one: self._ends_at.get(one, now + _FIRST_REQUEST_S) for one in present}
        by_end = sorted(present, key=self._ends_at.__getitem__)
        beyond = max(0, len(present) - _MOST)
        for number, one in enumerate(by_end):
            if number < beyond or self._ends_at[one] <= now:
                one.force_close()
