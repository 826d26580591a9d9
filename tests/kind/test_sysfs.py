"""The host contract on the mounted `/sys`.

Files are accessed by the kernel's own calls, links through the socket next to it.
"""

import contextlib
from concurrent import futures

import msgspec
import pytest

from tests.builders.host import CROWDED_PF, OTHER_PF, PF, contract_spec
from tests.contract.suite import (
    CountContract,
    DriverContract,
    FileContract,
    HolderContract,
    LinkContract,
    ModuleContract,
    UpperContract,
    VfioContract,
    WriterContract,
)
from vmnic.host.linux import LinuxFiles
from vmnic.host.socket import SocketPort

from .hosts import SimulatedHosts


class Mounted:
    """A simulated host as an agent in a container sees it."""

    pf, other_pf, crowded_pf = PF, OTHER_PF, CROWDED_PF

    def __init__(self, hosts):
        self._hosts = hosts
        self._pool = futures.ThreadPoolExecutor(8)
        self.root = hosts.of("contract")
        hosts.control("contract", {"reboot": None})

    def perform(self, op):
        if getattr(op, "path", "").startswith("/sys/"):
            return LinuxFiles(str(self.root)).perform(op)
        with contextlib.closing(SocketPort(self.root / "host.sock")) as links:
            return links.perform(op)

    def start(self, op):
        return self._pool.submit(self.perform, op)

    def control(self, command):
        return self._hosts.control("contract", command)

    def settled(self, pending):
        return bool(futures.wait([pending], 0.05).done)


@pytest.fixture(scope="module")
def hosts(lab, tmp_path_factory):
    made = SimulatedHosts(tmp_path_factory.mktemp("sys") / "hosts", lab.engine)
    made.share(("contract",))
    made.start("contract", msgspec.to_builtins(contract_spec()))
    yield made
    made.stop()


@pytest.fixture
def subject(hosts):
    return Mounted(hosts)


class TestMounted(
    CountContract, DriverContract, HolderContract, LinkContract, FileContract, ModuleContract, UpperContract, VfioContract,
    WriterContract,
):  # fmt: skip
    pass


def test_a_change_over_the_socket_is_visible_in_files_at_once(subject, hosts):
    hosts.control("contract", {"rename_link": {"link": "ens11", "name": "fast0"}})
    net = subject.root / "sys" / "bus" / "pci" / "devices" / PF / "net"
    assert [link.name for link in net.iterdir()] == ["fast0"]


@pytest.mark.parametrize(
    ("act", "refusal"),
    [
        (lambda pf: (pf / "vendor").write_text("0x15b3"), PermissionError),
        (lambda pf: (pf / "new").write_text(""), PermissionError),
        (lambda pf: (pf / "new").mkdir(), PermissionError),
        (lambda pf: (pf / "vendor").unlink(), PermissionError),
        (lambda pf: (pf / "net").read_text(), IsADirectoryError),
        (lambda pf: (pf / "nothing").read_text(), FileNotFoundError),
    ],
    ids=["a read-only file", "a new file", "a new directory", "removal", "a directory", "an absent file"],
)
def test_the_mount_refuses_what_sysfs_refuses(subject, act, refusal):
    with pytest.raises(refusal):
        act(subject.root / "sys" / "bus" / "pci" / "devices" / PF)
