"""Notices that somebody puts our patches back, and gives in: nobody wins a fight with a GitOps tool.

Kept in memory by the leader: a new one may fight once more before it knows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...kube.reflector import ObjectKey

__all__ = ["Reverts"]

_REVERTS = 2
"""So many identical patches within the window are enough: each but the last was put back, and so was the last."""
_WINDOW_S = 3600.0
_PEACE_S = 86400.0


@dataclass(slots=True)
class _History:
    patch: str
    made: list[float] = field(default_factory=list)
    gave_in: float | None = None


class Reverts:
    """Counts identical patches of one VM; another patch (the policy or the NIC has changed) starts anew.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._histories: dict[ObjectKey, _History] = {}

    def allows(self, key: ObjectKey, patch: Sequence[dict[str, Any]]) -> bool:
        """Tell whether a VM may be patched; False for a day once the same patch was put back twice within an hour."""
        now, history = self._clock(), self._history(key, patch)
        if history.gave_in is not None:
            if now - history.gave_in < _PEACE_S:
                return False
            history.gave_in, history.made = None, []
        history.made = [at for at in history.made if now - at < _WINDOW_S]
        if len(history.made) >= _REVERTS:
            history.gave_in = now
            return False
        return True

    def remember(self, key: ObjectKey, patch: Sequence[dict[str, Any]]) -> None:
        """Note that a patch was made."""
        self._history(key, patch).made.append(self._clock())

    def forget(self, key: ObjectKey) -> None:
        """Drop what is known of a VM that is gone."""
        self._histories.pop(key, None)

    def _history(self, key: ObjectKey, patch: Sequence[dict[str, Any]]) -> _History:
        words = json.dumps(patch, sort_keys=True)
        history = self._histories.get(key)
        if history is None or history.patch != words:
            history = self._histories[key] = _History(words)
        return history
