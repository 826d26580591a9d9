"""Delays that grow with consecutive failures."""

import pytest

from vmnic.kube.backoff import Backoff, exponential_backoff


@pytest.mark.parametrize(("failures", "delay_s"), [(0, 5.0), (1, 10.0), (5, 160.0), (6, 300.0), (7, 300.0), (100_000, 300.0)])
def test_each_failure_doubles_the_delay_up_to_its_bound(failures, delay_s):
    assert exponential_backoff(failures, (5.0, 300.0)) == delay_s


def test_success_ends_the_delay():
    backoff, delays = Backoff((5.0, 300.0)), []
    for _ in range(9):
        backoff.record_failure("a", 0.0)
        delays.append(next(seconds for seconds in range(1, 400) if not backoff.is_active("a", seconds)))
    assert delays == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    backoff.reset("a")
    assert not backoff.is_active("a", 0.0)
