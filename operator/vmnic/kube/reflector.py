"""Cache of one kind, filled by a chunked list and a watch with bookmarks.

Every relist is compared with it. Only a projection of each object is kept, because 50,000 complete VMs would not fit into
memory. An object that cannot be read is not absent: while the API server does not answer, the cache stays. One malformed object
is set aside under `malformed` and affects no other, whichever exception its decoding or handling raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

import msgspec

from ..checked.documents import PRUNED, BoundError
from .backoff import exponential_backoff
from .client import ApiClient
from .errors import ApiError, GoneError, NotFoundError
from .resources import Resource
from .set_aside import SetAside, SetAsideReason
from .time_budget import Subject, time_budget

__all__ = ["ObjectKey", "Reflector"]

_log = logging.getLogger(__name__)

T = TypeVar("T")

_WATCH_S = (240, 360)
"""Duration of a watch in seconds, chosen at random, so that watches do not all end at once."""
_SILENT_S = 130.0
"""Bookmarks come about every minute, so silence for twice that time means a dead connection."""
_BACKOFF_S = (0.2, 15.0)
_SLICE = 20
"""Objects of a list that are decoded before the event loop gets a turn: about a millisecond."""
_DECODE_S = 0.25
"""CPU budget for decoding and for reporting one object. A VM of 1.5 MB takes some milliseconds."""
_FREE_RELISTS = 1
"""Consecutive relists without a pause. One expired version is normal, but a server may expire every one."""


class ObjectKey(NamedTuple):
    """Namespace (empty for cluster-scoped kinds) and name."""

    namespace: str
    name: str


class _Meta(msgspec.Struct, rename="camel"):
    name: str
    namespace: str = ""
    resource_version: str = ""


class _Object(msgspec.Struct):
    metadata: _Meta


# A bookmark has only a kind and a resourceVersion.
class _BookmarkMeta(_Meta, kw_only=True):
    name: str = ""


class _Bookmark(msgspec.Struct):
    metadata: _BookmarkMeta


_identity = msgspec.json.Decoder(_Object)
_bookmark = msgspec.json.Decoder(_Bookmark)


class Reflector(Generic[T]):
    """Keeps `items` equal to the API server's objects.

    Args:
        api: A client that is used for reads only.
        resource: The kind.
        decode: Converts a raw object to the projection that is kept. Any exception sets the object aside.
        on_change: Called with key, old and new projection if they differ. None stands for absent or malformed, and `malformed`
            tells which. `old` and `new` are both None if an object is malformed when first seen, or stays so with another
            error.
        selectors: `fieldSelector`, `labelSelector`.
        optional: Whether the cluster may lack the kind, because its CRD comes with other software. Not found then means no
            objects.
        salvage: Decodes the part of a malformed object that must still count, such as a VM's devices.
        set_aside: Registry for objects that cannot be decoded or handled.
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
        salvage: Callable[[msgspec.Raw], T] | None = None,
        set_aside: SetAside | None = None,
    ) -> None:
        self.items: dict[ObjectKey, T] = {}
        self.malformed: dict[ObjectKey, str] = {}
        """Objects that could not be decoded, with the error."""
        self.last_readable: dict[ObjectKey, T] = {}
        """Last readable projection of malformed objects, or what was salvaged of them."""
        self.synced = asyncio.Event()
        """Set once the first list is complete."""
        self.absent = False
        """Whether the API server does not serve the kind. Its objects are gone with it."""
        self.resource = resource
        self._api = api
        self._decode = decode
        self._on_change = on_change
        self._selectors = selectors
        self._optional = optional
        self._salvage = salvage
        self._set_aside = set_aside or SetAside()
        self._unreported: set[ObjectKey] = set()
        """Objects whose last change `on_change` could not handle."""
        self._version = ""
        self._failures = 0
        """Consecutive errors without an answer from the server."""
        self._relists = 0
        """Consecutive watches that ended because their version was too old."""

    def known(self) -> Iterator[tuple[ObjectKey, T]]:
        """Yield every readable object, and the last readable projection of malformed ones."""
        yield from self.items.items()
        yield from self.last_readable.items()

    def last(self, key: ObjectKey) -> T | None:
        """Return an object, or its last readable projection if it is malformed, or None if there is neither."""
        return self.last_readable.get(key) if key in self.malformed else self.items.get(key)

    async def run(self) -> None:
        """List and watch until cancelled.

        Errors are logged and retried with growing pauses.
        """
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except GoneError:
                self._version = ""
                self._relists += 1
                if self._relists > _FREE_RELISTS:
                    await asyncio.sleep(_pause_s(self._relists - _FREE_RELISTS))
            except ApiError as error:
                await self._rest(error)
            except Exception:
                # For example, the stream is no watch at all. The next list returns the server's objects.
                self._version = ""
                _log.exception("watching %s failed", self.resource.plural)
                await asyncio.sleep(_pause_s(self._failures))
                self._failures += 1

    async def _rest(self, error: ApiError) -> None:
        """Log an error and pause.

        A kind that is not served counts as an empty list.
        """
        is_missing = self._optional and isinstance(error, NotFoundError)
        pause_s = error.retry_after_s or _pause_s(self._failures)
        self._failures += 1
        if not is_missing:
            _log.warning("watching %s failed, next try in %.1f s: %s", self.resource.plural, pause_s, error.message)
        elif not self.absent:
            _log.warning("the API server does not serve %s.%s: there are none", self.resource.plural, self.resource.group)
        if is_missing:
            self.absent = True
            self._version = ""
            self._drop_all_but(set())
            self.synced.set()
        await asyncio.sleep(pause_s)

    async def _list(self) -> None:
        """Read the complete list, then report deletions.

        The old cache serves until then.
        """
        seen: set[ObjectKey] = set()
        version = ""
        async for page, page_version in self._api.list_pages(self.resource, selectors=self._selectors):
            # All pages of a list have the same resourceVersion, so a watch from it misses no change between two pages.
            version = page_version
            for start in range(0, len(page), _SLICE):
                seen.update(key for raw in page[start : start + _SLICE] if (key := self._store(raw)) is not None)
                # Decoding holds the event loop, which in the controller has admission reviews to answer.
                await asyncio.sleep(0)
        # Only after the last page. Until then, an object that was not seen may be on a later page.
        self._drop_all_but(seen)
        self._version = version
        self._failures = 0
        self.absent = False
        self.synced.set()

    def _drop_all_but(self, seen: set[ObjectKey]) -> None:
        for key in [key for key in (*self.items, *self.malformed) if key not in seen]:
            self._drop(key)

    async def _watch(self) -> None:
        lasts_s = random.randint(*_WATCH_S)  # noqa: S311 - spreads load
        events = self._api.watch(self.resource, self._version, selectors=self._selectors, lasts_s=lasts_s, silent_s=_SILENT_S)
        async for event in events:
            # Only an event proves that the watch works. If a connection counted, a server that fails each watch at once would
            # be asked without a pause.
            self._failures = self._relists = 0
            meta = self._identify(event.raw, bookmark=event.type == "BOOKMARK")
            if meta is None:
                continue
            self._version = meta.resource_version
            if event.type == "DELETED":
                self._drop(ObjectKey(meta.namespace, meta.name))
            elif event.type != "BOOKMARK":
                self._store(event.raw)

    def _identify(self, raw: msgspec.Raw, *, bookmark: bool) -> _Meta | None:
        try:
            return (_bookmark if bookmark else _identity).decode(raw).metadata
        except Exception as error:  # RecursionError, for example; one object must not end the watch
            _log.warning("an object of %s has no usable metadata: %s", self.resource.plural, _words(error))
            return None

    def _store(self, raw: msgspec.Raw) -> ObjectKey | None:
        meta = self._identify(raw, bookmark=False)
        if meta is None:
            return None
        # Many objects have the same namespace, and the key of each one stays.
        key = ObjectKey(sys.intern(meta.namespace), meta.name)
        old = self.items.get(key)
        try:
            with time_budget(_DECODE_S, self._subject(key)):
                self._check_blame(key)
                _check_whole(raw)
                # Comparing walks through the object too, so it is within the budget. An object that is set aside is reported
                # for any new version, also an equal one, so that the queue tries it again.
                new = self._decode(raw)
                is_news = old != new or self._set_aside.find(self.resource.kind, _name(key)) is not None
        except Exception as error:
            self._put_aside(key, old, raw, error)
            return key
        was_aside = self.malformed.pop(key, None) is not None
        if was_aside:
            self.last_readable.pop(key, None)
            self._set_aside.discard(self.resource.kind, _name(key), SetAsideReason.DECODE)
        if is_news or was_aside:
            self.items[key] = new
            self._report(key, old, new)
        return key

    def _subject(self, key: ObjectKey) -> Subject:
        return Subject(self.resource.kind, _name(key))

    def _check_blame(self, key: ObjectKey) -> None:
        """Refuse an object that stalled the previous run of the process, until it changes.

        Decoding it may have been the cause.
        """
        blamed = self._set_aside.find(*self._subject(key)) if not self.synced.is_set() else None
        if blamed is not None and blamed.reason is SetAsideReason.TIME:
            raise BoundError(blamed.message)

    def _put_aside(self, key: ObjectKey, old: T | None, raw: msgspec.Raw, error: Exception) -> None:
        message = _words(error)
        is_news = self.malformed.get(key) != message
        self._set_aside.add(self.resource.kind, _name(key), SetAsideReason.DECODE, message)
        self.malformed[key] = message
        self.items.pop(key, None)
        if old is not None:
            self.last_readable[key] = old
        # A version that was readable before says more than what can be salvaged now.
        elif self._salvage is not None and key not in self.last_readable:
            with contextlib.suppress(Exception), time_budget(_DECODE_S, self._subject(key)):
                self.last_readable[key] = self._salvage(raw)
        if old is not None or is_news:
            self._report(key, old, None)

    def _drop(self, key: ObjectKey) -> None:
        was_aside = self.malformed.pop(key, None) is not None
        self.last_readable.pop(key, None)
        self._set_aside.discard(self.resource.kind, _name(key))
        old = self.items.pop(key, None)
        if old is not None or was_aside:
            self._report(key, old, None)

    def _report(self, key: ObjectKey, old: T | None, new: T | None) -> None:
        """Report a change.

        An exception in the handler affects only this object.
        """
        try:
            with time_budget(_DECODE_S, self._subject(key)):
                self._on_change(key, old, new)
        except Exception as error:
            self._unreported.add(key)
            self._set_aside.add(self.resource.kind, _name(key), SetAsideReason.DECODE, _words(error), error)
        else:
            if key in self._unreported:
                self._unreported.discard(key)
                self._set_aside.discard(self.resource.kind, _name(key), SetAsideReason.DECODE)


def _check_whole(raw: msgspec.Raw) -> None:
    # `prune` leaves this marker where it cut something off. An object without one of its parts must not be decided on.
    if PRUNED in memoryview(raw).tobytes():
        raise BoundError("it is nested more than 200 levels deep: remove what is nested")


def _pause_s(failures: int) -> float:
    return exponential_backoff(failures, _BACKOFF_S) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter


def _words(error: Exception) -> str:
    """Return an exception as one line of at most 300 characters."""
    return " ".join((str(error) or type(error).__name__).split())[:300]


def _name(key: ObjectKey) -> str:
    return "/".join(filter(None, key))
