"""Guests, each booted once for all cases of a worker that use it, and the contract's table of results."""

import contextlib
import time
from concurrent import futures

import pytest
from _pytest.runner import runtestprotocol

from .api import NodeApi
from .inner import make_inner_initrd
from .lab import prepare
from .machine import Machine, booted
from .node import Node
from .remote import RemoteHost
from .results import Results

_BOOT_S = 240
_HOST_OF_GUESTS = pytest.StashKey[RemoteHost]()
# A failed case of the contract shows the compared values.
pytest.register_assert_rewrite("tests.contract")


def pytest_configure(config):
    config.pluginmanager.register(Results(), "contract-results")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    """Repeat a case on a new machine if QEMU ended the one whose processors run in parallel. The end of the run tells it."""
    if "host_of_guests" not in item.fixturenames:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    host = item.config.stash.get(_HOST_OF_GUESTS, None)
    if host and host.gone and any(report.failed for report in reports):
        item.user_properties.append(("told", f"{item.name}: QEMU ended the machine, so the case was repeated on a new one"))
        with contextlib.suppress(OSError, AssertionError, futures.TimeoutError):
            item.session._setupstate.teardown_exact(item.session)
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


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


@contextlib.contextmanager
def node_on(machine, *directories):
    """Boot a node with an API server, and with directories of its agent. The agent is not started yet."""
    for name in ("state", *directories):
        (machine.keep / name).mkdir(parents=True)
    with contextlib.closing(NodeApi(machine.keep / "account")) as api, running(machine) as host:
        api.start()
        yield Node(host, machine, api)


@pytest.fixture(scope="session")
def online(tmp_path_factory):
    """A node with four 82576, two NICs without SR-IOV and an API server. Its agent is not started yet."""
    machine = Machine(directory=tmp_path_factory.mktemp("online"), nics=4, online=True, plain=True, memory_mib=1024)
    with node_on(machine) as node:
        yield node


@pytest.fixture(scope="module")
def host_of_guests(tmp_path_factory, pytestconfig):
    """A node for domains whose guests boot. Both of its processors run in parallel, without which those guests stand still."""
    machine = Machine(
        directory=tmp_path_factory.mktemp("guests"), nics=3, online=True, plain=True, parallel=True, memory_mib=1536
    )
    machine.keep.mkdir()
    make_inner_initrd(prepare(), machine.keep / "inner.img")
    with node_on(machine) as node:
        pytestconfig.stash[_HOST_OF_GUESTS] = node.guest
        yield node
