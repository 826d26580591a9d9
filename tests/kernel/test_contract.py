"""The host contract on a real kernel, and beside it on the simulated host, for the table of results."""

import pytest

from tests.contract.suite import (
    CountContract,
    DriverContract,
    EventContract,
    FileContract,
    HolderContract,
    LinkContract,
    ModuleContract,
    NoIommuContract,
    RemovalContract,
    UpperContract,
    VfioContract,
    WriterContract,
)
from tests.unit.simhost.test_contract import InProcess
from vmnic.host.ops import Channels, ReadChannels, ReadLinks, SetChannels


class Kernel:
    @pytest.fixture
    def subject(self, guest):
        guest.reset()
        return guest


class TestKernelOne(Kernel, CountContract, HolderContract, FileContract, EventContract, RemovalContract):
    """Half of the cases: each class here has a guest of its own, and they run side by side."""


class TestKernelTwo(Kernel, DriverContract, LinkContract, ModuleContract, UpperContract, VfioContract, WriterContract):
    def test_a_virtio_nic_with_four_queues_takes_up_to_four_and_refuses_more(self, guest):
        links = guest.perform(ReadLinks())
        name = next(link.name for link in links if link.mac.startswith("52:54:00:00:ff"))
        assert guest.perform(ReadChannels(name)).max_combined == 4
        for count in (2, 4):
            guest.run("ethtool", "-L", name, "combined", str(count))
            assert guest.perform(ReadChannels(name)) == Channels(combined=count, max_combined=4)
        code, text = guest.try_run("ethtool", "-L", name, "combined", "5")
        assert (code, "Invalid argument" in text or "exceeds maximum" in text) == (1, True), text
        with pytest.raises(OSError, match="Invalid"):
            guest.perform(SetChannels(name, 5))


class TestKernelWithoutIommu(NoIommuContract):
    @pytest.fixture
    def subject(self, bare_guest):
        bare_guest.reset()
        return bare_guest


class Simulated:
    @pytest.fixture
    def subject(self):
        return InProcess()


class TestSimulated(
    Simulated, CountContract, DriverContract, EventContract, FileContract, HolderContract, LinkContract, ModuleContract,
    RemovalContract, UpperContract, VfioContract, WriterContract,
):  # fmt: skip
    pass


class TestSimulatedWithoutIommu(NoIommuContract):
    @pytest.fixture
    def subject(self):
        return InProcess(iommu=False)
