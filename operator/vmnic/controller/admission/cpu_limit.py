"""Limit on the CPU time that unauthenticated peers of the webhook may use."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["CpuLimit"]

_PER_S = 0.5
"""CPU seconds granted per second. With the burst, this is less than one CPU in any ten seconds."""
_BURST_S = 2.0


class CpuLimit:
    """Token bucket of CPU time, used by one thread.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._level_s = _BURST_S
        self._filled_at = clock()

    def charge(self, seconds: float) -> None:
        """Charge used CPU time to the bucket."""
        self._fill()
        # May go below zero, because the cost of a review is known only after it.
        self._level_s -= seconds

    @property
    def deficit_s(self) -> float:
        """Return the CPU time used beyond the limit, in seconds.

        It is 0 while the bucket holds tokens.
        """
        self._fill()
        return max(0.0, -self._level_s)

    def _fill(self) -> None:
        now = self._clock()
        self._level_s = min(_BURST_S, self._level_s + (now - self._filled_at) * _PER_S)
        self._filled_at = now
