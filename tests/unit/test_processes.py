"""Processes of the harness that outlive the process that starts them."""

import pytest

from tests.harness.processes import Processes, stop_recorded


@pytest.fixture
def left_running(tmp_path):
    """A process that an earlier command has started and left running."""
    processes = Processes(tmp_path, die_with_parent=False)
    processes.start("virt-api", ["sleep", "600"])
    yield processes
    processes.stop_all()


def test_a_later_command_stops_what_an_earlier_one_left(left_running):
    Processes(left_running.directory, die_with_parent=False).stop_all()
    assert stop_recorded(left_running.directory)
    assert not left_running.running("virt-api")


def test_nothing_is_recorded_after_the_own_processes_end(left_running):
    left_running.stop_all()
    assert not stop_recorded(left_running.directory)
