"""Notices that somebody puts our patches back, and gives in: nobody wins a fight with a GitOps tool.

What is known is kept in the VM's VmNicState, so that the next leader need not fight again to learn it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from ...kubevirt.vm_state import Reverts

__all__ = ["digest_of", "is_suspended", "record_patch", "record_revert"]

_REVERTS = 2
"""So many identical patches within the window are enough: each but the last was put back, and so was the last."""
_WINDOW = timedelta(hours=1)
_SUSPENSION = timedelta(days=1)


def digest_of(patch: Sequence[dict[str, Any]]) -> str:
    """Name a change by what it writes; tests, MAC addresses and our own record do not count."""
    written = [
        one for one in patch if one["op"] != "test" and "annotations" not in one["path"] and "macAddress" not in one["path"]
    ]
    return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()[:16]


def is_suspended(known: Reverts | None, digest: str, now: datetime) -> bool:
    """Tell whether a change is not made any more: it was put back twice within an hour, less than a day ago."""
    return (
        known is not None and known.digest == digest and bool(known.yielded_at) and now - _time(known.yielded_at) < _SUSPENSION
    )


def record_revert(known: Reverts | None, digest: str, now: datetime, manager: str) -> Reverts | None:
    """Give what is known from now on if this is the moment to give in; None if it is not."""
    if known is None or known.digest != digest or known.yielded_at or len(_recent(known, now)) < _REVERTS:
        return None
    return msgspec.structs.replace(known, yielded_at=_text(now), manager=manager[:128])


def record_patch(known: Reverts | None, digest: str, now: datetime) -> Reverts:
    """Note that a change was made; another change (policy or NIC have changed) starts anew."""
    before = _recent(known, now) if known is not None and known.digest == digest and not known.yielded_at else ()
    return Reverts(digest=digest, patched_at=(*before, _text(now)))


def _recent(known: Reverts, now: datetime) -> tuple[str, ...]:
    return tuple(at for at in known.patched_at if now - _time(at) < _WINDOW)


def _text(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
