"""Lines that tests want a person to read, shown at the end of the run."""

import hypothesis
import pytest

# A machine that is busy is no fault of what is tested.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# A failed case of the contract shows what was compared.
pytest.register_assert_rewrite("tests.contract")

_LINES = pytest.StashKey[list[str]]()


@pytest.fixture
def told(request):
    """Give what takes a line for the end of the run."""
    return request.config.stash.setdefault(_LINES, []).append


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash.get(_LINES, []):
        terminalreporter.write_line(line)
