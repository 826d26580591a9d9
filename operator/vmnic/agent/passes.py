"""One pass of the agent: observe, plan, claim, apply, read back, report. It may be repeated and killed at any point.

Nothing is written to the host without a grant, except to bring back what was granted before: after a reboot, a restart in the
middle of a run, or drift. A grant is a plan's digest; the digest holds the attempt, which rises with every end of a run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

import msgspec

from ..host.client import HostAccess, OperationTimedOutError
from ..kube.errors import ApiError
from ..nodes.digest import same_desired
from ..nodes.drivers import gather_driver
from ..nodes.observed import holders_by_address, with_holders
from ..nodes.plan import Planned, plan_pf
from ..nodes.state import (
    Apply,
    ApplyState,
    NodeNicState,
    NodeSpec,
    NodeStatus,
)
from .deviceplugin.offers import offers_of
from .deviceplugin.plugin import Devices
from .fence import Fence
from .journal import Journal, JournalError, JournalStore
from .observe import Observation, observe_host
from .podresources import Holders, HoldersUnknownError
from .probes import Probes, boot_clock
from .report import Calls, Look, render_blind, render_status
from .reporter import Reporter
from .run import Place, Run, needs_holders
from .runs import Runner
from .status import same_status

__all__ = ["NodePass", "Passes"]

_log = logging.getLogger(__name__)


class Passes(Protocol):
    """What makes passes."""

    async def run(self, state: NodeNicState | None) -> NodeStatus:
        """Make one; see `NodePass.run`."""
        ...

    async def run_alone(self) -> None:
        """Make one without the API server; see `NodePass.run_alone`."""
        ...


class NodePass:
    """Everything that the agent does to its node.

    Args:
        host: Opens sessions on the node.
        store: The journal.
        holders: Names who holds VFs.
        reporter: Where orders come from and status goes.
        probes: Tells whether the node is reachable.
        fence: Keeps VFs from pods while they go.
        devices: Takes what can be handed to pods.
        refused: Modules that the init container could not load, each with the kernel's answer.
        sleep: Waits between looks.
        clock: Seconds since boot.
    """

    def __init__(
        self,
        *,
        host: HostAccess,
        store: JournalStore,
        holders: Holders,
        reporter: Reporter,
        probes: Probes,
        fence: Fence,
        devices: Devices,
        refused: tuple[str, ...] = (),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._host = host
        self._store = store
        self._holders = holders
        self._reporter = reporter
        self._devices = devices
        self._refused = refused
        self._runner = Runner(host, store, holders, probes, fence, sleep=sleep, clock=clock)
        self._unanswered: dict[str, asyncio.Future[None]] = {}
        """Functions with a read in the kernel that has not returned."""
        self._hung: OperationTimedOutError | None = None
        """A read of the host as such that has not returned."""
        self._told: tuple[str, NodeStatus] | None = None
        """What was published last, and over which version: as long as the watch still shows that one, it is behind."""

    async def run(self, state: NodeNicState | None) -> NodeStatus:
        """Make one pass and give the status as it is published.

        Args:
            state: The NodeNicState as last seen; None if there is none, then the host is only looked at.

        Raises:
            OSError: the host as such cannot be read.
            WorkerGoneError: the host worker died.
            ApiError: the status could not be published.
        """
        if state is not None and self._told is not None and self._told[0] == state.metadata.resource_version:
            state = msgspec.structs.replace(state, status=self._told[1])
        spec = state.spec if state is not None else NodeSpec()
        try:
            look, journal, fault = await self._work(spec, acts=state is not None and spec.synced)
            status = render_status(state, look, journal, self._calls(), fault=fault, claims={})
        except OperationTimedOutError as error:
            journal, fault = self._load()
            status = render_blind(
                state, journal, fault or f"the kernel does not answer: {error}; the host is not changed meanwhile"
            )
        if state is not None and not same_status(status, state.status):
            await self._reporter.publish(status)
            self._told = (state.metadata.resource_version, status)
        return status

    async def run_alone(self) -> None:
        """Bring back what was granted before, and undo what cut the node off, while the API server cannot be asked.

        Raises:
            OSError, OperationTimedOutError: the host as such cannot be read.
            WorkerGoneError: the host worker died.
        """
        try:
            records = self._store.load().pfs.values()
        except JournalError as error:
            _log.error("%s", error)
            return
        granted = tuple(record.granted for record in records if record.granted is not None)
        running = tuple(record.running.desired for record in records if record.running is not None)
        wanted = {pf.pci_address: pf for pf in (*granted, *running)}
        await self._work(NodeSpec(synced=True, pfs=tuple(wanted.values())), acts=True)

    async def _work(self, spec: NodeSpec, *, acts: bool) -> tuple[Look, Journal, str]:
        """Look, act, and look again if anything was done; gives also what forbids writes, in words."""
        journal, fault = self._load()
        look = await self._look(spec, journal)
        if acts and not fault:
            fault = await self._act(spec, look, journal)
            fresh = self._store.load() if not fault else journal
            if fresh != journal:
                journal = fresh
                look = await self._look(spec, journal)
        return look, journal, fault

    def _load(self) -> tuple[Journal, str]:
        """Read the journal; gives also what forbids writes, in words."""
        try:
            return self._store.load(), ""
        except JournalError as error:
            return Journal(), f"{error}; the host is not changed meanwhile"

    async def _act(self, spec: NodeSpec, look: Look, journal: Journal) -> str:
        """Conclude what was interrupted and carry out what may be; gives what forbids writes from now on, in words."""
        host, boot_id = look.observation.host, look.observation.boot_id
        try:
            if any(record.running is not None for record in journal.pfs.values()):
                await self._runner.resume(boot_id)
                journal = self._store.load()
                look = await self._look(spec, journal)
            self._runner.conclude(spec.pfs, dict(look.planned))
            journal = self._store.load()
        except JournalError as error:
            return f"{error}; the host is not changed meanwhile"
        runs = await self._claim(self._choose(spec, look, journal), look, journal)
        place = Place(host=host, boot_id=boot_id, desired=spec.pfs)
        return await self._runner.carry_out(runs, place) if runs else ""

    async def _look(self, spec: NodeSpec, journal: Journal) -> Look:
        await self._runner.calls.forget_returned(self._host, self._store)
        observation = await self._observe()
        for address, error in observation.unreadable.items():
            if isinstance(error, OperationTimedOutError):
                self._unanswered[address] = error.returned
        try:
            told, unknown = await self._holders.read(), ""
        except HoldersUnknownError as error:
            told, unknown = {}, str(error)
        holders = holders_by_address(observation.pfs, dict(observation.records) | told)
        opened = {pf.pci_address: pf for pf in observation.pfs}
        pfs = tuple(with_holders(pf, holders) for pf in observation.pfs)
        observation = replace(observation, pfs=pfs, host=msgspec.structs.replace(observation.host, refused=self._refused))
        observed = {pf.pci_address: pf for pf in pfs}
        originals = {address: record.original for address, record in journal.pfs.items()}
        drivers = {pf.pci_address: gather_driver(pf, pfs, spec.pfs, originals) for pf in pfs}
        planned = {
            pf.pci_address: plan_pf(
                pf,
                observed[pf.pci_address],
                host=observation.host,
                boot_id=observation.boot_id,
                attempt=journal.of(pf.pci_address).attempt,
                holders=holders,
                original=journal.of(pf.pci_address).original,
                driver=drivers[pf.pci_address],
            )
            for pf in spec.pfs
            if pf.pci_address in observed
        }
        offers = offers_of(spec, opened, planned, journal, {*self._stuck(), *observation.unreadable})
        self._devices.replace(offers, holders_by_address(pfs, told) if not unknown else None)
        return Look(observation=observation, holders=holders, planned=planned, drivers=drivers, unknown=unknown)

    async def _observe(self) -> Observation:
        """Look at the host, unless an earlier look is still in the kernel: each would leave one more child there.

        Raises:
            OSError, OperationTimedOutError: the host as such cannot be read.
            WorkerGoneError: the host worker died.
        """
        if self._hung is not None and not self._hung.returned.done():
            raise self._hung.with_traceback(None)
        try:
            return await observe_host(self._host, leave_out=self._stuck())
        except OperationTimedOutError as error:
            self._hung = error
            raise

    def _stuck(self) -> set[str]:
        """Functions with a call in the kernel that has not returned: another one would hang too."""
        self._unanswered = {address: returned for address, returned in self._unanswered.items() if not returned.done()}
        return {*self._unanswered, *(self._runner.calls.stuck if self._runner.calls.bus_stuck else ())}

    def _calls(self) -> Calls:
        calls = self._runner.calls
        return Calls(stuck=self._stuck(), bus_stuck=calls.bus_stuck, in_flight=calls.in_flight or ())

    def _choose(self, spec: NodeSpec, look: Look, journal: Journal) -> list[Run]:
        """Say which plans may be carried out now: granted ones, and those that bring back what was granted."""
        if self._runner.calls.bus_stuck or self._runner.calls.waits:
            return []
        observed = {pf.pci_address: pf for pf in look.observation.pfs}
        runs = []
        for desired in spec.pfs:
            plan = look.planned.get(desired.pci_address, Planned()).plan
            if plan is None or plan.blocked_by or (look.unknown and needs_holders(plan)):
                continue
            record = journal.of(desired.pci_address)
            intent = record.running
            if intent is not None and intent.undoing:
                continue
            failed = record.rolled_back and record.failed_spec is not None and same_desired(record.failed_spec, desired)
            granted = record.granted is not None and same_desired(record.granted, desired)
            # What cut the node off is not brought back unasked, though it was granted and worked before.
            known = (granted and not failed) or intent is not None
            if desired.grant == plan.digest or known:
                digest = plan.digest if desired.grant == plan.digest else intent.digest if intent is not None else None
                seen, driver = observed[desired.pci_address], look.drivers[desired.pci_address]
                runs.append(Run(desired=desired, observed=seen, plan=plan, digest=digest, driver=driver))
        return runs

    async def _claim(self, runs: list[Run], look: Look, journal: Journal) -> list[Run]:
        """Claim the grants over the live object; what was granted before needs no claim."""
        granted = [run for run in runs if run.desired.grant == run.plan.digest]
        known = [run for run in runs if run not in granted]
        if not granted:
            return known
        try:
            live = await self._reporter.read()
            if live is None or not live.spec.synced:
                return known
            grants = {pf.pci_address: pf.grant for pf in live.spec.pfs}
            granted = [run for run in granted if grants.get(run.desired.pci_address) == run.plan.digest]
            claims = {run.desired.pci_address: Apply(digest=run.plan.digest, state=ApplyState.CLAIMED) for run in granted}
            status = render_status(live, look, journal, self._calls(), fault="", claims=claims)
            return known + (granted if granted and await self._reporter.claim(live, status) else [])
        except ApiError as error:
            _log.warning("no grant is claimed while the API server is away: %s", error.message)
            return known
