"""How long what failed is left alone: a fault that lasts is met ever more seldom."""

from __future__ import annotations

__all__ = ["growing_pause"]

_DOUBLINGS = 30
"""More reach any longest pause; a float has no room for a thousand, which a fault of a day reaches."""


def growing_pause(failures: int, bounds_s: tuple[float, float]) -> float:
    """Give the seconds to wait after so many failures in a row before this one: the first bound, doubled up to the second."""
    first_s, longest_s = bounds_s
    return min(longest_s, first_s * 2.0 ** min(failures, _DOUBLINGS))
