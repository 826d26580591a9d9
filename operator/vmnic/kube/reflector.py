"""A cache of one kind: chunked list, watch with bookmarks, and a diff on every relist.

Only a projection of each object is kept, because 50,000 whole VMs do not fit. What cannot be read is not absent: while the
API server does not answer, the cache stays; one malformed object is set aside under `malformed` and harms no other.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, TypeVar

import msgspec

from .backoff import growing_pause
from .client import ApiClient
from .errors import ApiError, GoneError, NotFoundError
from .resources import Resource

__all__ = ["ObjectKey", "Reflector"]

_log = logging.getLogger(__name__)

T = TypeVar("T")

_WATCH_S = (240, 360)
"""A watch is asked for at random between these seconds, so that watches do not all end at once."""
_SILENT_S = 130.0
"""Bookmarks come about every minute; twice that without a byte is a dead connection."""
_BACKOFF_S = (0.2, 15.0)


class ObjectKey(NamedTuple):
    """Namespace (empty for cluster-wide kinds) and name."""

    namespace: str
    name: str


class _Meta(msgspec.Struct, rename="camel"):
    name: str
    namespace: str = ""
    resource_version: str = ""


class _Object(msgspec.Struct):
    metadata: _Meta


_identity = msgspec.json.Decoder(_Object)


class Reflector(Generic[T]):
    """Keeps `items` equal to what the API server has.

    Args:
        api: Its requests are reads only.
        resource: The kind.
        decode: Raw object to the projection that is kept; raises ValueError or msgspec's errors for a malformed object.
        on_change: Called with key, old and new projection where they differ; None stands for absent (or malformed). Both
            are None where one that was not known cannot be read, or cannot for another reason.
        selectors: `fieldSelector`, `labelSelector`.
        optional: The cluster need not have the kind (its CRD comes with somebody else's software): not found means none.
    """

    def __init__(
        self,
        api: ApiClient,
        resource: Resource,
        *,
        decode: Callable[[msgspec.Raw], T],
        on_change: Callable[[ObjectKey, T | None, T | None], None],
        selectors: Mapping[str, str] | None = None,
        optional: bool = False,
    ) -> None:
        self.items: dict[ObjectKey, T] = {}
        self.malformed: dict[ObjectKey, str] = {}
        """Objects that could not be decoded, with the reason."""
        self.synced = asyncio.Event()
        """Set once the first list is complete."""
        self.absent = False
        """Whether the server does not know the kind; its objects are gone with it."""
        self.resource = resource
        self._api = api
        self._decode = decode
        self._on_change = on_change
        self._selectors = selectors
        self._optional = optional
        self._version = ""
        self._failures = 0
        """Since the server was last heard."""

    async def run(self) -> None:
        """List and watch until cancelled; errors are logged and tried again with growing pauses."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except GoneError:
                self._version = ""
            except ApiError as error:
                if self._optional and isinstance(error, NotFoundError):
                    self.absent = True
                    self._version = ""
                    self.synced.set()
                pause_s = growing_pause(self._failures, _BACKOFF_S) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
                pause_s = error.retry_after_s or pause_s
                self._failures += 1
                _log.warning(
                    "watching %s failed, next try in %.1f s: %s",
                    self.resource.plural,
                    pause_s,
                    error.message,
                )
                await asyncio.sleep(pause_s)

    async def _list(self) -> None:
        """Take the whole list, then report what went meanwhile; the old cache serves until then."""
        seen: set[ObjectKey] = set()
        version = ""
        async for page, page_version in self._api.list_pages(self.resource, selectors=self._selectors):
            version = page_version
            seen.update(key for raw in page if (key := self._store(raw)) is not None)
            await asyncio.sleep(0)
        for key in [key for key in (*self.items, *self.malformed) if key not in seen]:
            self._drop(key)
        self._version = version
        self._failures = 0
        self.absent = False
        self.synced.set()

    async def _watch(self) -> None:
        lasts_s = random.randint(*_WATCH_S)  # noqa: S311 - spreads load
        events = self._api.watch(self.resource, self._version, selectors=self._selectors, lasts_s=lasts_s, silent_s=_SILENT_S)
        async for event in events:
            self._failures = 0
            meta = self._identify(event.raw, bookmark=event.type == "BOOKMARK")
            if meta is None:
                continue
            self._version = meta.resource_version
            if event.type == "DELETED":
                self._drop(ObjectKey(meta.namespace, meta.name))
            elif event.type != "BOOKMARK":
                self._store(event.raw)

    def _identify(self, raw: msgspec.Raw, *, bookmark: bool) -> _Meta | None:
        if bookmark:
            version = msgspec.json.decode(raw)["metadata"]["resourceVersion"]
            return _Meta(name="", resource_version=version)
        try:
            return _identity.decode(raw).metadata
        except msgspec.MsgspecError as error:
            _log.warning("an object of %s has no usable metadata: %s", self.resource.plural, error)
            return None

    def _store(self, raw: msgspec.Raw) -> ObjectKey | None:
        meta = self._identify(raw, bookmark=False)
        if meta is None:
            return None
        key = ObjectKey(meta.namespace, meta.name)
        old = self.items.get(key)
        try:
            new = self._decode(raw)
        except (msgspec.MsgspecError, ValueError, TypeError, KeyError) as error:
            self._set_aside(key, old, error)
            return key
        self.malformed.pop(key, None)
        if old != new:
            self.items[key] = new
            self._on_change(key, old, new)
        return key

    def _set_aside(self, key: ObjectKey, old: T | None, error: Exception) -> None:
        message = " ".join(str(error).split())[:300]
        is_news = self.malformed.get(key) != message
        if is_news:
            _log.warning("%s %s cannot be read, it is left alone: %s", self.resource.kind, "/".join(filter(None, key)), message)
        self.malformed[key] = message
        self.items.pop(key, None)
        if old is not None or is_news:
            self._on_change(key, old, None)

    def _drop(self, key: ObjectKey) -> None:
        self.malformed.pop(key, None)
        old = self.items.pop(key, None)
        if old is not None:
            self._on_change(key, old, None)
