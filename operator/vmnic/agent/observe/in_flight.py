"""Calls that have not returned from the kernel: this agent's, and writes of the agent before it."""

from __future__ import annotations

import asyncio
import contextlib

from ...host.client import HostAccess, OperationTimedOutError, WorkerGoneError, WriteStillInFlightError
from ...host.ops import is_write
from ..journal import JournalError, JournalStore

__all__ = ["InFlightOperations"]


class InFlightOperations:
    """What keeps further writes from being started."""

    def __init__(self) -> None:
        self.stuck: dict[str, asyncio.Future[None]] = {}
        """Functions with a write in the kernel that has not returned."""
        self.silent: dict[str, asyncio.Future[None]] = {}
        """Functions with a read in the kernel that has not returned."""
        self.in_flight: set[str] | None = None
        """Functions on which a write of an earlier agent has not returned; None: nobody has looked yet."""

    @property
    def bus_stuck(self) -> bool:
        """Whether a write has not returned: the kernel holds a global lock then, so no further one is started."""
        self.stuck = {address: returned for address, returned in self.stuck.items() if not returned.done()}
        return bool(self.stuck)

    @property
    def hanging(self) -> set[str]:
        """Functions with a call that has not returned: another one would hang too."""
        self.silent = {address: returned for address, returned in self.silent.items() if not returned.done()}
        return {*self.silent, *(self.stuck if self.bus_stuck else ())}

    @property
    def waits(self) -> bool:
        """Whether a write of an earlier agent goes on: it may have the kernel's lock, so no PCI write is started."""
        return bool(self.in_flight)

    def note_late(self, address: str, error: OperationTimedOutError) -> None:
        """Remember a call that has not returned in time; a read keeps nobody from writing to other functions."""
        (self.stuck if is_write(error.op) else self.silent)[address] = error.returned

    def note_in_flight(self, address: str) -> None:
        """Remember that an earlier agent's write to a function goes on."""
        self.in_flight = {address, *(self.in_flight or ())}

    async def forget_returned(self, host: HostAccess, store: JournalStore) -> None:
        """Look whether writes of an earlier agent have returned: their locks are free then."""
        try:
            known = store.load().pfs if self.in_flight is None else self.in_flight
        except JournalError:
            return  # Nothing is written then, and the pass says why.
        self.in_flight = set(known)
        for address in sorted(known):
            with contextlib.suppress(WriteStillInFlightError, WorkerGoneError):
                async with host.session(address, write=True):
                    self.in_flight.discard(address)
