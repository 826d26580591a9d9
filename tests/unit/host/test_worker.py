"""The host worker as a process, against a simulated host, with deadlines, locks, and children that outlive it."""

import asyncio
import contextlib
import errno
import os
import signal

import pytest

from tests.builders.host import PF, served, sim_host, worker_process
from vmnic.host.client import HostWorker, OperationTimedOutError, WriteStillInFlightError
from vmnic.host.launch import WorkerGoneError
from vmnic.host.ops import LoadModule, ReadFile, ReadLinks, WriteFile
from vmnic.host.socket import SocketPort

NUMVFS = f"/sys/bus/pci/devices/{PF}/sriov_numvfs"
VF = "0000:0b:10.0"


@pytest.fixture
def sim(tmp_path):
    """Serve a simulated host with a VF on vfio-pci on a socket."""
    with served(sim_host(waits=True), tmp_path / "host.sock") as host:
        for path, text in (
            (f"/sys/bus/pci/devices/{PF}/sriov_drivers_autoprobe", "0"), (NUMVFS, "2"),
            (f"/sys/bus/pci/devices/{VF}/driver_override", "vfio-pci"), ("/sys/bus/pci/drivers_probe", VF),
        ):  # fmt: skip
            host.perform(WriteFile(path, text))
        yield host


@pytest.fixture
def process(sim, tmp_path):
    with worker_process(tmp_path, host=f"sim:{tmp_path}/host.sock") as made:
        yield made


@pytest.fixture
def worker(process):
    return HostWorker(process)


async def test_an_operation_is_performed_in_a_child(worker):
    async with worker.session(PF, write=False) as session:
        assert await session.perform(ReadFile(NUMVFS), deadline_s=5) == "2"


async def test_the_kernels_errno_is_passed_on(worker):
    async with worker.session(PF, write=True) as session:
        with pytest.raises(OSError, match="already enabled") as caught:
            await session.perform(WriteFile(NUMVFS, "5"), deadline_s=5)
    assert caught.value.errno == 16


async def test_a_stuck_write_is_abandoned_and_keeps_its_lock(worker, sim):
    sim.control({"hold": VF})
    async with worker.session(PF, write=True) as session:
        with pytest.raises(OperationTimedOutError) as caught:
            await session.perform(WriteFile(NUMVFS, "0"), deadline_s=0.2)
    with pytest.raises(WriteStillInFlightError):
        async with worker.session(PF, write=True):
            pass
    assert not caught.value.returned.done()
    sim.control({"release": VF})
    await asyncio.wait_for(caught.value.returned, 5)
    async with worker.session(PF, write=True) as session:
        assert await session.perform(ReadFile(NUMVFS), deadline_s=5) == "0"


async def test_a_stuck_child_outlives_its_worker_and_the_next_sees_it(worker, process, sim):
    sim.control({"hold": VF})
    async with worker.session(PF, write=True) as session:
        with pytest.raises(OperationTimedOutError) as caught:
            await session.perform(WriteFile(NUMVFS, "0"), deadline_s=0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(WriteStillInFlightError):
        async with worker.session(PF, write=True):
            pass
    sim.control({"release": VF})
    await asyncio.wait_for(caught.value.returned, 5)


async def test_sessions_of_two_pfs_do_not_wait_for_each_other(worker):
    async with worker.session(PF, write=True) as one, worker.session("0000:0c:00.0", write=True) as two:
        answers = await asyncio.gather(*(session.perform(ReadFile(NUMVFS), deadline_s=5) for session in (one, two)))
    assert answers == ["2", "2"]


async def test_two_write_sessions_of_one_pf_exclude_each_other(worker):
    async with worker.session(PF, write=True):
        with pytest.raises(WriteStillInFlightError):
            async with worker.session(PF, write=True):
                pass


async def test_a_host_that_is_gone_raises_an_error(tmp_path):
    with worker_process(tmp_path, host=f"sim:{tmp_path}/nothing.sock") as process, pytest.raises(WorkerGoneError):
        async with HostWorker(process).session(PF, write=False):
            pass


def test_an_unknown_command_is_refused(sim, tmp_path):
    port = SocketPort(tmp_path / "host.sock")
    with contextlib.closing(port), pytest.raises(OSError, match="no command is called dance"):
        port.control({"dance": None})


async def test_files_and_links_may_be_on_different_hosts(sim, tmp_path):
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys" / "mine").write_text("file\n")
    with worker_process(tmp_path, host="linux", root=str(tmp_path), links=f"sim:{tmp_path}/host.sock") as process:
        async with HostWorker(process).session(PF, write=False) as session:
            assert await session.perform(ReadFile("/sys/mine"), deadline_s=5) == "file"
            assert [link.pci_address for link in await session.perform(ReadLinks(), deadline_s=5)] == [PF]


async def test_a_refusal_of_modprobe_is_passed_on(tmp_path, monkeypatch):
    program = tmp_path / "modprobe"
    program.write_text('#!/bin/sh\necho "modprobe: ERROR: could not insert: Key was rejected by service" >&2; exit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with worker_process(tmp_path, host="linux", root=str(tmp_path)) as process:
        async with HostWorker(process).session("module", write=True) as session:
            with pytest.raises(OSError, match="Key was rejected") as caught:
                await session.perform(LoadModule("macvtap"), deadline_s=5)
    assert caught.value.errno == errno.EKEYREJECTED
