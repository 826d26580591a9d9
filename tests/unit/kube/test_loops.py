"""Work in another thread's loop, with its result, its end, and cancellation across threads."""

import asyncio
import threading
import time

import pytest

from vmnic.kube.loops import run_in_loop, run_in_thread


async def test_work_runs_in_the_named_thread():
    seen = []

    async def work():
        seen.append(threading.current_thread().name)

    await run_in_thread(work, "lease")
    assert seen == ["lease"]


async def test_exception_reaches_the_caller():
    async def work():
        raise KeyError("scripted")

    with pytest.raises(KeyError):
        await run_in_thread(work, "lease")


async def test_cancelled_caller_waits_for_the_end_of_the_work():
    begun, ended = threading.Event(), []

    async def work():
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            ended.append(True)

    task = asyncio.create_task(run_in_thread(work, "lease"))
    await asyncio.to_thread(begun.wait, 5)
    task.cancel()
    await asyncio.wait([task])
    assert (task.cancelled(), ended) == (True, [True])


async def test_thread_cancels_work_in_the_main_loop_and_waits():
    main, events = asyncio.get_running_loop(), []

    async def lead():
        events.append("leads")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("ends")

    async def lose():
        task = asyncio.create_task(run_in_loop(main, lead))
        while not events:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        events.append("released")

    await run_in_thread(lose, "lease")
    assert events == ["leads", "ends", "released"]


async def test_thread_continues_while_the_main_loop_is_busy():
    turns = []

    async def turn():
        while len(turns) < 20:
            turns.append(threading.get_ident())
            await asyncio.sleep(0.001)

    task = asyncio.create_task(run_in_thread(turn, "lease"))
    await asyncio.sleep(0)
    end = time.monotonic() + 10
    while len(turns) < 20 and time.monotonic() < end:
        pass
    assert len(turns) == 20
    await task
