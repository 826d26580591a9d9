"""Limit on the CPU time that the webhook's peers may cost, for a webhook that cannot tell who they are."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["CpuLimit"]

_PER_S = 0.5
"""CPU time that is granted in each second; with the burst, less than one CPU in any ten seconds."""
_BURST_S = 2.0


class CpuLimit:
    """Token bucket of CPU time; used by one thread.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._level_s = _BURST_S
        self._filled_at = clock()

    def charge(self, seconds: float) -> None:
        """Take CPU time that was used out of the bucket."""
        self._fill()
        self._level_s -= seconds

    @property
    def deficit_s(self) -> float:
        """CPU time that was used beyond the limit; 0 while there is some left."""
        self._fill()
        return max(0.0, -self._level_s)

    def _fill(self) -> None:
        now = self._clock()
        self._level_s = min(_BURST_S, self._level_s + (now - self._filled_at) * _PER_S)
        self._filled_at = now
