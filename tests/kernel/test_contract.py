"""The host contract on a real kernel."""

import pytest

from tests.contract.suite import HostContract


class TestKernel(HostContract):
    @pytest.fixture
    def subject(self, guest):
        guest.reset()
        return guest
