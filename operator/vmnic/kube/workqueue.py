"""Keyed work queue with exponential backoff, which never works on the same key twice at once.

Only this module backs off. Keys of a lower rank go first, so that grants do not wait for VM patches, nor VM patches for
statuses. A key that uses up its time budget is set aside: it is not retried until it is readmitted.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
import time
from collections.abc import Callable, Coroutine, Hashable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from .backoff import exponential_backoff
from .errors import ApiError, ConflictError, InvalidError, NotLeadingError, TooManyRequestsError
from .set_aside import SetAsideReason
from .tasks import run_together
from .time_budget import Budget, OverBudgetError, run_within

__all__ = ["Observer", "WorkQueue"]

_log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
K_contra = TypeVar("K_contra", contravariant=True)
Reconcile = Callable[[K], Coroutine[Any, Any, float | None]]
"""Reconciles a key and returns the delay in seconds until the next time, or None if there need not be one."""

_BACKOFF_S = (0.05, 60.0)
_SLICE_S = 0.0003
"""Time without a wait after which a worker lets other tasks run, such as admission and watches."""
_URGENT_PAUSE_S, _URGENT_PAUSES = 0.001, 3
"""Length and largest number of pauses between two slices while there is urgent work."""
_OVERLOAD_DELAY_S = (0.1, 0.5)
"""Delay of a worker after a 429, in seconds (min, max)."""
_TOUCHED_S = 1.0
"""Delay after a key used up its budget while its object changed."""
_CONFLICTS_BEFORE_WARNING = 4
"""Conflicts in a row before a warning. A single one is normal."""
_BUDGET = Budget(1.0)


class Observer(Protocol[K_contra]):
    """Receiver of the queue's events."""

    def waited(self, key: K_contra, seconds: float) -> None:
        """Record how long a key was ready before a worker took it."""
        ...

    def worked(self, key: K_contra, seconds: float, error: BaseException | None) -> None:
        """Record that a worker has reconciled a key."""
        ...

    def set_aside(self, key: K_contra, reason: SetAsideReason, error: BaseException) -> None:
        """Record that a key used up its time budget or raised an unexpected exception."""
        ...

    def taken_back(self, key: K_contra) -> None:
        """Record that a key is no longer set aside."""
        ...


class WorkQueue(Generic[K]):
    """Keys to reconcile.

    Args:
        rank: Returns a key's rank. Lower ranks go first.
        observer: Receives the queue's events.
        describe: Returns the fields of log lines about a key.
        budget: Returns a key's time budget.
        has_urgent_work: Returns whether other threads have work that should go first, such as admission.
    """

    def __init__(
        self,
        rank: Callable[[K], int] = lambda _: 0,
        observer: Observer[K] | None = None,
        describe: Callable[[K], dict[str, str]] = lambda _: {},
        budget: Callable[[K], Budget] = lambda _: _BUDGET,
        has_urgent_work: Callable[[], bool] = lambda: False,
    ) -> None:
        self.set_aside: dict[K, str] = {}
        """Keys that used up their time budget, with the message. They are not retried until they are readmitted."""
        self._rank = rank
        self._observer = observer
        self._describe = describe
        self._budget = budget
        self._has_urgent_work = has_urgent_work
        self._order = itertools.count()
        self._ready: list[tuple[int, int, K, float]] = []
        """Rank, order, key, and when it became ready."""
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._unexpected: set[K] = set()
        """Keys whose last try raised an unexpected exception."""
        self._touched: set[K] = set()
        """Keys whose object changed while they were worked on."""
        self._wake = asyncio.Event()
        self._yield_at = 0.0
        self._yielding = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: K, after_s: float = 0.0) -> None:
        """Enqueue a key, at once or after a delay.

        The earliest request counts, and a key that is set aside is ignored.
        """
        if key in self.set_aside:
            return
        if after_s > 0:
            self._add_later(key, after_s)
            return
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            # The running number keeps keys of one rank in order, and keeps heapq from comparing keys, which may have no order.
            entry = (self._rank(key), next(self._order), key, time.monotonic())
            self._waiting.add(key)
            heapq.heappush(self._ready, entry)
            self._wake.set()

    def readmit(self, key: K) -> None:
        """Allow a key that is set aside to be added again, because its object has changed or is gone."""
        if key in self._working:
            # The running try reads the earlier version. If that uses up the budget, the new version still gets a try.
            self._touched.add(key)
        if self.set_aside.pop(key, None) is not None or key in self._unexpected:
            self._unexpected.discard(key)
            self._failures.pop(key, None)
            if self._observer is not None:
                self._observer.taken_back(key)

    def waiting(self) -> Iterator[K]:
        """Return the keys that are ready and not taken by a worker."""
        return (key for _, _, key, _ in list(self._ready))

    def clear(self) -> None:
        """Remove every key except those that are set aside."""
        for timer in self._timers.values():
            timer.cancel()
        # A key that is set aside would take as long in the next term of this replica.
        for collection in (self._ready, self._waiting, self._again, self._timers, self._failures):
            collection.clear()

    async def run(self, reconcile: Reconcile[K], workers: int) -> None:
        """Reconcile keys until cancelled.

        Args:
            reconcile: Reconciles one key and returns the seconds until the next time, or None.
            workers: Number of keys that are reconciled at a time.
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

    async def _work(self, reconcile: Reconcile[K]) -> None:
        while True:
            key = await self._take()
            try:
                # Before each key, so that after a key that uses up its budget the event loop gets a turn before the next one
                # does.
                await self._yield_to_loop()
                after_s = await self._try(key, reconcile)
            finally:
                self._working.discard(key)
            # A change during the try comes before the delay, because the try may have read the object before the change.
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif after_s is not None:
                # Through a timer even for 0. A key that is added at once would hold back all keys of later ranks.
                self.add(key, max(after_s, 0.001))

    async def _try(self, key: K, reconcile: Reconcile[K]) -> float | None:
        """Reconcile a key and return the delay until the next try, or None if there need not be one.

        No exception ends a worker, because an object may have caused it.
        """
        started = time.monotonic()
        try:
            after_s = await run_within(reconcile(key), self._budget(key))
        # The next leader reconciles everything.
        except NotLeadingError:
            return None
        # The coroutine is being closed. Any `await` from here on would be a RuntimeError.
        except GeneratorExit:
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            self._note(key, started, error)
            if isinstance(error, TooManyRequestsError):
                # All keys would fail alike, and the server asks for fewer requests at a time.
                await asyncio.sleep(random.uniform(*_OVERLOAD_DELAY_S))  # noqa: S311 - jitter
            return self._failed(key, error)
        self._failures.pop(key, None)
        self._note(key, started, None)
        # This withdraws the report of an earlier failure. It also marks the key as touched, because the key is still worked on.
        self.readmit(key)
        self._touched.discard(key)
        return after_s

    def _note(self, key: K, started: float, error: BaseException | None) -> None:
        if self._observer is not None:
            self._observer.worked(key, time.monotonic() - started, error)

    async def _yield_to_loop(self) -> None:
        """Yield to other tasks from time to time, because a key that needs no request never awaits by itself."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._yield_at:
            # One worker at a time. Otherwise each turn of the loop would last as long as the slices of all workers.
            async with self._yielding:
                await asyncio.sleep(0)
                # Not to any end, because there may always be a review.
                for _ in range(_URGENT_PAUSES):
                    if not self._has_urgent_work():
                        break
                    # This thread waits, so that the other threads have the interpreter for themselves.
                    await asyncio.sleep(_URGENT_PAUSE_S)
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
        self._touched.discard(key)
        return key

    def _failed(self, key: K, error: BaseException) -> float | None:
        """Return the delay until the next try, and report each failure once."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        if isinstance(error, OverBudgetError):
            return self._over_budget(key, error)
        pause_s = float(exponential_backoff(failures, _BACKOFF_S) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        if not isinstance(error, ApiError):
            self._unexpected.add(key)
            self._report(key, SetAsideReason.EXCEPTION, error)
            return pause_s
        subject = self._describe(key)
        # The API server answers 422 and not 409 if the `test` of a JSON Patch fails, so both may mean a stale cache.
        if isinstance(error, ConflictError | InvalidError) and failures < _CONFLICTS_BEFORE_WARNING:
            _log.debug("%s changed meanwhile, it is reconciled again", key, extra=subject)
        else:
            _log.warning("%s failed, next try in %.1f s: %s", key, pause_s, error.message, extra=subject)
        asked_s = min(error.retry_after_s or 0.0, _BACKOFF_S[1])
        # Jitter, because the server asks many clients to retry at the same time.
        return float(max(pause_s, asked_s * random.uniform(1.0, 2.0)))  # noqa: S311 - jitter

    def _over_budget(self, key: K, error: OverBudgetError) -> float | None:
        """Set a key aside.

        A key that is no single object is retried instead.
        """
        retry_s = self._budget(key).retry_s
        if key in self._touched:
            # The earlier version of the object took too long.
            self._touched.discard(key)
            self._unexpected.add(key)
            retry_s = _TOUCHED_S
        elif retry_s is None:
            self.set_aside[key] = str(error)
        else:
            self._unexpected.add(key)
        self._report(key, SetAsideReason.TIME, error)
        return retry_s

    def _report(self, key: K, reason: SetAsideReason, error: BaseException) -> None:
        if self._observer is not None:
            self._observer.set_aside(key, reason, error)


def _is_cancelled() -> bool:
    """Return whether this task was cancelled.

    Otherwise a CancelledError is a failure of the key.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
