"""Numbers that users write as a number or as a percentage."""

from __future__ import annotations

import math

__all__ = ["resolve_percentage"]


def resolve_percentage(wanted: int | str, total: int, *, round_up: bool) -> int:
    """Convert a number or a percentage such as `10%` to a number of things, of which there are `total`."""
    if isinstance(wanted, int):
        return wanted
    # The division comes last, so a whole result is exact: 100 * 0.07 is 7.000000000000001, which rounds up to 8.
    share = total * int(wanted.removesuffix("%")) / 100
    return math.ceil(share) if round_up else math.floor(share)
