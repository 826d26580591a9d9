"""Execution of a coroutine in the event loop of another thread, so that neither loop delays the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from .tasks import cancel_and_wait

__all__ = ["run_in_loop", "run_in_thread"]

_JOIN_S = 5.0

Work = Callable[[], Coroutine[Any, Any, None]]


async def run_in_thread(work: Work, name: str) -> None:
    """Run a coroutine in a new thread with its own event loop.

    Cancellation is passed on, and the coroutine's end is awaited.
    """
    loop = asyncio.new_event_loop()
    # A daemon, so that a thread that hangs does not keep the process from ending.
    thread = threading.Thread(target=_turn, args=(loop,), name=name, daemon=True)
    thread.start()
    try:
        await run_in_loop(loop, work)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        # The loop has nothing left to run, so this is short.
        thread.join(_JOIN_S)


async def run_in_loop(loop: asyncio.AbstractEventLoop, work: Work) -> None:
    """Run a coroutine in another thread's loop.

    Cancellation is passed on, and the coroutine's end is awaited.
    """
    here = asyncio.get_running_loop()
    ended: asyncio.Future[None] = here.create_future()
    # Cancelling the future of `run_coroutine_threadsafe` would return before the work has ended.
    stop = asyncio.Event()

    async def execute() -> None:
        task, stopped = asyncio.ensure_future(work()), asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait([task, stopped])
            here.call_soon_threadsafe(_hand_over, task, ended)

    asyncio.run_coroutine_threadsafe(execute(), loop)
    is_cancelled = False
    while not ended.done():
        try:
            await asyncio.wait([ended])
        # `cancel_and_wait` cancels repeatedly, and each time the end of the work still has to be awaited.
        except asyncio.CancelledError:
            is_cancelled = True
            loop.call_soon_threadsafe(stop.set)
    if is_cancelled or ended.cancelled():
        raise asyncio.CancelledError
    ended.result()


def _hand_over(task: asyncio.Future[None], ended: asyncio.Future[None]) -> None:
    """Copy the result of an ended task to a future of another loop."""
    if task.cancelled():
        ended.cancel()
    elif (error := task.exception()) is not None:
        ended.set_exception(error)
    else:
        ended.set_result(None)


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
