"""The work queue: no key twice at once, order by rank, back-off."""

import asyncio
import contextlib

from vmnic.kube import workqueue as module
from vmnic.kube.errors import NotLeadingError
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


async def test_a_key_that_waits_is_not_added_twice():
    queue, seen = WorkQueue(), []

    async def look(key):
        seen.append(key)

    for key in ("a", "b", "a"):
        queue.add(key)
    async with working(queue, look):
        await until(lambda: len(seen) == 2)
    assert seen == ["a", "b"]


async def test_a_key_is_never_worked_on_twice_at_once_and_not_forgotten_either():
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


async def test_a_lower_rank_goes_first():
    queue, seen = WorkQueue(rank=lambda key: {"grant": 0, "vm": 1, "status": 2}[key]), []

    async def look(key):
        seen.append(key)

    for key in ("status", "vm", "grant"):
        queue.add(key)
    async with working(queue, look, workers=1):
        await until(lambda: len(seen) == 3)
    assert seen == ["grant", "vm", "status"]


async def test_a_failed_key_comes_back_and_harms_no_other(monkeypatch):
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


async def test_a_key_may_ask_for_a_later_look():
    queue, seen = WorkQueue(), []

    async def look(key):
        seen.append(key)
        return 0.001 if len(seen) < 3 else None

    queue.add("a")
    async with working(queue, look):
        await until(lambda: len(seen) == 3)


async def test_of_two_delays_the_earlier_counts():
    queue, seen = WorkQueue(), []

    async def look(key):
        seen.append(key)

    queue.add("a", 3600)
    queue.add("a", 0.001)
    queue.add("a", 3600)
    async with working(queue, look):
        await until(lambda: seen)


async def test_a_lost_lease_is_no_reason_to_try_again():
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


async def test_a_worker_whose_cancellation_was_swallowed_is_ended_all_the_same():
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
