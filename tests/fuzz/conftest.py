"""Silent logs for fuzzing, and a last line that says how to repeat the run."""

import logging

import pytest

from .settings import REPEAT


@pytest.fixture(autouse=True)
def quiet():
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"fuzzed with {REPEAT}")
