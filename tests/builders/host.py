"""Simulated hosts with good defaults, so that a test shows only what matters.

They can also be served on sockets and used through a host worker.
"""

import contextlib
import socket
import threading

from vmnic.host.launch import WorkerProcess
from vmnic.host.socket import serve_port
from vmnic.simhost.host import SimHost
from vmnic.simhost.spec import HostSpec, PfSpec

PF = "0000:0b:00.0"
OTHER_PF = "0000:0c:00.0"
CROWDED_PF = "0000:0d:00.0"


def pf(address: str = PF, **changes) -> PfSpec:
    defaults = {"profile": "82576", "name": f"ens{int(address[5:7], 16)}", "mac": f"52:54:00:00:{address[5:7]}:01"}
    return PfSpec(address=address, **(defaults | changes))


def sim_host(*pfs: PfSpec, waits: bool = False, **changes) -> SimHost:
    return SimHost(HostSpec(pfs=pfs or (pf(),), **changes), waits=waits)


def contract_host(*, waits: bool = False, **changes) -> SimHost:
    """Return the host that the contract describes."""
    return SimHost(contract_spec(**changes), waits=waits)


def contract_spec(**changes) -> HostSpec:
    """Return three PFs whose links are down, one of them on another NUMA node and in a shared IOMMU group."""
    crowded = pf(CROWDED_PF, up=False, numa_node=1, shares_iommu_group=changes.get("iommu", True))
    pfs = (pf(PF, up=False), pf(OTHER_PF, up=False), crowded)
    return HostSpec(pfs=pfs, **({"available_modules": ("dummy",)} | changes))


@contextlib.contextmanager
def served(sim: SimHost, path):
    """Serve a simulated host on a socket, as its own process does."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=serve_port, args=(sim, listener, sim.control, sim.listen), daemon=True).start()
        yield sim
        listener.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def worker_process(state_dir, **place):
    """Run a host worker until the block ends."""
    process = WorkerProcess(state_dir=state_dir, **place)
    process.start()
    yield process
    process.close()
    process.wait()
