"""An agent in one process.

Its host is behind a port that counts writes, its journal is in a directory, and its API server is a variable.
"""

import asyncio
import pathlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from tests.harness.faults import FaultyPort
from vmnic.agent.execute.probes import NodeProbes
from vmnic.agent.journal import JournalStore
from vmnic.agent.kubelet.plugin import NoDevices
from vmnic.agent.reconciler import HostReconciler
from vmnic.api.node_state import HostSpec, NodeNicState, NodeSpec, NodeStatus, ObjectMeta, PfSpec, PfStatus, VfGroup
from vmnic.host.client import LocalHost, WorkerGoneError, WriteStillInFlightError
from vmnic.kube.errors import UnreachableError
from vmnic.simhost.host import SimHost

from .host import PF


class MemoryApi:
    """A NodeNicState that is a variable, with a record of what is written."""

    def __init__(self) -> None:
        self.state = NodeNicState(metadata=ObjectMeta(name="n1", generation=1, resource_version="1"))
        self.written: list[NodeStatus] = []
        self.away = False
        self.before_claim = lambda: None
        self.when_written = lambda status: None

    async def read(self) -> NodeNicState:
        if self.away:
            raise UnreachableError(status=0, reason="Unreachable", message="away")
        return self.state

    async def publish(self, status: NodeStatus) -> None:
        await self.read()
        self._write(status)

    async def claim(self, over: NodeNicState, status: NodeStatus) -> bool:
        self.before_claim()
        await self.read()
        if over.metadata.resource_version != self.state.metadata.resource_version:
            return False
        self._write(status)
        return True

    def ask(self, *pfs: PfSpec, synced: bool = True, modules: tuple[str, ...] = ()) -> None:
        """Write the spec, as the controller does."""
        meta = self.state.metadata
        meta = msgspec.structs.replace(
            meta, generation=meta.generation + 1, resource_version=str(int(meta.resource_version) + 1)
        )
        self.state = NodeNicState(
            metadata=meta, spec=NodeSpec(synced=synced, pfs=pfs, host=HostSpec(modules=modules)), status=self.state.status
        )

    def _write(self, status: NodeStatus) -> None:
        self.written.append(status)
        self.when_written(status)
        meta = msgspec.structs.replace(self.state.metadata, resource_version=str(int(self.state.metadata.resource_version) + 1))
        self.state = msgspec.structs.replace(self.state, metadata=meta, status=status)


@dataclass
class FixedHolders:
    names: dict[str, str] = field(default_factory=dict)

    async def read(self) -> dict[str, str]:
        return self.names


class RecordingFence:
    """Records which PFs are fenced, and which were."""

    def __init__(self) -> None:
        self.closed: set[str] = set()
        self.ever: set[str] = set()
        self.when_closed = lambda: None

    async def close(self, functions) -> None:
        self.closed |= set(functions)
        self.ever |= set(functions)
        self.when_closed()

    async def open(self, functions) -> None:
        self.closed -= set(functions)


class RecordingDevices:
    """Records why each PF offers nothing, which is empty if it offers devices."""

    def __init__(self) -> None:
        self.faults: dict[str, str] = {}

    def replace(self, offers, held) -> None:
        self.faults = {offer.spec.pci_address: offer.fault for offer in offers}


class LockableHost(LocalHost):
    """A host with faults.

    A write of an earlier agent may still be in the kernel, the child for one PF may die, or changes may be slow.
    """

    in_flight = False
    dead = ""
    gate: asyncio.Event | None = None
    """Event that lets write sessions proceed."""

    @asynccontextmanager
    async def session(self, pf, *, write):
        if pf == self.dead:
            raise WorkerGoneError(f"the session's child for {pf} ended")
        if write and (self.in_flight or self._port.in_flight):
            raise WriteStillInFlightError(f"an earlier write to {pf} has not returned")
        if write and self.gate is not None:
            await self.gate.wait()
        async with super().session(pf, write=write) as session:
            yield session


class Node:
    """One node with its agent, which can be killed and started again on the same host and journal."""

    def __init__(self, sim: SimHost, directory: pathlib.Path) -> None:
        self.sim = sim
        self.port = FaultyPort(sim)
        self.api = MemoryApi()
        self.holders = FixedHolders()
        self.directory = directory
        self.fence = RecordingFence()
        self.devices = NoDevices()
        self.clock = 1000.0
        self.refused: tuple[str, ...] = ()
        self.host = LockableHost(self.port)
        self.restart_agent()

    def restart_agent(self) -> None:
        self.agent = HostReconciler(
            host=self.host,
            store=JournalStore(self.directory),
            holders=self.holders,
            reporter=self.api,
            probes=NodeProbes(self.host, self.api),
            fence=self.fence,
            refused=self.refused,
            devices=self.devices,
            sleep=self._sleep,
            clock=lambda: self.clock,
        )

    async def _sleep(self, seconds: float) -> None:
        """Advance the clock, which stands still except while the agent waits."""
        self.clock += seconds
        await asyncio.sleep(0)

    async def run_pass(self) -> PfStatus:
        """Run one pass and return the status of the first PF."""
        return (await self.agent.run(self.api.state)).pfs[0]

    async def grant_and_run(self, desired: PfSpec) -> PfStatus:
        """Ask, plan, grant and apply, as the controller and the agent do together."""
        self.api.ask(desired)
        planned = await self.run_pass()
        assert planned.plan is not None
        self.api.ask(msgspec.structs.replace(desired, grant=planned.plan.digest))
        return await self.run_pass()

    @property
    def written(self) -> list[str]:
        """Return every write to the host as file name and value."""
        return [f"{op.path.rsplit('/', 1)[-1]}={op.text.strip()}" for op in self.port.writes if hasattr(op, "path")]


def desired(address: str = PF, *, num_vfs: int = 7, driver: str = "vfio-pci", settings=None, **changes) -> PfSpec:
    group = VfGroup(pool="fast", resource="vmnic.dev/fast", driver=driver, settings=settings)
    return PfSpec(pci_address=address, pool="fast", num_vfs=num_vfs, **({"groups": (group,)} | changes))
