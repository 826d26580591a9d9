"""Exponential backoff after consecutive failures."""

from __future__ import annotations

__all__ = ["Backoff", "exponential_backoff"]

_DOUBLINGS = 30
"""More doublings exceed every upper bound. A failure that lasts a day reaches a thousand, which overflows a float."""


def exponential_backoff(failures: int, bounds_s: tuple[float, float]) -> float:
    """Return the delay after earlier failures, in seconds.

    It is the lower bound, doubled for each failure, up to the upper bound.
    """
    first_s, longest_s = bounds_s
    return min(longest_s, first_s * 2.0 ** min(failures, _DOUBLINGS))


class Backoff:
    """Tracks consecutive failures by key.

    Nothing is persisted.

    Args:
        bounds_s: Shortest and longest delay, in seconds.
    """

    def __init__(self, bounds_s: tuple[float, float]) -> None:
        self._bounds_s = bounds_s
        self._failures: dict[str, tuple[int, float]] = {}
        """Number of consecutive failures, and the time until which the key waits."""

    def record_failure(self, key: str, now: float) -> None:
        """Record a failure.

        Each one doubles the delay.
        """
        count, _ = self._failures.get(key, (0, 0.0))
        self._failures[key] = (count + 1, now + exponential_backoff(count, self._bounds_s))

    def reset(self, key: str) -> None:
        """Remove the failures of a key after a success."""
        self._failures.pop(key, None)

    def is_active(self, key: str, now: float) -> bool:
        """Return whether a key still waits."""
        return key in self._failures and now < self._failures[key][1]
