"""Time budgets for code on the event loop, so that foreign input cannot block everything else.

A budget counts the CPU time of the main thread, so that load on the machine does not set objects aside by mistake. When it is
used up, a signal handler raises in the running code. A call of C code ends first; the watchdog handles one that never ends.
Code in other threads blocks nothing, so a budget has no effect there.
"""

from __future__ import annotations

import gc
import signal
import threading
import time
import types
from collections.abc import Callable, Coroutine, Generator
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Self, TypeVar

__all__ = ["Budget", "OverBudgetError", "Subject", "record_subjects", "run_within", "time_budget", "uncharged"]

T = TypeVar("T")

# ITIMER_VIRTUAL rather than ITIMER_REAL, because it stops while other processes have the CPU.
_TIMER, _SIGNAL = signal.ITIMER_VIRTUAL, signal.SIGVTALRM
_AGAIN_S = 0.05
"""The code may swallow the exception, for example in a `__del__`. It is then raised again after this time."""
_SOON_S = 0.001
_UNINTERRUPTED = frozenset({__name__, "vmnic.kube.workqueue", "vmnic.kube.set_aside"})
_UNINTERRUPTED_PACKAGES = frozenset({"asyncio", "heapq", "importlib", "_frozen_importlib", "logging", "threading", "weakref"})
"""An exception between two statements of these modules would leave a lock held or a structure inconsistent."""


class Subject(NamedTuple):
    """The object that code decides about, as the registry of set-aside objects names it."""

    kind: str
    key: str


class Budget(NamedTuple):
    """CPU time that reconciling one key may take between two awaits."""

    seconds: float
    subject: Subject | None = None
    retry_s: float | None = None
    """Delay before the next try of a key that is no single object. None means that the key waits until it is readmitted."""


class OverBudgetError(Exception):
    """Code used up its time budget."""


class _Alarm(BaseException):
    """The exception that is raised in the running code.

    No `except Exception` catches it.
    """

    def __init__(self, budget: time_budget) -> None:
        super().__init__(f"more than {budget.seconds} s of CPU time")
        self.budget = budget


_open: list[time_budget] = []
"""Running budgets, the outermost first."""
_collections: list[float] = []
"""Start time of the running garbage collection, if there is one."""
_state: dict[str, Callable[[Subject | None], None]] = {}


class time_budget:  # noqa: N801 - used like a function
    """Raise OverBudgetError at the end of the block if the block used up its CPU time.

    The block must not contain `await` or `yield`. In a nested block, the outer budget keeps counting.

    Args:
        seconds: CPU time of the main thread.
        subject: The object that the block decides about. The watchdog blames it for a block that never ends.
    """

    __slots__ = ("_counts", "deadline", "fired", "seconds", "subject")

    def __init__(self, seconds: float, subject: Subject | None = None) -> None:
        self.seconds = seconds
        self.subject = subject
        self.deadline = 0.0
        self.fired = False
        self._counts = False

    def __enter__(self) -> Self:
        if threading.get_ident() != threading.main_thread().ident:
            return self
        self._counts = True
        # Not at import, because Python sets signal handlers in the main thread only.
        _install()
        now = time.thread_time()
        self.deadline = now + self.seconds
        _open.append(self)
        if self.subject is not None:
            _record()
        _arm(now)
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        if not self._counts:
            return
        _open.pop()
        _arm()
        if self.subject is not None:
            _record()
        # A cancellation or an exit must reach the caller, also from a block that is over its budget.
        is_foreign = error is not None and not isinstance(error, Exception | _Alarm)
        # The alarm of an outer block passes through to the block that it belongs to.
        is_outer = isinstance(error, _Alarm) and error.budget is not self
        # Also without an error: the block may have swallowed the alarm.
        if self.fired and not is_foreign and not is_outer:
            raise OverBudgetError(f"it took more than {self.seconds:g} s of CPU time") from error


class uncharged:  # noqa: N801 - used like a function
    """Exclude the block from the budgets around it.

    Work for all objects must not be charged to the one that happens to need it first.
    """

    __slots__ = ("_outer", "_started")

    def __enter__(self) -> None:
        self._outer: list[time_budget] = []
        if threading.get_ident() == threading.main_thread().ident:
            self._started = time.thread_time()
            self._outer[:], _open[:] = _open[:], []
            _record()
            _arm()

    def __exit__(self, *_: object) -> None:
        if self._outer:
            _extend(self._outer, time.thread_time() - self._started)
            _open[:] = self._outer
            _record()
            _arm()


# A generator, because an `async def` could not enter and leave the budget around each step of `work`.
@types.coroutine
def run_within(work: Coroutine[Any, Any, T], budget: Budget) -> Generator[Any, Any, T]:
    """Await a coroutine with a time budget around each step, which is the code between two awaits.

    Raises:
        OverBudgetError: a step used up the budget. What the coroutine then awaits to clean up is still awaited.
    """
    over: OverBudgetError | None = None
    resume: Callable[[Any], Any] = work.send
    value: Any = None
    while True:
        is_suspended = False
        try:
            with time_budget(budget.seconds, budget.subject):
                yielded = resume(value)
                is_suspended = True
        except StopIteration as end:
            if over is not None:
                raise over from None
            return end.value  # type: ignore[no-any-return]  # what a coroutine returns is a T
        except (Exception, _Alarm) as error:
            # The step swallowed the alarm and then awaited something, perhaps to clean up. It goes on, and fails at its end.
            if is_suspended and isinstance(error, OverBudgetError):
                over = error
            elif over is not None:
                raise over from error
            else:
                raise
        try:
            value, resume = (yield yielded), work.send
        # A cancellation of the task arrives at this `yield`, and is for the coroutine.
        except BaseException as error:
            value, resume = error, work.throw


def record_subjects(record: Callable[[Subject | None], None]) -> None:
    """Call `record` whenever the object that is decided about changes.

    None stands for no object.
    """
    _state["record"] = record


def _record() -> None:
    record = _state.get("record")
    if record is not None:
        record(next((budget.subject for budget in reversed(_open) if budget.subject is not None), None))


def _install() -> None:
    if signal.getsignal(_SIGNAL) is not _on_alarm:
        signal.signal(_SIGNAL, _on_alarm)
    if _on_collection not in gc.callbacks:
        gc.callbacks.append(_on_collection)


def _extend(budgets: list[time_budget], seconds: float) -> None:
    for budget in budgets:
        budget.deadline += seconds


def _on_collection(phase: str, _info: object) -> None:
    """Exclude the garbage collector from all budgets.

    It runs during a particular decision only by chance.
    """
    if not _open or threading.get_ident() != threading.main_thread().ident:
        return
    if phase == "start":
        _collections.append(time.thread_time())
    elif _collections:
        _extend(_open, time.thread_time() - _collections.pop())


def _arm(now: float | None = None) -> None:
    """Start the timer for the first deadline.

    Args:
        now: The thread's CPU time, if the caller has just read it, because reading it is a system call.
    """
    if not _open:
        signal.setitimer(_TIMER, 0)
        return
    left_s = min(budget.deadline for budget in _open) - (time.thread_time() if now is None else now)
    # Not below `_SOON_S`: 0 would stop the timer, and a deadline that has passed is negative.
    signal.setitimer(_TIMER, max(left_s, _SOON_S))


def _on_alarm(_number: int, frame: FrameType | None) -> None:
    """Raise in the running code if a budget is used up.

    The timer also counts the CPU time of other threads.
    """
    now = time.thread_time()
    over = next((budget for budget in _open if budget.deadline <= now), None)
    if over is None:
        _arm()
        return
    # The time of a collection that has just ended is subtracted only once the collector's own callback has run.
    if _collections or (frame is not None and _must_not_be_interrupted(frame.f_globals.get("__name__", ""))):
        signal.setitimer(_TIMER, _SOON_S)
        return
    over.fired = True
    signal.setitimer(_TIMER, _AGAIN_S)
    raise _Alarm(over)


def _must_not_be_interrupted(module: str) -> bool:
    return module in _UNINTERRUPTED or module.partition(".")[0] in _UNINTERRUPTED_PACKAGES
