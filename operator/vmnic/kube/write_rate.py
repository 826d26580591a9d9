"""Write rate that adapts to the API server. Pure.

It grows by a constant while the server answers quickly, and shrinks by a factor when the server refuses or slows down. So
several clients of one server converge to fair shares.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["WriteRate"]

_GROWTH_PER_S = 50.0
"""Writes per second that the rate gains in each second in which writes had to wait for it."""
_REFUSED, _SLOWER = 0.5, 0.8
"""Factors after a refusal, and after answers that became slower."""
_LIMITS = (0.1, 8.0)
"""Bounds of the rate, as multiples of the initial one."""
_BURST_S = 1.0
"""Time whose writes may be sent at once after a pause."""
_SETTLE_S = 1.0
"""Time without a further decrease. Until then, answers still tell of the rate before."""
_DEMAND_S = 1.0
"""Time after a write that had to wait during which the rate may grow. An unused rate has not been tested."""
_MAX_PAUSE_S = 30.0
"""Longest pause that the server may ask for."""
_WEIGHT = 0.05
"""Weight of the latest answer in the mean: about the last 20 answers count."""
_SLOW_RATIO = 4.0
"""Duration of answers, as a multiple of the shortest one, at which the server counts as slower."""
_SLOW_S = 0.05
"""Shorter answers never count as slow."""
_MEMORY_S = 60.0
"""Interval after which an older shortest duration is forgotten, in two steps."""


class WriteRate:
    """Tells each write how long to wait, first come, first served, and adapts to the answers.

    Args:
        per_s: Initial number of writes per second.
        clock: Returns the time in seconds.
    """

    def __init__(self, per_s: float, clock: Callable[[], float]) -> None:
        self.per_s = per_s
        """Current number of writes per second."""
        self._least, self._most = (per_s * limit for limit in _LIMITS)
        self._clock = clock
        self._full_at = 0.0
        """Time at which the writes of a whole burst are available again."""
        self._demanded_until = 0.0
        self._settled_at = 0.0
        self._slowness = 1.0
        """Mean duration of answers, as a multiple of the shortest one of their kind."""
        self._shortest: dict[str, float] = {}
        """Shortest duration of each kind of write in this interval."""
        self._shortest_before: dict[str, float] = {}
        """The same of the interval before."""
        self._forget_at = 0.0

    def reserve(self) -> float:
        """Take the place of one write, and return the seconds until it may be sent."""
        now = self._clock()
        # The place is taken before the wait, so that writers that wait keep their order.
        self._full_at = max(self._full_at, now) + 1 / self.per_s
        wait_s = max(0.0, self._full_at - now - _BURST_S)
        if wait_s > 0:
            self._demanded_until = now + wait_s + _DEMAND_S
        return wait_s

    def record_answer(self, kind: str, seconds: float) -> None:
        """Record an answer.

        Args:
            kind: Verb and kind of the write. A webhook makes one kind slower than another, so each is compared with itself.
            seconds: How long the answer took.
        """
        now = self._clock()
        self._slowness += _WEIGHT * (seconds / self._note_shortest(kind, seconds, now) - self._slowness)
        if self._slowness > _SLOW_RATIO and seconds > _SLOW_S:
            self._decrease(_SLOWER, now)
        elif now >= self._settled_at and now <= self._demanded_until:
            self.per_s = min(self._most, self.per_s + _GROWTH_PER_S / self.per_s)

    def record_refusal(self, retry_after_s: float | None = None) -> None:
        """Record that the server had no capacity for a write, or did not answer.

        Args:
            retry_after_s: Seconds that the server asks to wait. Until then, no write is sent.
        """
        now = self._clock()
        self._decrease(_REFUSED, now)
        pause_s = min(retry_after_s or 0.0, _MAX_PAUSE_S)
        # After the pause there is no burst, which the server would refuse again.
        self._full_at = max(self._full_at, now + pause_s + _BURST_S)

    def _decrease(self, factor: float, now: float) -> None:
        if now >= self._settled_at:
            self.per_s = max(self._least, self.per_s * factor)
            self._settled_at = now + _SETTLE_S
            # The mean tells of the rate before.
            self._slowness = 1.0

    def _note_shortest(self, kind: str, seconds: float, now: float) -> float:
        """Return the shortest duration of a kind in the last one to two intervals."""
        if now >= self._forget_at:
            self._shortest_before, self._shortest = self._shortest, {}
            self._forget_at = now + _MEMORY_S
        # A clock that stands still between two calls must not lead to a division by zero.
        shortest = self._shortest[kind] = max(min(self._shortest.get(kind, seconds), seconds), 1e-6)
        return min(shortest, self._shortest_before.get(kind, shortest))
