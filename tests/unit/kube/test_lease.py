"""Leading ends at the lease's deadline, even if the server does not answer. The clock is simulated."""

import asyncio

import pytest

from vmnic.kube.client import ApiClient
from vmnic.kube.errors import NotLeadingError
from vmnic.kube.lease import LeaderElector
from vmnic.kube.resources import NODES


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
async def client(api):
    async with ApiClient(api.connection, field_manager="test") as made:
        yield made


DURATION_S = 40.0
"""In seconds of the test's clock. A quarter of it is the timeout for requests, on the real clock."""


def elector(client, name, clock, duration_s=DURATION_S):
    return LeaderElector(client, "lease", "ns", name, duration_s=duration_s, clock=clock)


async def test_first_candidate_holds_the_lease(api, client):
    one = elector(client, "one", Clock())
    assert await one._try_acquire_or_renew()
    assert api.objects["lease"]["spec"]["holderIdentity"] == "one"


async def test_leading_ends_at_the_deadline_without_a_timer(client):
    clock = Clock()
    one = elector(client, "one", clock)
    await one._try_acquire_or_renew()
    assert one.seconds_left() == pytest.approx(DURATION_S * 2 / 3)
    clock.now += DURATION_S * 2 / 3
    assert one.seconds_left() is None


async def test_takeover_needs_a_whole_duration_of_own_observation(client):
    clock = Clock()
    one, two = elector(client, "one", clock), elector(client, "two", clock)
    await one._try_acquire_or_renew()
    taken = []
    for _ in range(4):
        taken.append(await two._try_acquire_or_renew())
        clock.now += DURATION_S / 2
    assert taken == [False, False, False, True]
    assert one.seconds_left() is None


async def test_renewed_lease_is_not_taken(client):
    clock = Clock()
    one, two = elector(client, "one", clock), elector(client, "two", clock)
    for _ in range(5):
        assert await one._try_acquire_or_renew()
        assert not await two._try_acquire_or_renew()
        clock.now += DURATION_S / 2


async def test_deadline_counts_from_before_the_renewal_was_sent(api, client):
    clock = Clock()
    one = elector(client, "one", clock)
    original = client.create

    async def slow(*arguments):
        clock.now += 15
        return await original(*arguments)

    client.create = slow
    await one._try_acquire_or_renew()
    assert one.seconds_left() == pytest.approx(DURATION_S * 2 / 3 - 15)


@pytest.mark.parametrize("fault", ["hang", 500, 409])
async def test_failed_renewal_does_not_extend_the_lease(api, client, fault):
    clock = Clock()
    one = elector(client, "one", clock, duration_s=4.0)
    await one._try_acquire_or_renew()
    left = one.seconds_left()
    api.faults.append(("PUT" if fault == 409 else "GET", fault))
    assert not await one._try_acquire_or_renew()
    assert one.seconds_left() == left


async def test_work_is_cancelled_on_loss_of_the_lease_and_restarts(api, client):
    one = LeaderElector(client, "lease", "ns", "one", duration_s=1.0)
    begun, ended = [], []

    async def lead():
        begun.append(1)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    task = asyncio.create_task(one.run(lead))
    await _until(lambda: begun)
    api.faults += [("GET", 500)] * 20
    await _until(lambda: ended)
    api.faults.clear()
    await _until(lambda: len(begun) == 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert api.objects["lease"]["spec"]["holderIdentity"] == ""


async def _until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_guarded_client_writes_nothing_without_the_lease(api):
    left = [None]
    async with ApiClient(api.connection, field_manager="test", guard=lambda: left[0]) as guarded:
        with pytest.raises(NotLeadingError):
            await guarded.create(NODES, {"metadata": {"name": "n"}})
        assert await guarded.read(NODES, "n") is None
        left[0] = 5.0
        await guarded.create(NODES, {"metadata": {"name": "n"}})
    assert [verb for verb, *_ in api.requests] == ["GET", "POST"]
