"""Ends tasks for certain.

A library may swallow a cancellation: a worker whose request timed out in the same instant has been seen to go on as if it had
never been cancelled. So a task is cancelled until it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

__all__ = ["cancel_and_wait", "run_together"]

_AGAIN_S = 0.5


async def cancel_and_wait(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait until every one of them has ended; what they raise is theirs."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_AGAIN_S)


async def run_together(*works: Coroutine[Any, Any, None]) -> None:
    """Run several works until one fails or the caller is cancelled; then all of them are ended."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        # Not `gather`: a cancelled one waits for its parts.
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        await cancel_and_wait(tasks)
