"""`make test-kernel`: prepares the lab, says so if this machine cannot, and runs the tier."""

import sys

import pytest

from .lab import CannotRun, prepare

try:
    prepare()
except CannotRun as error:
    print(f"the kernel tier cannot run on this machine: {error}")
    sys.exit(0)
sys.exit(pytest.main(["tests/kernel", "-v"]))
