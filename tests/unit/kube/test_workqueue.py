"""The work queue never works on a key twice at once, orders by rank, and backs off."""

import asyncio
import contextlib
import itertools
import time

import pytest

from vmnic.kube import workqueue as module
from vmnic.kube.errors import ApiError, NotLeadingError
from vmnic.kube.set_aside import SetAsideReason
from vmnic.kube.time_budget import Budget
from vmnic.kube.workqueue import WorkQueue


@contextlib.asynccontextmanager
async def working(queue, reconcile, workers=2):
    task = asyncio.create_task(queue.run(reconcile, workers))
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_waiting_key_is_not_added_twice():
    queue, seen = WorkQueue(), []

    async def look(key):
        seen.append(key)

    for key in ("a", "b", "a"):
        queue.add(key)
    async with working(queue, look):
        await until(lambda: len(seen) == 2)
    assert seen == ["a", "b"]


async def test_key_waits_as_long_as_the_server_asks(monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF_S", (0.001, 5.0))
    error = ApiError(status=503, reason="ServiceUnavailable", message="busy", retry_after_s=3.0)
    assert 3.0 <= WorkQueue()._failed("a", error) <= 6.0


async def test_key_is_never_worked_on_twice_at_once_nor_lost():
    queue, running, seen, most = WorkQueue(), set(), [], []

    async def look(key):
        assert key not in running
        running.add(key)
        if len(seen) < 5:
            queue.add(key)
        await asyncio.sleep(0)
        most.append(len(running))
        running.discard(key)
        seen.append(key)

    queue.add("a")
    async with working(queue, look, workers=4):
        await until(lambda: len(seen) == 6)
    assert max(most) == 1


async def test_urgent_work_goes_before_the_next_slice(monkeypatch):
    monkeypatch.setattr(module, "_SLICE_S", 0.0)
    monkeypatch.setattr(module, "_URGENT_PAUSES", 10**6)
    urgent, seen = [True], []

    async def look(key):
        seen.append(key)

    queue = WorkQueue(has_urgent_work=lambda: bool(urgent))
    queue.add("a")
    async with working(queue, look):
        for _ in range(20):
            await asyncio.sleep(0)
        assert seen == []
        urgent.clear()
        await until(lambda: seen == ["a"])


async def test_urgent_work_that_never_ends_does_not_stop_the_queue(monkeypatch):
    monkeypatch.setattr(module, "_SLICE_S", 0.0)
    asked, seen = [], []

    async def look(key):
        seen.append((key, len(asked)))

    queue = WorkQueue(has_urgent_work=lambda: asked.append(1) is None)
    for key in ("a", "b"):
        queue.add(key)
    async with working(queue, look, workers=1):
        await until(lambda: len(seen) == 2)
    assert seen == [("a", module._URGENT_PAUSES), ("b", 2 * module._URGENT_PAUSES)]


async def test_lower_rank_goes_first():
    queue, seen = WorkQueue(rank=lambda key: {"grant": 0, "vm": 1, "status": 2}[key]), []

    async def look(key):
        seen.append(key)

    for key in ("status", "vm", "grant"):
        queue.add(key)
    async with working(queue, look, workers=1):
        await until(lambda: len(seen) == 3)
    assert seen == ["grant", "vm", "status"]


async def test_failed_key_is_retried_and_affects_no_other(monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF_S", (0.001, 0.01))
    queue, seen = WorkQueue(), []

    async def look(key):
        seen.append(key)
        if seen.count("bad") < 4 and key == "bad":
            raise RuntimeError("scripted")

    queue.add("bad")
    queue.add("good")
    async with working(queue, look):
        await until(lambda: seen.count("bad") == 4)
    assert seen.count("good") == 1


async def test_key_may_ask_for_a_later_reconcile():
    queue, seen = WorkQueue(), []

    async def look(key):
        seen.append(key)
        return 0.001 if len(seen) < 3 else None

    queue.add("a")
    async with working(queue, look):
        await until(lambda: len(seen) == 3)


async def test_earlier_of_two_delays_counts():
    queue, seen = WorkQueue(), []

    async def look(key):
        seen.append(key)

    queue.add("a", 3600)
    queue.add("a", 0.001)
    queue.add("a", 3600)
    async with working(queue, look):
        await until(lambda: seen)


async def test_lost_lease_causes_no_retry():
    queue, seen = WorkQueue(), []

    async def look(key):
        seen.append(key)
        if key == "write":
            raise NotLeadingError("scripted")

    queue.add("write")
    queue.add("other")
    async with working(queue, look, workers=1):
        await until(lambda: "other" in seen)
        assert len(queue) == 0
    assert seen == ["write", "other"]


async def test_worker_whose_cancellation_was_swallowed_is_ended():
    queue, begun = WorkQueue(), asyncio.Event()

    async def look(key):
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()

    queue.add("a")
    task = asyncio.create_task(queue.run(look, 1))
    await begun.wait()
    task.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait([task])
    assert task.cancelled()


class Observer:
    """Records what the queue reports."""

    def __init__(self):
        self.events = []

    def waited(self, key, seconds):
        pass

    def worked(self, key, seconds, error):
        pass

    def set_aside(self, key, reason, error):
        self.events.append((key, reason))

    def taken_back(self, key):
        self.events.append((key, "taken back"))


def spin(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.fixture
def observer():
    return Observer()


@pytest.fixture
def queue(observer):
    return WorkQueue(observer=observer, budget=lambda key: Budget(0.05, retry_s=0.001 if key == "shared" else None))


async def test_key_over_its_budget_waits_until_it_is_readmitted(queue, observer):
    seen, slow = [], {"bad"}

    async def reconcile(key):
        seen.append(key)
        spin(30 if key in slow else 0)

    queue.add("bad")
    queue.add("good")
    async with working(queue, reconcile):
        await until(lambda: "good" in seen and queue.set_aside)
        queue.add("bad")
        queue.add("other")
        await until(lambda: "other" in seen)
        assert seen.count("bad") == 1
        slow.clear()
        queue.readmit("bad")
        queue.add("bad")
        await until(lambda: seen.count("bad") == 2)
    assert observer.events == [("bad", SetAsideReason.TIME), ("bad", "taken back")]


async def test_slow_key_whose_object_changes_is_retried(queue, monkeypatch):
    monkeypatch.setattr(module, "_TOUCHED_S", 0.001)
    seen = []

    async def reconcile(key):
        seen.append(key)
        if len(seen) == 1:
            queue.readmit(key)
            queue.add(key)
            spin(30)

    queue.add("bad")
    async with working(queue, reconcile):
        await until(lambda: len(seen) == 2)
    assert queue.set_aside == {}


async def test_key_that_is_no_object_is_retried_over_its_budget(queue, observer):
    seen = []

    async def reconcile(key):
        seen.append(key)
        spin(30 if len(seen) == 1 else 0)

    queue.add("shared")
    async with working(queue, reconcile):
        await until(lambda: len(seen) == 2 and len(observer.events) == 2)
    assert observer.events == [("shared", SetAsideReason.TIME), ("shared", "taken back")]


@pytest.mark.parametrize(
    "error",
    [RecursionError, MemoryError, OverflowError, SystemExit, KeyboardInterrupt, asyncio.CancelledError],
)
async def test_no_exception_of_a_key_ends_a_worker(queue, observer, monkeypatch, error):
    monkeypatch.setattr(module, "_BACKOFF_S", (0.001, 0.01))
    seen = []

    async def reconcile(key):
        seen.append(key)
        if seen.count("bad") < 3 and key == "bad":
            raise error

    queue.add("bad")
    async with working(queue, reconcile, workers=1):
        await until(lambda: seen.count("bad") == 3)
        queue.add("good")
        await until(lambda: "good" in seen)
    assert observer.events == [("bad", SetAsideReason.EXCEPTION)] * 2 + [("bad", "taken back")]


async def test_followers_forget_keys_but_not_set_aside_ones(queue):
    queue.set_aside["bad"] = "it took too long"
    queue.clear()
    queue.add("bad")
    assert len(queue) == 0


async def test_slow_keys_leave_the_loop_a_turn_after_each(queue):
    """Eight keys use up their budgets.

    Other tasks get a turn after each of them, not after all.
    """
    gaps = []

    async def reconcile(key):
        spin(30)

    for number in range(8):
        queue.add(number)
    async with working(queue, reconcile, workers=8):
        while len(queue.set_aside) < 8:
            await asyncio.sleep(0)
            gaps.append(len(queue.set_aside))
    assert all(after - before <= 1 for before, after in itertools.pairwise(gaps))
