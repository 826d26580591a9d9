"""Detection of clients that revert vmnic's patches, such as GitOps tools.

vmnic stops patching such a VM, because neither side would ever win. The record is kept in the VM's VmNicState, so that the next
leader does not repeat the patches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from ...api.vm_state import Reverts
from ...checked.moments import format_time

__all__ = ["digest_of", "is_suspended", "record_patch", "record_revert"]

_REVERTS = 2
"""Number of identical patches within the window after which vmnic stops. Each of them was reverted."""
_WINDOW = timedelta(hours=1)
_SUSPENSION = timedelta(days=1)


def digest_of(patch: Sequence[dict[str, Any]]) -> str:
    """Return a digest of what a patch writes.

    Tests, MAC addresses and annotations do not count.
    """
    # What is left out may differ between two patches that make the same change.
    written = [
        one for one in patch if one["op"] != "test" and "annotations" not in one["path"] and "macAddress" not in one["path"]
    ]
    return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()[:16]


def is_suspended(known: Reverts | None, digest: str, now: datetime) -> bool:
    """Return whether a change is suspended.

    It was reverted twice within an hour, less than a day ago.
    """
    return (
        known is not None and known.digest == digest and bool(known.yielded_at) and now - _time(known.yielded_at) < _SUSPENSION
    )


def record_revert(known: Reverts | None, digest: str, now: datetime, manager: str) -> Reverts | None:
    """Return the record that suspends a change, or None if it is suspended or was reverted too rarely."""
    if known is None or known.digest != digest or known.yielded_at or len(_recent(known, now)) < _REVERTS:
        return None
    return msgspec.structs.replace(known, yielded_at=format_time(now), manager=manager[:128])


def record_patch(known: Reverts | None, digest: str, now: datetime) -> Reverts:
    """Record that a change was made.

    A different change, because the policy or the NIC has changed, starts a new record.
    """
    before = _recent(known, now) if known is not None and known.digest == digest and not known.yielded_at else ()
    return Reverts(digest=digest, patched_at=(*before, format_time(now)))


def _recent(known: Reverts, now: datetime) -> tuple[str, ...]:
    return tuple(at for at in known.patched_at if now - _time(at) < _WINDOW)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
