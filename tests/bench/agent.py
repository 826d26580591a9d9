"""The agent on one large node with 8 functions of 64 VFs, beside the best order that the kernel's locks permit."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import yaml
from rich.table import Table

from tests.builders.agent import MemoryApi, RecordingFence, desired
from tests.harness.api import wait_for
from vmnic.agent.execute.probes import NodeProbes
from vmnic.agent.journal import JournalStore
from vmnic.agent.kubelet.plugin import NoDevices
from vmnic.agent.kubelet.podresources import NoHolders
from vmnic.agent.reconciler import HostReconciler
from vmnic.host.client import HostWorker
from vmnic.host.launch import WorkerProcess
from vmnic.host.ops import ReadLink, WriteFile
from vmnic.host.socket import SocketPort

__all__ = ["large_node"]

PFS, VFS = 8, 64
DELAYS = {"vfS": 0.02, "probeS": 0.004, "linkS": 0.002}
"""An i40e creates a VF in some tens of milliseconds. vfio-pci binds one in a few."""
ADDRESSES = [f"0000:{bus:02x}:00.0" for bus in range(0x10, 0x10 + PFS)]


def large_node(table: Table) -> None:
    """Add the figures to the table."""
    with tempfile.TemporaryDirectory() as directory, _simulated_host(pathlib.Path(directory)) as socket:
        best = _best_order(socket)
    with tempfile.TemporaryDirectory() as directory, _simulated_host(pathlib.Path(directory)) as socket:
        taken, writes, cpu_ms = asyncio.run(_run(pathlib.Path(directory), socket))
    floor = f"{best:.2f} s: the same writes alone, in the best order"
    table.add_row(f"{PFS} PFs x {VFS} VFs to vfio-pci, simulated delays", f"{taken:.2f} s", floor, f"{taken / best:.2f}x (1.2)")
    table.add_row("a second pass over them", f"{writes} writes, {cpu_ms:.0f} ms CPU", "", "0 writes")


@contextlib.contextmanager
def _simulated_host(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    nics = [{"address": address, "profile": "X710", "name": f"ens{number}"} for number, address in enumerate(ADDRESSES)]
    (directory / "host.yaml").write_text(yaml.safe_dump({"pfs": nics, "delays": DELAYS}))
    socket = directory / "host.sock"
    command = [sys.executable, "-m", "vmnic", "simhost", "--spec", directory / "host.yaml", "--socket", socket]
    process = subprocess.Popen([str(word) for word in command])
    try:
        wait_for("the host is there", socket.exists)
        yield socket
    finally:
        process.kill()
        process.wait()


def _best_order(socket: pathlib.Path) -> float:
    """Create the VFs of one function after the other, as the kernel's lock requires, and bind those of each during the next."""
    began = time.perf_counter()
    with ThreadPoolExecutor(PFS) as pool:
        making = SocketPort(socket)
        for address in ADDRESSES:
            path = f"/sys/bus/pci/devices/{address}"
            making.perform(WriteFile(f"{path}/sriov_drivers_autoprobe", "0"))
            making.perform(WriteFile(f"{path}/sriov_numvfs", str(VFS)))
            pool.submit(_bind_all, socket, path)
        making.close()
    return time.perf_counter() - began


def _bind_all(socket: pathlib.Path, path: str) -> None:
    port = SocketPort(socket)
    for index in range(VFS):
        vf = str(port.perform(ReadLink(f"{path}/virtfn{index}"))).rsplit("/", 1)[-1]
        port.perform(WriteFile(f"/sys/bus/pci/devices/{vf}/driver_override", "vfio-pci"))
        port.perform(WriteFile("/sys/bus/pci/drivers_probe", vf))
    port.close()


async def _run(directory: pathlib.Path, socket: pathlib.Path) -> tuple[float, int, float]:
    """Plan, grant, apply and observe again.

    Return the duration of the granted pass, and writes and CPU time of the next one.
    """
    process, api = WorkerProcess(host=f"sim:{socket}", state_dir=directory), MemoryApi()
    worker = HostWorker(process)
    agent = HostReconciler(
        host=worker, store=JournalStore(directory), holders=NoHolders(), reporter=api, probes=NodeProbes(worker, api),
        fence=RecordingFence(), devices=NoDevices(),
    )  # fmt: skip
    specs = [desired(address, num_vfs=VFS) for address in ADDRESSES]
    api.ask(*specs)
    plans = {pf.pci_address: pf.plan for pf in (await agent.run(api.state)).pfs}
    api.ask(*(msgspec.structs.replace(spec, grant=plans[spec.pci_address].digest) for spec in specs))
    began = time.perf_counter()
    done = await agent.run(api.state)
    taken = time.perf_counter() - began
    assert [(pf.num_vfs, pf.plan, pf.problem) for pf in done.pfs] == [(VFS, None, None)] * PFS, done.pfs
    host = SocketPort(socket)
    before, cpu = host.control({"writes": None}), _cpu_s()
    await agent.run(api.state)
    used = (_cpu_s() - cpu) * 1000
    writes = host.control({"writes": None}) - before
    host.close()
    process.close()
    process.wait()
    return taken, writes, used


def _cpu_s() -> float:
    """Return the CPU time of this process, without the worker and its children."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
