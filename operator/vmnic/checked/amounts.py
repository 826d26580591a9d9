"""Numbers that users write as a number or as a percentage."""

from __future__ import annotations

import math

__all__ = ["resolve_percentage"]


def resolve_percentage(wanted: int | str, total: int, *, round_up: bool) -> int:
    """Convert a number or a percentage such as `10%` to a number of things, of which there are `total`."""
    if isinstance(wanted, int):
        return wanted
    share = total * int(wanted.removesuffix("%")) / 100
    return math.ceil(share) if round_up else math.floor(share)
