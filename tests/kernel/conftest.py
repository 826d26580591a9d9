"""Guests, each booted once for all cases of a worker that use it, and the contract's table of results."""

import contextlib
import time
from concurrent import futures

import pytest

from .api import NodeApi
from .inner import make_inner_initrd
from .lab import prepare
from .machine import Machine, booted
from .node import Node
from .remote import RemoteHost
from .results import Results

_BOOT_S = 240
# A failed case of the contract shows the compared values.
pytest.register_assert_rewrite("tests.contract")


def pytest_configure(config):
    config.pluginmanager.register(Results(), "contract-results")


@contextlib.contextmanager
def running(machine):
    """Boot a guest.

    If the guest does not answer, the emulator is at fault, and the boot is tried once more.
    """
    lab = prepare()
    for _ in (1, 2):
        with contextlib.ExitStack() as stack:
            process = stack.enter_context(booted(lab, machine))
            host = stack.enter_context(contextlib.closing(connected(process, machine)))
            try:
                host.greet(_BOOT_S)
            except futures.TimeoutError:
                print(machine.log.read_text(errors="replace")[-3000:])
                continue
            yield host
            return
    pytest.fail("the guest does not answer")


def connected(process, machine):
    deadline = time.monotonic() + 10
    while not (machine.port.exists() and machine.qmp.exists()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return RemoteHost(machine.port, machine.qmp)


@pytest.fixture(scope="session")
def guest(tmp_path_factory):
    """The guest of the host contract, with three NICs, one of which shares its IOMMU group, and a multi-queue NIC."""
    with running(Machine(directory=tmp_path_factory.mktemp("guest"), crowded=True)) as host:
        yield host


@pytest.fixture(scope="session")
def bare_guest(tmp_path_factory):
    """A machine without an IOMMU."""
    with running(Machine(directory=tmp_path_factory.mktemp("bare"), iommu=False, memory_mib=512)) as host:
        yield host


@pytest.fixture(scope="session")
def online(tmp_path_factory):
    """A node with four 82576, two NICs without SR-IOV and an API server. Its agent is not started yet."""
    machine = Machine(directory=tmp_path_factory.mktemp("online"), nics=4, online=True, plain=True, memory_mib=1024)
    (machine.keep / "state").mkdir(parents=True)
    with contextlib.closing(NodeApi(machine.keep / "account")) as api, running(machine) as host:
        api.start()
        yield Node(host, machine, api)


@pytest.fixture(scope="module")
def host_of_guests(tmp_path_factory):
    """A node for domains whose guests boot. Both of its processors run in parallel, without which those guests stand still."""
    machine = Machine(
        directory=tmp_path_factory.mktemp("guests"), nics=3, online=True, plain=True, parallel=True, memory_mib=1536
    )
    (machine.keep / "state").mkdir(parents=True)
    make_inner_initrd(prepare(), machine.keep / "inner.img")
    with contextlib.closing(NodeApi(machine.keep / "account")) as api, running(machine) as host:
        api.start()
        yield Node(host, machine, api)
