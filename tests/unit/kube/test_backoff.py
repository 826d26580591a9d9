"""Pauses that grow with failures in a row."""

import pytest

from vmnic.kube.backoff import growing_pause


@pytest.mark.parametrize(("failures", "pause_s"), [(0, 5.0), (1, 10.0), (5, 160.0), (6, 300.0), (7, 300.0), (100_000, 300.0)])
def test_each_failure_doubles_the_pause_up_to_the_longest_however_many_there_are(failures, pause_s):
    assert growing_pause(failures, (5.0, 300.0)) == pause_s
