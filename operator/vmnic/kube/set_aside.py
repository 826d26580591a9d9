"""Registry of foreign objects that vmnic leaves unchanged because it cannot handle them.

One malformed object affects only itself. A reflector reports objects that it cannot decode, the work queue those that it cannot
reconcile in time or without an exception, and a cache those that it cannot evaluate. Each reports under its own reason, so that
none withdraws another's report.
"""

from __future__ import annotations

import logging
from collections import Counter
from enum import StrEnum
from typing import NamedTuple

__all__ = ["SetAside", "SetAsideObject", "SetAsideReason"]

_log = logging.getLogger(__name__)

_MESSAGE_CHARS = 300


class SetAsideReason(StrEnum):
    """Why an object is set aside."""

    DECODE = "decode"
    """It cannot be decoded."""
    EXCEPTION = "exception"
    """Handling it raised an unexpected exception."""
    TIME = "time"
    """Handling it exceeded its time budget."""


# TIME is first, because admission and reflectors look for it in the result of `find`: no other entry may hide it.
_GRAVEST_FIRST = (SetAsideReason.TIME, SetAsideReason.DECODE, SetAsideReason.EXCEPTION)


class SetAsideObject(NamedTuple):
    """One object that is set aside."""

    kind: str
    """Its kind in Kubernetes, such as `VirtualMachine`."""
    key: str
    """Its name, prefixed with `NAMESPACE/` if the kind is namespaced."""
    reason: SetAsideReason
    message: str


class SetAside:
    """Objects that are set aside now, and counts since the process started.

    One thread writes, and any thread may read.
    """

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str, SetAsideReason], SetAsideObject] = {}
        self._counts: Counter[tuple[str, SetAsideReason]] = Counter()

    def add(self, kind: str, key: str, reason: SetAsideReason, message: str, error: BaseException | None = None) -> bool:
        """Set an object aside.

        It is logged and counted unless it is already set aside for this reason.

        Args:
            kind: Its kind in Kubernetes.
            key: Its name, prefixed with `NAMESPACE/` if the kind is namespaced.
            reason: Why it is set aside.
            message: What is wrong, in a few words.
            error: An unexpected exception, whose traceback is logged.

        Returns:
            Whether the object was not set aside for this reason before.
        """
        found = SetAsideObject(kind, key, reason, " ".join(message.split())[:_MESSAGE_CHARS])
        is_news = (kind, key, reason) not in self._objects
        self._objects[kind, key, reason] = found
        if not is_news:
            return False
        self._counts[kind, reason] += 1
        _log.error(
            "%s %s is set aside (%s) until it changes: %s", kind, key, reason.value, found.message, exc_info=error,
            extra={"kind": kind, "object": key},
        )  # fmt: skip
        return True

    def discard(self, kind: str, key: str, reason: SetAsideReason | None = None) -> None:
        """Remove an object's entry for one reason, or for all.

        A missing entry is no error.
        """
        for one in SetAsideReason if reason is None else (reason,):
            self._objects.pop((kind, key, one), None)

    def find(self, kind: str, key: str) -> SetAsideObject | None:
        """Return the most severe entry of an object, or None if it is not set aside."""
        found = (self._objects.get((kind, key, one)) for one in _GRAVEST_FIRST)
        return next((one for one in found if one is not None), None)

    def items(self) -> tuple[SetAsideObject, ...]:
        """Return all entries, ordered by kind and key."""
        # Other threads read this. A copy is one step for the interpreter, while a loop could meet a write.
        return tuple(sorted(self._objects.copy().values()))

    def counts(self) -> dict[tuple[str, SetAsideReason], int]:
        """Return how often objects were set aside, by kind and reason."""
        return dict(self._counts.copy())
