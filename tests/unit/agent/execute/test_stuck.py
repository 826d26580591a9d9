"""A write that does not return, with the real worker. Its child stays, and everything else continues."""

import asyncio

import pytest

from tests.builders.agent import FixedHolders, MemoryApi, RecordingDevices, RecordingFence, desired
from tests.builders.host import OTHER_PF, PF, pf, served, sim_host, worker_process
from vmnic.agent.execute.probes import NodeProbes
from vmnic.agent.journal import JournalStore
from vmnic.agent.reconciler import HostReconciler
from vmnic.api.node_state import ApplyState
from vmnic.api.reasons import PfReason
from vmnic.host.client import HostWorker
from vmnic.host.ops import ReadFile

NUM_VFS = f"/sys/bus/pci/devices/{PF}/sriov_numvfs"


@pytest.fixture
def sim(tmp_path):
    with served(sim_host(pf(PF), pf(OTHER_PF), waits=True), tmp_path / "host.sock") as host:
        yield host
        host.control({"go_on": None})


@pytest.fixture
def process(sim, tmp_path):
    with worker_process(tmp_path, host=f"sim:{tmp_path}/host.sock") as made:
        yield made


async def test_a_stuck_write_stops_all_writes_and_reads_only_of_its_pf(sim, process, tmp_path, monkeypatch):
    monkeypatch.setattr("vmnic.agent.execute.applier._NUM_VFS_S", 0.3)
    worker, api, devices = HostWorker(process), MemoryApi(), RecordingDevices()
    agent = HostReconciler(
        host=worker, store=JournalStore(tmp_path), holders=FixedHolders(), reporter=api, probes=NodeProbes(worker, api),
        fence=RecordingFence(), devices=devices,
    )  # fmt: skip
    api.ask(desired(), desired(OTHER_PF))
    first, second = (await agent.run(api.state)).pfs
    api.ask(desired(grant=first.plan.digest), desired(OTHER_PF))
    sim.control({"pause_at": 2})
    first, second = (await agent.run(api.state)).pfs
    assert sim.control({"paused": None})
    assert (first.problem.reason, second.problem.reason) == (PfReason.PCI_BUS_STUCK,) * 2
    assert "sriov_numvfs', text='7') did not return within 0.3 s: check the kernel log" in first.problem.message
    assert (first.apply.state, second.total_vfs, devices.faults[PF]) == (ApplyState.FAILED, 7, f"{PF} does not answer")
    writes = sim.control({"writes": None})
    api.ask(desired(), desired(OTHER_PF, grant=second.plan.digest))
    _, second = (await agent.run(api.state)).pfs
    assert (second.problem.reason, sim.control({"writes": None})) == (PfReason.PCI_BUS_STUCK, writes)
    sim.control({"go_on": None})
    async with asyncio.timeout(10):
        while second.num_vfs != 7:
            first, second = (await agent.run(api.state)).pfs
    assert sim.perform(ReadFile(NUM_VFS)) == "7", "the write that was late has been done"
    assert (first.problem.reason, first.num_vfs) == (PfReason.APPLY_FAILED, 7)
