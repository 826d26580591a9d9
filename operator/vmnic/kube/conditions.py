"""Merging of Kubernetes conditions.

A condition's transition time changes only with its status, so that identical conditions cause no write. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from ..api.common import Condition
from ..checked.moments import transition_time

__all__ = ["merged_conditions"]


def merged_conditions(old: Iterable[Condition], new: Iterable[Condition], *, now: datetime) -> list[Condition]:
    """Return the new conditions in their order.

    Each keeps its old transition time unless its status has changed.
    """
    present = {condition.type: condition for condition in old}
    return [
        one.model_copy(update={"last_transition_time": transition_time(present.get(one.type), one.status, now)}) for one in new
    ]
