"""A wrapper around a port that numbers operations, counts writes and injects faults."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from vmnic.host.ops import Op, Port, Value, is_write
from vmnic.host.ports import StillBlocked

__all__ = ["Fault", "FaultyPort", "Killed", "When"]


class Killed(BaseException):
    """The process was killed here. It is no Exception, so that no handler treats it as a failure."""


class When(StrEnum):
    """When a fault takes effect."""

    BEFORE = "before"
    """The operation does not reach the kernel."""
    DURING = "during"
    """The process dies with the operation in the kernel, which executes it later (`FaultyPort.finish`)."""
    AFTER = "after"
    """The operation takes effect, but its answer is lost."""
    HANG = "hang"
    """The kernel does not answer."""
    ERRNO = "errno"
    """The kernel refuses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault, at the n-th operation (from 1) or at every operation that matches."""

    when: When
    at: int | None = None
    matches: Callable[[Op], bool] | None = None
    errno: int = 0

    def strikes(self, number: int, op: Op) -> bool:
        """Return whether the fault affects this operation."""
        return number == self.at or (self.matches is not None and self.matches(op))


class FaultyPort:
    """A port with a log of operations, and with faults."""

    def __init__(self, port: Port, faults: Sequence[Fault] = ()) -> None:
        self._port = port
        self.faults = list(faults)
        self.log: list[Op] = []
        self.in_flight: list[Op] = []
        """Operations that the kernel has not executed yet."""

    @property
    def writes(self) -> list[Op]:
        """Return the operations that change the host, in order."""
        return [op for op in self.log if is_write(op)]

    def finish(self) -> None:
        """Let the kernel execute the operations in flight, even if the process that started them is dead."""
        for op in self.in_flight:
            # The process that would get the refusal is dead.
            with contextlib.suppress(OSError):
                self._port.perform(op)
        self.in_flight.clear()

    def perform(self, op: Op) -> Value:
        """Perform an operation, or inject a fault.

        Raises:
            Killed: The process dies here.
            StillBlocked: The kernel does not answer.
            OSError: The kernel refused.
        """
        self.log.append(op)
        fault = next((fault for fault in self.faults if fault.strikes(len(self.log), op)), None)
        if fault is None:
            return self._port.perform(op)
        match fault.when:
            case When.BEFORE:
                raise Killed
            case When.DURING:
                self.in_flight.append(op)
                raise Killed
            case When.AFTER:
                with contextlib.suppress(OSError):
                    self._port.perform(op)
                raise Killed
            case When.HANG:
                raise StillBlocked
            case When.ERRNO:
                raise OSError(fault.errno, "injected")
