"""Kubernetes Events (events.k8s.io/v1), written in the background and deduplicated.

An Event's name is derived from its content. A second writer of the same Event, also after a restart, therefore finds the first
one's object and only raises its count.
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
"""Limit on queued Events. Further ones are dropped, because statuses report the same."""
_PAUSE_S = 0.2
"""Pause between two writes, so that Events use few of the writes that the API server takes."""
_QUIET_S = 600.0
"""Interval within which an identical Event is not written again."""
_KNOWN = 2000
"""Number of Events that are remembered."""
_NAME_LENGTH = 230
"""The part of a name's 253 characters that the digest leaves."""
_NOTE_BYTES = 1024
"""The API server refuses longer notes. It counts bytes."""


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
    """Queues Events at once and writes them in the background.

    Args:
        api: The leader's client.
        instance: Unique name of this process.
    """

    def __init__(self, api: ApiClient, instance: str) -> None:
        self._api = api
        # The API server refuses a longer `reportingInstance`.
        self._instance = instance[:128]
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_WAITING)
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def tell(self, subject: Subject, kind: Literal["Normal", "Warning"], reason: str, action: str, note: str) -> None:
        """Queue an Event, unless an identical one was queued a short while ago.

        Args:
            subject: The object that it is about.
            kind: `Warning` if an administrator may have to act.
            reason: The reason, in CamelCase.
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
        """Write queued Events until cancelled.

        An Event that cannot be written is dropped.
        """
        while True:
            event = await self._queue.get()
            try:
                await self._write(event)
            except (ApiError, NotLeadingError) as error:
                _log.debug("an Event was not written: %s", error)
            except Exception:
                # An Event's text is partly foreign input, and one that cannot be sent must not end the task.
                _log.exception("an Event was not written")
            await asyncio.sleep(_PAUSE_S)

    async def _write(self, event: dict[str, Any]) -> None:
        meta = event["metadata"]
        try:
            await self._api.create(EVENTS, event, meta["namespace"])
        except ConflictError:
            # The API server refuses a series of fewer than two. Of an existing Event only the series may change.
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
            # Events of cluster-scoped objects belong in `default`, where `kubectl describe` looks for them.
            "metadata": {
                # A name that is cut after a dash or a dot would not be a DNS name, because a dot follows.
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
