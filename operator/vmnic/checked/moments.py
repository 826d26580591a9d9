"""Times as Kubernetes writes them (RFC 3339, in UTC, whole seconds)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

__all__ = ["format_time", "transition_time"]


class _Condition(Protocol):
    @property
    def status(self) -> str: ...
    @property
    def last_transition_time(self) -> str: ...


def format_time(moment: datetime) -> str:
    """Return a time such as `2026-01-01T00:00:00Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def transition_time(old: _Condition | None, status: str, now: datetime) -> str:
    """Return the transition time of a condition, which changes only with its status."""
    if old is not None and old.status == status and old.last_transition_time:
        return old.last_transition_time
    return format_time(now)
