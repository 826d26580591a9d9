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
_WEIGHT, _USUAL_WEIGHT = 0.05, 0.005
"""Weights of the latest answer in the recent and in the usual duration: about the last 20 and the last 200 answers count."""
_SLOW_RATIO, _MAX_RATIO = 2.5, 4.0
"""Recent duration, as a multiple of the usual one, at which the server counts as slower, and the most that one answer counts.

One stall of the server is no slowdown.
"""
_LEAST_S = 1e-6
"""Shortest duration. A clock may stand still between two calls."""
_SLOW_S = 0.05
"""Shorter answers never count as slow."""


class WriteRate:
    """Tells each write how long to wait, first come, first served, and adapts to the answers.

    Args:
        per_s: Initial number of writes per second.
        clock: Returns the time in seconds.
    """

    def __init__(self, per_s: float, clock: Callable[[], float]) -> None:
        self.per_s = per_s
        """Current number of writes per second."""
        self._initial = per_s
        self._least, self._most = (per_s * limit for limit in _LIMITS)
        self._clock = clock
        self._full_at = 0.0
        """Time at which the writes of a whole burst are available again."""
        self._demanded_until = 0.0
        self._settled_at = 0.0
        self._slowness = 1.0
        """Recent duration of answers, as a multiple of the usual one of their kind."""
        self._usual_s: dict[str, float] = {}

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
        usual_s = max(self._usual_s.setdefault(kind, seconds), _LEAST_S)
        self._usual_s[kind] = usual_s + _USUAL_WEIGHT * (seconds - usual_s)
        self._slowness += _WEIGHT * (min(seconds / usual_s, _MAX_RATIO) - self._slowness)
        if self._slowness > _SLOW_RATIO and seconds > _SLOW_S:
            # Only a refusal shows that the server cannot take the initial rate. Other load may have slowed it down too.
            self._decrease(_SLOWER, min(self._initial, self.per_s), now)
        elif now >= self._settled_at and now <= self._demanded_until:
            self.per_s = min(self._most, self.per_s + _GROWTH_PER_S / self.per_s)

    def record_refusal(self, retry_after_s: float | None = None) -> None:
        """Record that the server had no capacity for a write, or did not answer.

        Args:
            retry_after_s: Seconds that the server asks to wait. Until then, no write is sent.
        """
        now = self._clock()
        self._decrease(_REFUSED, self._least, now)
        pause_s = min(retry_after_s or 0.0, _MAX_PAUSE_S)
        # After the pause there is no burst, which the server would refuse again.
        self._full_at = max(self._full_at, now + pause_s + _BURST_S)

    def _decrease(self, factor: float, least: float, now: float) -> None:
        if now >= self._settled_at:
            self.per_s = max(least, self.per_s * factor)
            self._settled_at = now + _SETTLE_S
            # The recent duration tells of the rate before.
            self._slowness = 1.0
