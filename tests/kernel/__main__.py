"""`make test-kernel`: prepares the lab, says so if this machine cannot, and runs the tier, several guests at a time."""

import sys

import pytest

from tests.harness.debian import CannotRun

from .lab import prepare

_GUESTS = "2"
"""At a time; more make each other too slow for deadlines on two cores."""

try:
    prepare()
except CannotRun as error:
    print(f"the kernel tier cannot run on this machine: {error}")
    sys.exit(0)
sys.exit(pytest.main(["tests/kernel", "-n", _GUESTS, "--dist", "loadscope", "--timeout", "900", *sys.argv[1:]]))
