"""Registry of foreign objects that vmnic leaves alone because it cannot handle them.

One bad object costs only itself. A reflector reports what it cannot decode, the work queue what it cannot reconcile in
time or without an exception, a cache what it cannot evaluate. Each reports under its own reason, so that none withdraws
what another one found.
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
    """Handling it took longer than its time budget."""


_GRAVEST_FIRST = (SetAsideReason.TIME, SetAsideReason.DECODE, SetAsideReason.EXCEPTION)


class SetAsideObject(NamedTuple):
    """One object that is set aside."""

    kind: str
    """Its kind as in Kubernetes, such as `VirtualMachine`."""
    key: str
    """Its name, after `NAMESPACE/` where the kind has namespaces."""
    reason: SetAsideReason
    message: str


class SetAside:
    """The objects that are set aside now, and how many were since the process started.

    One thread writes; any thread may read.
    """

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str, SetAsideReason], SetAsideObject] = {}
        self._counts: Counter[tuple[str, SetAsideReason]] = Counter()

    def add(self, kind: str, key: str, reason: SetAsideReason, message: str, error: BaseException | None = None) -> bool:
        """Set an object aside; log and count it unless it is set aside for the same reason already.

        Args:
            kind: Its kind as in Kubernetes.
            key: Its name, after `NAMESPACE/` where the kind has namespaces.
            reason: Why.
            message: What is wrong, in a few words.
            error: An unexpected exception, whose traceback is logged.

        Returns:
            Whether this is news.
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
        """Take an object back, for one reason or for all; one that is not set aside is no error."""
        for one in SetAsideReason if reason is None else (reason,):
            self._objects.pop((kind, key, one), None)

    def find(self, kind: str, key: str) -> SetAsideObject | None:
        """Return the gravest entry of an object, None if it is not set aside."""
        found = (self._objects.get((kind, key, one)) for one in _GRAVEST_FIRST)
        return next((one for one in found if one is not None), None)

    def items(self) -> tuple[SetAsideObject, ...]:
        """Return all entries, ordered by kind and key."""
        return tuple(sorted(self._objects.copy().values()))

    def counts(self) -> dict[tuple[str, SetAsideReason], int]:
        """Return how often an object was set aside, by kind and reason."""
        return dict(self._counts.copy())
