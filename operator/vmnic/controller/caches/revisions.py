"""ControllerRevisions in which VMs keep their preferences and instancetypes.

Each is read when a VM that names it is decided. A watch would also return those of other programs, which may contain secrets.
The data of a ControllerRevision never change, so one that was read stays as long as a VM names it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import msgspec

from ...kube.errors import ApiError
from ...kube.reflector import ObjectKey
from ...kube.resources import CONTROLLER_REVISIONS, Resource
from ...kube.set_aside import SetAside, SetAsideReason
from ...kube.time_budget import Subject, time_budget
from ...kubevirt.revisions import Revision, read_revision

__all__ = ["RevisionCache"]

_AGAIN_S = 60.0
"""Delay before a ControllerRevision that could not be read is read again."""
_DECODE_S = 0.25
_SPARE = 1000
"""Entries beyond those that VMs name, for example of VMs that were only reviewed."""
_PASSING = (0, 429, 500, 502, 503, 504)
"""HTTP statuses that say nothing about the object."""


class _Reader(Protocol):
    async def read(self, resource: Resource, name: str, namespace: str = "") -> object: ...


class _Entry(NamedTuple):
    found: Revision | str
    """The revision, or why it cannot be read."""
    until: float
    """When it is read again."""


class RevisionCache:
    """ControllerRevisions that VMs name.

    Args:
        api: A client that is used for reads only.
        set_aside: Registry for revisions that cannot be decoded.
        is_named: Returns whether a stored VM names a revision.
        on_change: Called when something else is known about a revision.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        api: _Reader,
        set_aside: SetAside,
        is_named: Callable[[ObjectKey], bool],
        on_change: Callable[[ObjectKey], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._set_aside = set_aside
        self._is_named = is_named
        self._on_change = on_change
        self._clock = clock
        self._entries: dict[ObjectKey, _Entry] = {}
        self._equal: dict[bytes, Revision] = {}
        """One copy of equal revisions: most VMs keep the same few objects."""
        self._most = _SPARE

    def find(self, key: ObjectKey) -> Revision | str:
        """Return a revision, or why it cannot be read."""
        entry = self._entries.get(key)
        return entry.found if entry is not None else "has not been read yet"

    def knows(self, key: ObjectKey) -> bool:
        """Return whether a revision was read, successfully or not."""
        return key in self._entries

    async def load(self, keys: Iterable[ObjectKey]) -> float | None:
        """Read revisions that are not known yet.

        Returns:
            Seconds after which one of them should be read again, or None if all were read.

        Raises:
            ApiError: the API server does not answer.
        """
        again = math.inf
        for key in keys:
            entry = self._entries.get(key)
            if entry is None or entry.until <= self._clock():
                found = await self._read(key)
                entry = _Entry(found, self._clock() + _AGAIN_S if isinstance(found, str) else math.inf)
                self._put(key, entry)
            again = min(again, entry.until)
        return None if again == math.inf else max(again - self._clock(), 0.0)

    async def _read(self, key: ObjectKey) -> Revision | str:
        try:
            raw = await self._api.read(CONTROLLER_REVISIONS, key.name, key.namespace)
        except ApiError as error:
            if error.status in _PASSING:
                raise
            return f"cannot be read: {error.message}"
        if raw is None:
            return "does not exist"
        subject = Subject(CONTROLLER_REVISIONS.kind, "/".join(key))
        try:
            with time_budget(_DECODE_S, subject):
                found = read_revision(raw)
                if found is not None:
                    found = self._equal.setdefault(msgspec.json.encode(found), found)
        except Exception as error:
            self._set_aside.add(*subject, SetAsideReason.DECODE, str(error))
            return f"cannot be read: {str(error)[:300]}"
        self._set_aside.discard(*subject, SetAsideReason.DECODE)
        return found if found is not None else "contains no preference or instancetype"

    def _put(self, key: ObjectKey, entry: _Entry) -> None:
        before = self._entries.get(key)
        self._entries[key] = entry
        if before is None or before.found != entry.found:
            self._on_change(key)
        if len(self._entries) > self._most:
            self._forget_unnamed()

    def _forget_unnamed(self) -> None:
        """Remove revisions that no VM names.

        Tenants choose the names, so there is no other bound on their number.
        """
        for key in [key for key in self._entries if not self._is_named(key)]:
            del self._entries[key]
            self._set_aside.discard(CONTROLLER_REVISIONS.kind, "/".join(key))
        used = (entry.found for entry in self._entries.values() if isinstance(entry.found, Revision))
        self._equal = {msgspec.json.encode(one): one for one in used}
        # Doubled, so that the cost for each read stays small however many VMs there are.
        self._most = 2 * len(self._entries) + _SPARE
