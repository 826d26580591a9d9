"""A keyed work queue: one key is never worked on twice at once, and a failed key comes back later and later.

Back-off lives here and nowhere else. Keys of a lower rank go first, so that grants are not kept waiting by VM patches, nor
those by statuses.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator
from typing import Generic, Protocol, TypeVar

from .backoff import growing_pause
from .errors import ApiError, ConflictError, InvalidError, NotLeadingError, TooManyRequestsError
from .tasks import run_together

__all__ = ["Observer", "WorkQueue"]

_log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
K_contra = TypeVar("K_contra", contravariant=True)

_BACKOFF_S = (0.05, 60.0)
_SLICE_S = 0.0003
"""After so long without a wait a worker lets others have the loop: admission, the lease, watches."""
_CALM_S = (0.1, 0.5)
"""A worker whose request was turned away because of too many rests so long."""
_QUIET = 4
"""An object that changed meanwhile is no news; one that keeps doing so is."""


class Observer(Protocol[K_contra]):
    """Hears how the queue does."""

    def waited(self, key: K_contra, seconds: float) -> None:
        """A worker takes a key that was ready for so long."""
        ...

    def worked(self, key: K_contra, seconds: float, error: Exception | None) -> None:
        """A look at a key has ended."""
        ...


class WorkQueue(Generic[K]):
    """Keys to look at.

    Args:
        rank: Gives a key's place: lower goes first.
        observer: Hears of every look.
        describe: Gives the keys of log lines about a key.
    """

    def __init__(
        self,
        rank: Callable[[K], int] = lambda _: 0,
        observer: Observer[K] | None = None,
        describe: Callable[[K], dict[str, str]] = lambda _: {},
    ) -> None:
        self._rank = rank
        self._observer = observer
        self._describe = describe
        self._order = itertools.count()
        self._ready: list[tuple[int, int, K, float]] = []
        """Rank, order, key, and when it became ready."""
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._wake = asyncio.Event()
        self._yield_at = 0.0
        self._breathing = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: K, after_s: float = 0.0) -> None:
        """Ask for a look at a key, at once or later; of several, the earliest counts."""
        if after_s > 0:
            self._add_later(key, after_s)
            return
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            heapq.heappush(self._ready, (self._rank(key), next(self._order), key, time.monotonic()))
            self._wake.set()

    def waiting(self) -> Iterator[K]:
        """Give the keys that are ready and that no worker has taken."""
        return (key for _, _, key, _ in self._ready)

    def clear(self) -> None:
        """Forget every key."""
        for timer in self._timers.values():
            timer.cancel()
        for collection in (self._ready, self._waiting, self._again, self._timers, self._failures):
            collection.clear()

    async def run(self, reconcile: Callable[[K], Awaitable[float | None]], workers: int) -> None:
        """Work until cancelled.

        Args:
            reconcile: Looks at one key; gives seconds after which to look again, or None.
            workers: How many keys are worked on at a time.
        """
        await run_together(*(self._work(reconcile) for _ in range(workers)))

    def _add_later(self, key: K, after_s: float) -> None:
        loop = asyncio.get_running_loop()
        present = self._timers.get(key)
        if key in self._waiting or (present is not None and present.when() <= loop.time() + after_s):
            return
        if present is not None:
            present.cancel()
        self._timers[key] = loop.call_later(after_s, self.add, key)

    async def _work(self, reconcile: Callable[[K], Awaitable[float | None]]) -> None:
        while True:
            key = await self._take()
            started = time.monotonic()
            try:
                after_s = await reconcile(key)
                self._failures.pop(key, None)
                self._note(key, started, None)
            except NotLeadingError:
                after_s = None
            except Exception as error:
                self._note(key, started, error)
                after_s = self._failed(key, error)
                if isinstance(error, TooManyRequestsError):
                    # All keys would fail alike: fewer workers at a time is what the server asks for.
                    await asyncio.sleep(random.uniform(*_CALM_S))  # noqa: S311 - jitter
            finally:
                self._working.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif after_s is not None:
                self.add(key, max(after_s, 0.001))
            await self._breathe()

    def _note(self, key: K, started: float, error: Exception | None) -> None:
        if self._observer is not None:
            self._observer.worked(key, time.monotonic() - started, error)

    async def _breathe(self) -> None:
        """Let others have the loop once in a while, since a key that needs no request never waits by itself."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._yield_at:
            # One at a time, or each turn of the loop would be as long as all workers' slices.
            async with self._breathing:
                await asyncio.sleep(0)
                self._yield_at = loop.time() + _SLICE_S

    async def _take(self) -> K:
        while not self._ready:
            self._wake.clear()
            await self._wake.wait()
        _, _, key, since = heapq.heappop(self._ready)
        self._waiting.discard(key)
        if self._observer is not None:
            self._observer.waited(key, time.monotonic() - since)
        self._working.add(key)
        return key

    def _failed(self, key: K, error: Exception) -> float:
        """Log a failure once and say when to try again."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        pause_s = growing_pause(failures, _BACKOFF_S) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        subject = self._describe(key)
        if isinstance(error, ConflictError | InvalidError) and failures < _QUIET:
            _log.debug("%s changed meanwhile, looking again", key, extra=subject)
        elif isinstance(error, ApiError):
            _log.warning("%s failed, next try in %.1f s: %s", key, pause_s, error.message, extra=subject)
        else:
            _log.error("%s failed, next try in %.1f s", key, pause_s, exc_info=error, extra=subject)
        asked_s = (error.retry_after_s if isinstance(error, ApiError) else None) or 0.0
        # Many are told the same time to come back at.
        return float(max(pause_s, asked_s * random.uniform(1.0, 2.0)))  # noqa: S311 - jitter
