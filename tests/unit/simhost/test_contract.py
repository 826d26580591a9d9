"""The host contract on the simulated host, in process and over its socket."""

import contextlib
import threading

import pytest

from tests.builders.host import CROWDED_PF, OTHER_PF, PF, contract_host, pf, served, sim_host
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
from vmnic.host.ops import ListDir, ReadLinks, ReadUnicast, WriteFile
from vmnic.host.ports import StillBlocked
from vmnic.host.socket import SocketPort

PF_PATH = f"/sys/bus/pci/devices/{PF}"


class _Started:
    """An operation in a separate thread."""

    def __init__(self, call):
        self._outcome = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call):
        try:
            self._outcome = (call(), None)
        except OSError as error:
            self._outcome = (None, error)

    def done(self):
        return not self._thread.is_alive()

    def result(self, timeout_s):
        self._thread.join(timeout_s)
        assert self._outcome is not None, "still blocked"
        if self._outcome[1]:
            raise self._outcome[1]
        return self._outcome[0]

    def settle(self, seconds):
        self._thread.join(seconds)
        return self.done()


class InProcess:
    """The simulated host itself, which reports a blocked operation at once."""

    pf, other_pf, crowded_pf = PF, OTHER_PF, CROWDED_PF

    def __init__(self, **changes):
        self._sim = contract_host(**changes)
        self._told = []
        self._listening = False

    def perform(self, op):
        return self._sim.perform(op)

    def start(self, op):
        return _Blocked(self._sim, op)

    def control(self, command):
        return self._sim.control(command)

    def heard(self):
        if not self._listening:
            self._sim.listen(self._told.append)
            self._listening = True
        told = list(self._told)
        self._told.clear()
        return told

    def settled(self, pending):
        return pending.done()


class _Blocked:
    """A blocked operation in process.

    It continues inside the model. Its answer is what the same read or write returns later.
    """

    def __init__(self, sim, op):
        self._answer = None
        try:
            self._answer = (sim.perform(op),)
        except StillBlocked:
            self._pending = sim._pending[-1]

    def done(self):
        return self._answer is not None or self._pending.done.is_set()

    def result(self, timeout_s):
        assert self.done(), "still blocked"
        return self._answer[0] if self._answer else self._pending.result()


class OverSocket:
    """The same host behind its socket, as a process serves it."""

    pf, other_pf, crowded_pf = PF, OTHER_PF, CROWDED_PF

    def __init__(self, path, stack, **changes):
        self._path = path
        stack.enter_context(served(contract_host(waits=True, **changes), path))

    def _ask(self, call):
        port = SocketPort(self._path)
        with contextlib.closing(port):
            return call(port)

    def perform(self, op):
        return self._ask(lambda port: port.perform(op))

    def start(self, op):
        return _Started(lambda: self.perform(op))

    def control(self, command):
        return self._ask(lambda port: port.control(command))

    def settled(self, pending):
        return pending.settle(0.05)


class TestInProcess(
    CountContract, DriverContract, EventContract, FileContract, HolderContract, LinkContract, ModuleContract, RemovalContract,
    UpperContract, VfioContract, WriterContract,
):  # fmt: skip
    @pytest.fixture
    def subject(self):
        return InProcess()


class TestInProcessWithoutIommu(NoIommuContract):
    @pytest.fixture
    def subject(self):
        return InProcess(iommu=False)


class TestOverSocket(
    CountContract, DriverContract, FileContract, HolderContract, LinkContract, ModuleContract, UpperContract, VfioContract,
    WriterContract,
):  # fmt: skip
    @pytest.fixture
    def subject(self, tmp_path):
        with contextlib.ExitStack() as stack:
            yield OverSocket(tmp_path / "host.sock", stack)


def test_every_vf_of_a_switchdev_nic_has_a_representor():
    sim = sim_host(pf(eswitch="switchdev", phys_port_name="p0"))
    for count, ports in ((2, ["pf0vf0", "pf0vf1", "p0"]), (0, ["p0"])):
        sim.perform(WriteFile(f"{PF_PATH}/sriov_numvfs", str(count)))
        links = [link for link in sim.perform(ReadLinks()) if link.pci_address == PF]
        assert [link.phys_port_name for link in links] == ports
        assert sim.perform(ListDir(f"{PF_PATH}/net")) == tuple(sorted(link.name for link in links))


def test_a_macvtap_in_another_namespace_stays_in_the_filter():
    sim = sim_host(pf())
    sim.control({"add_upper": {"name": "tap7", "kind": "macvtap", "lower": "ens11", "mac": "02:00:00:00:00:77"}})
    sim.control({"move_link": "tap7"})
    assert [link.name for link in sim.perform(ReadLinks())] == ["ens11"]
    assert sim.perform(ReadUnicast("ens11")) == ("02:00:00:00:00:77",)
    sim.perform(WriteFile("/sys/bus/pci/drivers/igb/unbind", PF))
    sim.perform(WriteFile("/sys/bus/pci/drivers_probe", PF))
    assert sim.perform(ReadUnicast("ens11")) == ()
