"""Kubernetes Events (events.k8s.io/v1): written beside the work, never instead of it, and the same news only once.

An Event is named by what it says, so a second writer of the same news, also after a restart, meets the first one's object and
only raises its count.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from ..checked.printable import cut, printable
from .client import ApiClient
from .errors import ApiError, ConflictError, NotLeadingError
from .resources import EVENTS

__all__ = ["Events", "Subject"]

_log = logging.getLogger(__name__)

_WAITING = 500
"""Events beyond so many are dropped: statuses say the same."""
_PAUSE_S = 0.2
"""Between two writes, so that Events take at most a tenth of the controller's write budget."""
_QUIET_S = 600.0
"""The same news is not written again within so long."""
_KNOWN = 2000
"""News that are remembered."""
_NAME_LENGTH = 230
"""Of the 253 characters of an object's name, what the digest leaves."""
_NOTE_BYTES = 1024
"""The API server refuses longer notes; it counts bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The object that an Event is about."""

    api_version: str
    kind: str
    name: str
    uid: str
    namespace: str = ""


@dataclass(slots=True)
class _Known:
    at: float
    count: int = 1


class Events:
    """Takes news at once and writes them in its own time.

    Args:
        api: Its writes are the leader's.
        instance: Unique name of this process.
    """

    def __init__(self, api: ApiClient, instance: str) -> None:
        self._api = api
        self._instance = instance[:128]
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_WAITING)
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def tell(self, subject: Subject, kind: Literal["Normal", "Warning"], reason: str, action: str, note: str) -> None:
        """Have an Event written, unless the same was told a short while ago.

        Args:
            subject: What it is about.
            kind: `Warning` where a person may have to act.
            reason: Why, in CamelCase.
            action: What was done, in CamelCase.
            note: A sentence.
        """
        event = self._event(subject, kind, reason, action, note)
        name = event["metadata"]["name"]
        known = self._known.get(name)
        if known is not None and time.monotonic() - known.at < _QUIET_S:
            return
        self._known[name] = _Known(time.monotonic(), known.count + 1 if known is not None else 1)
        self._known.move_to_end(name)
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(event)

    async def run(self) -> None:
        """Write until cancelled; an Event that cannot be written is dropped."""
        while True:
            event = await self._queue.get()
            try:
                await self._write(event)
            except (ApiError, NotLeadingError) as error:
                _log.debug("an Event was not written: %s", error)
            except Exception:
                # What an Event says is foreign input in part: one that cannot be sent must not end the task.
                _log.exception("an Event was not written")
            await asyncio.sleep(_PAUSE_S)

    async def _write(self, event: dict[str, Any]) -> None:
        meta = event["metadata"]
        try:
            await self._api.create(EVENTS, event, meta["namespace"])
        except ConflictError:
            count = max(2, self._known[meta["name"]].count if meta["name"] in self._known else 2)
            series = {"count": count, "lastObservedTime": event["eventTime"]}
            await self._api.patch_merge(EVENTS, meta["name"], {"series": series}, meta["namespace"])

    def _event(self, subject: Subject, kind: str, reason: str, action: str, note: str) -> dict[str, Any]:
        note = cut(printable(note), _NOTE_BYTES)
        digest = hashlib.sha256(f"{subject.uid}\x00{reason}\x00{note}".encode()).hexdigest()[:16]
        regarding = {"apiVersion": subject.api_version, "kind": subject.kind, "name": subject.name, "uid": subject.uid}
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            # Those of cluster-wide objects belong in `default`, where `kubectl describe` looks for them.
            "metadata": {
                "name": f"{subject.name[:_NAME_LENGTH].rstrip('-.')}.{digest}",
                "namespace": subject.namespace or "default",
            },
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": "vmnic.dev/controller",
            "reportingInstance": self._instance,
            "type": kind,
            "reason": reason,
            "action": action,
            "note": note,
            "regarding": regarding | ({"namespace": subject.namespace} if subject.namespace else {}),
        }
