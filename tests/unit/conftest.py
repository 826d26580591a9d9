"""Lines that tests want a person to read, shown at the end of the run."""

import pytest

_LINES = pytest.StashKey[list[str]]()


@pytest.fixture
def told(request):
    """Give what takes a line for the end of the run."""
    return request.config.stash.setdefault(_LINES, []).append


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash.get(_LINES, []):
        terminalreporter.write_line(line)
