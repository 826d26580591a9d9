"""Time budgets interrupt code that runs for too long, and nothing outside its block."""

import asyncio
import contextlib
import gc
import threading
import time

import pytest

from vmnic.kube.time_budget import Budget, OverBudgetError, Subject, record_subjects, run_within, time_budget, uncharged


def spin(seconds):
    """Use CPU time in a busy loop that swallows every Exception."""
    end = time.thread_time() + seconds

    def loop():
        while time.thread_time() < end:
            sum(range(100))

    while time.thread_time() < end:
        with contextlib.suppress(Exception):
            loop()


@pytest.fixture(autouse=True)
def soon():
    """Check that the code of the test is interrupted early."""
    started = time.thread_time()
    yield
    assert time.thread_time() - started < 5


class TestBlock:
    def test_busy_loop_is_interrupted(self):
        with pytest.raises(OverBudgetError, match=r"more than 0\.05 s"), time_budget(0.05):
            spin(30)

    def test_block_within_its_budget_is_not_interrupted(self):
        with time_budget(0.05):
            spin(0.01)
        spin(0.1)

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_exception_swallowed_by_a_finalizer_is_raised_again(self):
        class Slow:
            def __del__(self):
                spin(30)

        def decide():
            Slow()
            spin(30)

        with pytest.raises(OverBudgetError), time_budget(0.05):
            decide()

    def test_block_that_swallows_the_interruption_still_fails(self):
        def decide():
            with contextlib.suppress(BaseException):
                spin(30)

        with pytest.raises(OverBudgetError), time_budget(0.05):
            decide()

    def test_inner_budget_names_the_culprit_and_outer_continues(self):
        with time_budget(5):
            with pytest.raises(OverBudgetError, match=r"0\.05"), time_budget(0.05):
                spin(30)
            spin(0.01)

    def test_outer_deadline_holds_in_an_inner_block(self):
        with pytest.raises(OverBudgetError, match=r"0\.05"), time_budget(0.05), time_budget(10):
            spin(30)

    def test_waiting_is_not_charged(self):
        with time_budget(0.02):
            time.sleep(0.1)

    def test_shared_work_is_not_charged(self):
        with time_budget(0.1):
            with uncharged():
                spin(0.3)
            spin(0.01)

    def test_garbage_collection_is_not_charged(self):
        heap = [[number] for number in range(300_000)]
        with time_budget(0.1):
            started = time.thread_time()
            while time.thread_time() - started < 0.3:
                gc.collect()
        assert heap

    def test_other_threads_have_no_budget(self):
        ended = []

        def work():
            with time_budget(0.01):
                spin(0.1)
            ended.append(True)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(10)
        assert ended

    def test_interruption_never_leaves_its_block(self):
        """The block ends at about the moment at which the budget is used up, a thousand times."""
        for number in range(1000):
            try:
                with time_budget(0.001):
                    spin(0.0009 + number % 20 / 1e5)
            except OverBudgetError:
                pass
            spin(0.0001)


class TestCoroutine:
    async def test_each_step_has_the_whole_budget(self):
        async def work():
            for _ in range(5):
                spin(0.03)
                await asyncio.sleep(0)
            return "done"

        assert await run_within(work(), Budget(0.1)) == "done"

    async def test_slow_step_is_interrupted(self):
        async def work():
            await asyncio.sleep(0)
            spin(30)

        with pytest.raises(OverBudgetError):
            await run_within(work(), Budget(0.05))

    async def test_cleanup_that_awaits_is_awaited(self):
        cleaned = []

        async def work():
            try:
                spin(30)
            finally:
                await asyncio.sleep(0.001)
                cleaned.append(True)

        with pytest.raises(OverBudgetError):
            await run_within(work(), Budget(0.05))
        assert cleaned == [True]

    async def test_cancellation_reaches_the_coroutine(self):
        ended = []

        async def wait():
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append(True)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run_within(wait(), Budget(1)), 0.01)
        assert ended == [True]

    async def test_exception_passes(self):
        async def fail():
            await asyncio.sleep(0)
            raise KeyError("scripted")

        with pytest.raises(KeyError):
            await run_within(fail(), Budget(1))


def test_object_that_is_decided_about_is_recorded(monkeypatch):
    seen, outer, inner = [], Subject("VirtualMachine", "a/b"), Subject("NodeNicState", "n1")
    record_subjects(seen.append)
    with time_budget(1, outer), time_budget(1), time_budget(1, inner):
        pass
    record_subjects(lambda subject: None)
    assert seen == [outer, inner, outer, None]
