"""Reliable cancellation of tasks.

A library may swallow a cancellation: a worker whose request timed out in the same instant has been observed to continue as if
it had never been cancelled. So a task is cancelled repeatedly until it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

__all__ = ["cancel_and_wait", "run_together"]

_AGAIN_S = 0.5


async def cancel_and_wait(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait until all of them have ended.

    Their exceptions are not raised here.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_AGAIN_S)


async def run_together(*works: Coroutine[Any, Any, None]) -> None:
    """Run several coroutines until one fails or the caller is cancelled, then end all of them."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        # Not `gather`, because it waits for its parts when it is cancelled.
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        await cancel_and_wait(tasks)
