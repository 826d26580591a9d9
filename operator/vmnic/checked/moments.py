"""Times as Kubernetes writes them (RFC 3339, in UTC, whole seconds)."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["format_time"]


def format_time(moment: datetime) -> str:
    """Return a time such as `2026-01-01T00:00:00Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
