"""Exponential backoff: how long to wait before the next try after several failures in a row."""

from __future__ import annotations

__all__ = ["Backoff", "exponential_backoff"]

_DOUBLINGS = 30
"""Further doublings exceed every upper bound; a fault of one day reaches a thousand, for which a float has no room."""


def exponential_backoff(failures: int, bounds_s: tuple[float, float]) -> float:
    """Return the seconds to wait after earlier failures: the lower bound, doubled for each of them up to the upper bound."""
    first_s, longest_s = bounds_s
    return min(longest_s, first_s * 2.0 ** min(failures, _DOUBLINGS))


class Backoff:
    """Tracks consecutive failures by key; nothing is persisted.

    Args:
        bounds_s: Shortest and longest delay, in seconds.
    """

    def __init__(self, bounds_s: tuple[float, float]) -> None:
        self._bounds_s = bounds_s
        self._failures: dict[str, tuple[int, float]] = {}
        """Number of consecutive failures, and the time until which the key waits."""

    def record_failure(self, key: str, now: float) -> None:
        """Record a failure; each one doubles the delay."""
        count, _ = self._failures.get(key, (0, 0.0))
        self._failures[key] = (count + 1, now + exponential_backoff(count, self._bounds_s))

    def reset(self, key: str) -> None:
        """Forget the failures of a key, because a try has succeeded."""
        self._failures.pop(key, None)

    def is_active(self, key: str, now: float) -> bool:
        """Return whether a key still waits."""
        return key in self._failures and now < self._failures[key][1]
