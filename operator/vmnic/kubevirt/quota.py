"""Remaining amounts of a namespace's ResourceQuotas."""

from __future__ import annotations

from collections.abc import Iterable

from ..checked.quantities import read_quantity
from .vm import Quota

__all__ = ["quota_left", "unreadable_quota"]

_MEMORY = ("memory", "requests.memory")
_DEVICE = "requests."


def unreadable_quota(quotas: Iterable[Quota]) -> str:
    """Return which quota has a quantity that cannot be read, and where, if any."""
    for quota in quotas:
        for field, quantities in (("spec.hard", quota.spec.hard), ("status.used", quota.status.used)):
            for key, value in quantities.items():
                if read_quantity(value) is None:
                    return f"ResourceQuota {quota.metadata.name} cannot be read: {field}[{key[:100]}] is not a quantity"
    return ""


def quota_left(quotas: Iterable[Quota]) -> dict[str, int]:
    """Return the remaining `memory` in bytes and the remaining number of each extended resource.

    If several quotas apply, the smallest amount counts.
    """
    left: dict[str, int] = {}
    for quota in quotas:
        for key, hard in quota.spec.hard.items():
            # Kubernetes takes `memory` in a quota as `requests.memory`, and limits devices by `requests.` only.
            name = "memory" if key in _MEMORY else key.removeprefix(_DEVICE)
            if name != "memory" and not (key.startswith(_DEVICE) and "/" in name):
                continue
            bound, used = read_quantity(hard), read_quantity(quota.status.used.get(key, 0))
            if bound is not None:
                # `unreadable_quota` reports a used amount that cannot be read, and no device is assigned then.
                left[name] = min(left.get(name, bound), bound - (used or 0))
    return left
