"""Adaptation of the write rate."""

import pytest

from vmnic.kube.write_rate import WriteRate


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def send(rate, clock, seconds, *, answer_s=0.005, kind="PATCH vms"):
    """Send writes one after the other for some time, and return their number."""
    until, sent = clock.now + seconds, 0
    while clock.now < until:
        clock.now += rate.reserve() + answer_s
        rate.record_answer(kind, answer_s)
        sent += 1
    return sent


def test_burst_goes_at_once_and_further_writes_wait(clock):
    rate = WriteRate(4.0, clock)
    assert [rate.reserve() for _ in range(6)] == pytest.approx([0.0, 0.0, 0.0, 0.0, 0.25, 0.5])


def test_rate_grows_while_answers_are_quick(clock):
    rate = WriteRate(50.0, clock)
    send(rate, clock, 4.0)
    assert 100.0 < rate.per_s <= 50.0 + 4 * 50.0


def test_rate_stops_growing_at_its_upper_bound(clock):
    rate = WriteRate(50.0, clock)
    send(rate, clock, 60.0, answer_s=0.001)
    assert rate.per_s == 400.0


def test_rate_that_is_not_used_does_not_grow(clock):
    rate = WriteRate(50.0, clock)
    for _ in range(1000):
        clock.now += 0.1 + rate.reserve()
        rate.record_answer("PATCH vms", 0.005)
    assert rate.per_s == 50.0


def test_refusals_of_one_moment_count_once(clock):
    rate = WriteRate(100.0, clock)
    for _ in range(8):
        rate.record_refusal()
    assert rate.per_s == 50.0
    clock.now += 1.0
    rate.record_refusal()
    assert rate.per_s == 25.0


def test_rate_never_falls_below_its_lower_bound(clock):
    rate = WriteRate(50.0, clock)
    for _ in range(50):
        clock.now += 1.0
        rate.record_refusal()
    assert rate.per_s == 5.0


@pytest.mark.parametrize(("asked_s", "waited_s"), [(None, 0.0), (3.0, 3.0), (1e6, 30.0)])
def test_no_write_is_sent_before_the_time_that_is_asked_for(clock, asked_s, waited_s):
    rate = WriteRate(50.0, clock)
    rate.record_refusal(asked_s)
    assert rate.reserve() == pytest.approx(waited_s + 1 / 25.0)


def test_rate_grows_again_after_a_refusal(clock):
    rate = WriteRate(100.0, clock)
    rate.record_refusal()
    send(rate, clock, 0.9)
    assert rate.per_s == 50.0
    send(rate, clock, 3.0)
    assert rate.per_s > 100.0


def test_answers_that_become_slower_lower_the_rate(clock):
    rate = WriteRate(50.0, clock)
    send(rate, clock, 3.0)
    before = rate.per_s
    for _ in range(60):
        clock.now += 0.02
        rate.record_answer("PATCH vms", 0.2)
    assert rate.per_s < before


def test_slow_answers_take_only_what_the_rate_has_gained(clock):
    rate = WriteRate(50.0, clock)
    send(rate, clock, 3.0)
    for slow_s in (0.2, 1.0, 5.0):
        for _ in range(100):
            clock.now += slow_s
            rate.record_answer("PATCH vms", slow_s)
    assert rate.per_s == 50.0


def test_slow_answers_after_refusals_lower_nothing(clock):
    rate = WriteRate(50.0, clock)
    rate.record_answer("PATCH vms", 0.005)
    rate.record_refusal()
    for _ in range(100):
        clock.now += 0.2
        rate.record_answer("PATCH vms", 0.2)
    assert rate.per_s == 25.0


def test_one_stall_does_not_lower_the_rate(clock):
    rate = WriteRate(50.0, clock)
    send(rate, clock, 1.0)
    before = rate.per_s
    for _ in range(8):
        rate.record_answer("PATCH vms", 3.0)
    assert rate.per_s >= before


def test_kind_that_is_always_slower_is_no_slowdown(clock):
    rate = WriteRate(50.0, clock)
    for _ in range(20):
        send(rate, clock, 0.1)
        send(rate, clock, 0.2, answer_s=0.1, kind="PATCH pools")
    assert rate.per_s > 50.0


def test_server_that_stays_slower_becomes_the_new_normal(clock):
    rate = WriteRate(50.0, clock)
    send(rate, clock, 3.0)
    for _ in range(1000):
        clock.now += 0.2
        rate.record_answer("PATCH vms", 0.2)
    low = rate.per_s
    for _ in range(500):
        clock.now += rate.reserve()
        rate.record_answer("PATCH vms", 0.2)
    assert rate.per_s > low


def test_clock_that_stands_still_is_harmless(clock):
    rate = WriteRate(50.0, clock)
    rate.record_answer("PATCH vms", 0.0)
    rate.record_answer("PATCH vms", 0.0)
    assert rate.per_s == 50.0
