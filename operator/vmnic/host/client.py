"""The agent's side of the host worker.

Every operation of a session has a deadline, after which the session can be abandoned.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from .codec import decode_error, decode_value, encode_op
from .launch import WorkerGoneError, WorkerProcess
from .ops import Op, Port, Value
from .ports import StillBlocked
from .socket import REPLY_BYTES

__all__ = [
    "HostAccess",
    "HostWorker",
    "LocalHost",
    "OperationTimedOutError",
    "Session",
    "WorkerGoneError",
    "WriteStillInFlightError",
    "perform_each",
]

_OPEN_S = 5.0
"""A fork and a lock take milliseconds. A worker that needs more seconds than this is gone."""
_START_S = 60.0
"""The first session also waits for the worker's imports, which take seconds on a slow machine."""
_LINE_BYTES = 4 * REPLY_BYTES
"""Longest reply in bytes. A dump of links cannot be divided and may be longer than other replies."""


class OperationTimedOutError(Exception):
    """The kernel did not answer in time. The session has ended, and its child is still in the kernel."""

    def __init__(self, op: Op, deadline_s: float, returned: asyncio.Future[None]) -> None:
        super().__init__(f"{op} did not return within {deadline_s:g} s")
        self.op = op
        self.returned = returned
        """Done once the kernel has answered late, or the child has ended."""


class WriteStillInFlightError(Exception):
    """A write session of an earlier agent or change still holds the PF's lock."""


class Session(Protocol):
    """One batch of operations."""

    async def perform(self, op: Op, *, deadline_s: float) -> Value:
        """Perform an operation.

        Raises:
            OSError: The kernel refused.
            OperationTimedOutError: The kernel did not answer in time.
            WorkerGoneError: The session's child ended.
        """
        ...

    async def perform_all(self, ops: Sequence[Op], *, deadline_s: float) -> list[Value | OSError]:
        """Perform operations in order and return the kernel's answers.

        A refusal does not stop the operations after it. Many reads take one round trip.

        Raises:
            OperationTimedOutError: Not all operations were answered in time.
            WorkerGoneError: The session's child ended.
        """
        ...


class HostAccess(Protocol):
    """Opens sessions on a host."""

    def session(self, pf: str, *, write: bool) -> AbstractAsyncContextManager[Session]:
        """Open a session named by a PF.

        A write session excludes other write sessions of the PF.

        Raises:
            WriteStillInFlightError: An earlier write has not returned.
        """
        ...


class HostWorker:
    """Opens sessions in the worker process."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process

    @asynccontextmanager
    async def session(self, pf: str, *, write: bool) -> AsyncIterator[Session]:
        """Open a session.

        Raises:
            WriteStillInFlightError: An earlier write to this PF has not returned.
            WorkerGoneError: The worker does not answer.
        """
        reader, writer = await asyncio.open_unix_connection(sock=self._process.ask(pf, write=write), limit=_LINE_BYTES)
        session = _WorkerSession(reader, writer)
        try:
            await _await_ready(reader, pf, _OPEN_S if self._process.has_answered else _START_S)
            self._process.has_answered = True
            yield session
        finally:
            # A late session ends by itself once the kernel answers. Waiting here would block the pass in the meantime.
            # A rollback opens the next write session at once, so it must find the lock free.
            if session.late is None:
                await session.end(awaited=write)


async def _await_ready(reader: asyncio.StreamReader, pf: str, patience_s: float) -> None:
    try:
        line = await asyncio.wait_for(reader.readline(), patience_s)
    except TimeoutError as error:
        raise WorkerGoneError(f"the host worker opened no session for {pf} within {patience_s:g} s") from error
    if not line:
        raise WorkerGoneError(f"the host worker opened no session for {pf}")
    if json.loads(line).get("in_flight"):
        raise WriteStillInFlightError(f"an earlier write to {pf} has not returned from the kernel")


class _WorkerSession:
    """A session in a child of the worker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.late: asyncio.Task[None] | None = None
        """Waits for the answer to an operation that was abandoned."""

    async def perform(self, op: Op, *, deadline_s: float) -> Value:
        """Perform an operation (see `Session`)."""
        reply = await self._ask({"op": encode_op(op)}, op, deadline_s)
        if "error" in reply:
            raise decode_error(reply["error"])
        return decode_value(reply["value"])

    async def perform_all(self, ops: Sequence[Op], *, deadline_s: float) -> list[Value | OSError]:
        """Perform operations in order (see `Session`)."""
        if not ops:
            return []
        # All replies come in one line, so it is unknown which operation is late. Errors name the first one.
        reply = await self._ask({"ops": [encode_op(op) for op in ops]}, ops[0], deadline_s)
        return [decode_error(one["error"]) if "error" in one else decode_value(one["value"]) for one in reply["replies"]]

    async def _ask(self, request: dict[str, Any], op: Op, deadline_s: float) -> dict[str, Any]:
        """Send a request and return its reply.

        `op` is the operation that errors name.
        """
        self._writer.write(json.dumps(request).encode() + b"\n")
        reading = asyncio.ensure_future(self._reader.readline())
        try:
            # The read continues after the deadline, because its end shows that the kernel has returned.
            line = await asyncio.wait_for(asyncio.shield(reading), deadline_s)
        except TimeoutError as error:
            self.late = asyncio.create_task(self._await_late(reading))
            raise OperationTimedOutError(op, deadline_s, self.late) from error
        except asyncio.CancelledError:
            # The shield would otherwise keep the read alive after its session.
            reading.cancel()
            raise
        except OSError as error:
            raise WorkerGoneError(f"the session's child ended: {error.strerror}") from error
        # StreamReader.readline raises it for a line above the limit.
        except ValueError as error:
            raise OSError(errno.EMSGSIZE, f"the reply to {op} has more than {_LINE_BYTES} bytes") from error
        if not line:
            raise WorkerGoneError(f"the session's child ended during {op}")
        return _parse(line, op)

    async def end(self, *, awaited: bool) -> None:
        """End the child.

        Once the child has ended, the lock of a write session is free. `awaited` waits for that.
        """
        with contextlib.suppress(OSError, TimeoutError):
            if awaited:
                self._writer.write_eof()
                async with asyncio.timeout(_OPEN_S):
                    await self._reader.read()
            self._writer.close()
            await self._writer.wait_closed()

    async def _await_late(self, reading: asyncio.Future[bytes]) -> None:
        # If the child died instead of answering, its call has ended too.
        with contextlib.suppress(OSError, ValueError):
            await reading
        await self.end(awaited=True)


def _parse(line: bytes, op: Op) -> dict[str, Any]:
    """Parse a reply.

    Raises:
        WorkerGoneError: The line is no reply, so the session is of no use.
    """
    try:
        reply: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise WorkerGoneError(f"the session's child gave no answer to {op}") from error
    return reply


async def perform_each(session: Session, ops: Sequence[Op], *, deadline_s: float) -> list[Value | OSError]:
    """Perform operations one by one, as `Session.perform_all` of a session without round trips."""
    answers: list[Value | OSError] = []
    for op in ops:
        try:
            answers.append(await session.perform(op, deadline_s=deadline_s))
        except OSError as error:
            answers.append(error)
    return answers


class LocalHost:
    """Access to a port in this process, for tests. A blocked operation times out at once, without a clock."""

    def __init__(self, port: Port) -> None:
        self._port = port

    @asynccontextmanager
    async def session(self, pf: str, *, write: bool) -> AsyncIterator[Session]:  # noqa: ARG002 - the protocol's names
        """Open a session."""
        yield _LocalSession(self._port)


class _LocalSession:
    def __init__(self, port: Port) -> None:
        self._port = port

    async def perform(self, op: Op, *, deadline_s: float) -> Value:
        """Perform an operation (see `Session`)."""
        try:
            return self._port.perform(op)
        except StillBlocked as error:
            raise OperationTimedOutError(op, deadline_s, asyncio.get_running_loop().create_future()) from error

    async def perform_all(self, ops: Sequence[Op], *, deadline_s: float) -> list[Value | OSError]:
        """Perform operations in order (see `Session`)."""
        return await perform_each(self, ops, deadline_s=deadline_s)
