"""Kernel calls that have not returned, which are this agent's and writes of the agent before it."""

from __future__ import annotations

import asyncio
import contextlib

from ...host.client import HostAccess, OperationTimedOutError, WorkerGoneError, WriteStillInFlightError
from ...host.ops import is_write
from ..journal import JournalError, JournalStore

__all__ = ["InFlightOperations"]


class InFlightOperations:
    """Kernel calls that have not returned. While one of them is a write, no further write starts."""

    def __init__(self) -> None:
        self.stuck: dict[str, asyncio.Future[None]] = {}
        """PFs with a write that has not returned."""
        self.silent: dict[str, asyncio.Future[None]] = {}
        """PFs with a read that has not returned."""
        self.in_flight: set[str] | None = None
        """PFs with a write of an earlier agent that has not returned. None until the first check."""

    @property
    def bus_stuck(self) -> bool:
        """Return whether a write has not returned.

        The kernel then holds a global lock, so no further write starts.
        """
        self.stuck = {address: returned for address, returned in self.stuck.items() if not returned.done()}
        return bool(self.stuck)

    @property
    def hanging(self) -> set[str]:
        """Return the PFs with a call that has not returned, where another call would hang too."""
        self.silent = {address: returned for address, returned in self.silent.items() if not returned.done()}
        return {*self.silent, *(self.stuck if self.bus_stuck else ())}

    @property
    def waits(self) -> bool:
        """Return whether a write of an earlier agent is still in flight.

        It may hold the kernel's lock, so no PCI write starts.
        """
        return bool(self.in_flight)

    def note_late(self, address: str, error: OperationTimedOutError) -> None:
        """Record a call that did not return in time.

        A late read does not prevent writes to other PFs.
        """
        (self.stuck if is_write(error.op) else self.silent)[address] = error.returned

    def note_in_flight(self, address: str) -> None:
        """Record that an earlier agent's write to a PF is still in flight."""
        self.in_flight = {address, *(self.in_flight or ())}

    async def forget_returned(self, host: HostAccess, store: JournalStore) -> None:
        """Check whether writes of an earlier agent have returned, and forget those that have."""
        try:
            # An earlier agent has journaled every PF before it wrote to it.
            known = store.load().pfs if self.in_flight is None else self.in_flight
        except JournalError:
            return  # No write starts then, and the pass reports why.
        self.in_flight = set(known)
        for address in sorted(known):
            # A write session's lock is free only once its child has ended. Without a worker that is unknown.
            with contextlib.suppress(WriteStillInFlightError, WorkerGoneError):
                async with host.session(address, write=True):
                    self.in_flight.discard(address)
