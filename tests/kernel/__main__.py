"""`make test-kernel`, which prepares the lab and runs the tier in several guests at a time.

If this machine cannot run it, it says so and succeeds.
"""

import sys

import pytest

from tests.harness.debian import CannotRun

from .lab import prepare

_GUESTS = "2"
"""Number of guests at a time. With more, each guest is too slow for its deadlines on two cores."""

try:
    prepare()
except CannotRun as error:
    print(f"the kernel tier cannot run on this machine: {error}")
    sys.exit(0)
sys.exit(pytest.main(["tests/kernel", "-n", _GUESTS, "--dist", "loadscope", "--timeout", "900", *sys.argv[1:]]))
