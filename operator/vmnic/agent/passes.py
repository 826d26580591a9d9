"""One pass of the agent: observe, plan, claim, apply, read back, report. It may be repeated and killed at any point.

Nothing is written to the host without a grant, except to bring back what was granted before: after a reboot, a restart in the
middle of a run, or drift. A grant is a plan's digest; the digest holds the attempt, which rises with every end of a run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from ..host.client import HostAccess, OperationTimedOutError
from ..kube.errors import ApiError
from ..nodes.digest import same_desired
from ..nodes.drivers import DriverFacts, gather_driver
from ..nodes.observed import ObservedPf, holders_by_address, render_pf_status, with_holders
from ..nodes.plan import Planned, plan_pf
from ..nodes.state import (
    Apply,
    ApplyState,
    NodeNicState,
    NodeSpec,
    NodeStatus,
    PfProblem,
    PfReason,
    PfSpec,
    PfStatus,
)
from .deviceplugin.offers import offers_of
from .deviceplugin.plugin import Devices
from .fence import Fence
from .journal import Journal, JournalError, JournalStore, PfRecord
from .observe import Observation, observe_host
from .podresources import Holders, HoldersUnknownError
from .probes import Probes, boot_clock
from .remedies import reason_of_failure
from .reporter import Reporter
from .runs import Place, Run, Runner, needs_holders
from .status import same_status, summarise_node

__all__ = ["NodePass"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What one look gave: the host, who holds VFs, and a plan for each function that is asked for."""

    observation: Observation
    holders: Mapping[str, str]
    planned: Mapping[str, Planned]
    drivers: Mapping[str, DriverFacts]
    unknown: str = ""
    """Why holders cannot be learnt now; empty: they are known."""


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

    async def run(self, state: NodeNicState | None) -> NodeStatus:
        """Make one pass and give the status as it is published.

        Args:
            state: The NodeNicState as last seen; None if there is none, then the host is only looked at.

        Raises:
            OSError: the host as such cannot be read.
            WorkerGoneError: the host worker died.
            ApiError: the status could not be published.
        """
        spec = state.spec if state is not None else NodeSpec()
        try:
            look, journal, fault = await self._work(spec, acts=state is not None and spec.synced)
            status = self._status(state, look, journal, fault)
        except OperationTimedOutError as error:
            status = self._blind_status(state, f"the kernel does not answer: {error}; the host is not changed meanwhile")
        if state is not None and not same_status(status, state.status):
            await self._reporter.publish(status)
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

    async def _work(self, spec: NodeSpec, *, acts: bool) -> tuple[_Look, Journal, str]:
        """Look, act, and look again if anything was done; gives also what forbids writes, in words."""
        try:
            journal, fault = self._store.load(), ""
        except JournalError as error:
            journal, fault = Journal(), f"{error}; the host is not changed meanwhile"
        look = await self._look(spec, journal)
        if acts and not fault:
            fault = await self._act(spec, look, journal)
            fresh = self._store.load() if not fault else journal
            if fresh != journal:
                journal = fresh
                look = await self._look(spec, journal)
        return look, journal, fault

    async def _act(self, spec: NodeSpec, look: _Look, journal: Journal) -> str:
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

    async def _look(self, spec: NodeSpec, journal: Journal) -> _Look:
        await self._runner.forget_returned()
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
        return _Look(observation=observation, holders=holders, planned=planned, drivers=drivers, unknown=unknown)

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
        return {*self._unanswered, *(self._runner.stuck if self._runner.bus_stuck else ())}

    def _choose(self, spec: NodeSpec, look: _Look, journal: Journal) -> list[Run]:
        """Say which plans may be carried out now: granted ones, and those that bring back what was granted."""
        if self._runner.bus_stuck or self._runner.waits:
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

    async def _claim(self, runs: list[Run], look: _Look, journal: Journal) -> list[Run]:
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
            status = self._status(live, look, journal, "", claims)
            return known + (granted if granted and await self._reporter.claim(live, status) else [])
        except ApiError as error:
            _log.warning("no grant is claimed while the API server is away: %s", error.message)
            return known

    def _status(
        self,
        state: NodeNicState | None,
        look: _Look,
        journal: Journal,
        fault: str,
        claims: Mapping[str, Apply] | None = None,
    ) -> NodeStatus:
        spec = state.spec if state is not None else NodeSpec()
        before = state.status if state is not None else NodeStatus()
        generation = state.metadata.generation if state is not None else 0
        desired = {pf.pci_address: pf for pf in spec.pfs}
        pfs = [
            self._pf_status(pf, look, journal.of(pf.pci_address), desired.get(pf.pci_address), claims or {})
            for pf in look.observation.pfs
        ]
        seen = {pf.pci_address for pf in pfs}
        unread = [pf for pf in before.pfs if pf.pci_address not in seen and self._is_unread(pf, look)]
        pfs += [self._unread(pf) for pf in unread]
        seen |= {pf.pci_address for pf in unread}
        pfs += [_vanished(pf, before.pfs) for pf in spec.pfs if pf.pci_address not in seen]
        pfs.sort(key=lambda pf: pf.pci_address)
        if look.unknown and any(planned.plan and needs_holders(planned.plan) for planned in look.planned.values()):
            fault = fault or f"{look.unknown}; VFs are not changed meanwhile"
        return NodeStatus(
            observed_generation=generation,
            boot_id=look.observation.boot_id,
            host=look.observation.host,
            pfs=tuple(pfs),
            conditions=summarise_node(
                spec, pfs, look.observation.host, generation=generation, fault=fault, before=before.conditions
            ),
        )

    def _blind_status(self, state: NodeNicState | None, fault: str) -> NodeStatus:
        """What was last known, with how the runs ended since."""
        spec = state.spec if state is not None else NodeSpec()
        before = state.status if state is not None else NodeStatus()
        try:
            journal = self._store.load()
        except JournalError as error:
            journal, fault = Journal(), f"{fault}; {error}"
        records = [(pf, journal.pfs[pf.pci_address]) for pf in before.pfs if pf.pci_address in journal.pfs]
        ended = {pf.pci_address: msgspec.structs.replace(pf, apply=one.apply, attempt=one.attempt) for pf, one in records}
        pfs = tuple(ended.get(pf.pci_address, pf) for pf in before.pfs)
        generation = before.observed_generation
        conditions = summarise_node(spec, pfs, before.host, generation=generation, fault=fault, before=before.conditions)
        return msgspec.structs.replace(before, pfs=pfs, conditions=conditions)

    def _pf_status(
        self, pf: ObservedPf, look: _Look, record: PfRecord, desired: PfSpec | None, claims: Mapping[str, Apply]
    ) -> PfStatus:
        planned = look.planned.get(pf.pci_address, Planned())
        return render_pf_status(
            pf,
            holders=look.holders,
            owned=record.original is not None,
            attempt=record.attempt,
            plan=planned.plan,
            problem=planned.problem or self._run_problem(planned, record, desired),
            apply=claims.get(pf.pci_address, record.apply),
        )

    def _run_problem(self, planned: Planned, record: PfRecord, desired: PfSpec | None) -> PfProblem | None:
        """What hinders a run, as far as something is to be done at all, or an interrupted one is not over."""
        if desired is None or (planned.plan is None and record.running is None):
            return None
        if self._runner.bus_stuck:
            text = f"a write on this node has not returned from the kernel: {record.failure or 'see the other functions'}"
            return PfProblem(reason=PfReason.PCI_BUS_STUCK, message=text)
        if record.running is not None and record.running.undoing:
            return PfProblem(reason=PfReason.APPLY_FAILED, message=record.running.undoing)
        if self._runner.in_flight:
            which = " and ".join(sorted(self._runner.in_flight))
            text = f"a write to {which} by an earlier agent has not returned from the kernel"
            return PfProblem(reason=PfReason.WRITE_STILL_IN_FLIGHT, message=text)
        if record.failure and record.failed_spec is not None and same_desired(record.failed_spec, desired):
            reason = PfReason.ROLLED_BACK if record.rolled_back else reason_of_failure(record.failure)
            return PfProblem(reason=reason, message=record.failure)
        return None

    def _is_unread(self, pf: PfStatus, look: _Look) -> bool:
        return pf.pci_address in self._stuck() or pf.pci_address in look.observation.unreadable

    def _unread(self, pf: PfStatus) -> PfStatus:
        """What was last known of a function that does not answer, with the reason in place of a plan."""
        if self._runner.bus_stuck:
            problem = PfProblem(
                reason=PfReason.PCI_BUS_STUCK, message=f"{pf.pci_address} has a write in the kernel that does not return"
            )
        else:
            problem = PfProblem(reason=PfReason.UNREADABLE, message=f"{pf.pci_address} does not answer reads")
        return msgspec.structs.replace(pf, plan=None, problem=problem)


def _vanished(desired: PfSpec, before: Sequence[PfStatus]) -> PfStatus:
    """A function that a pool asks for and that is not there: nothing can be had of it."""
    known = next((pf for pf in before if pf.pci_address == desired.pci_address), PfStatus(pci_address=desired.pci_address))
    problem = PfProblem(
        reason=PfReason.VANISHED,
        message=f"{known.name or 'the function'} ({desired.pci_address}) is no longer on the bus: look at the hardware and the "
        "kernel's log, or take it out of the pool's nicSelector",
    )
    return msgspec.structs.replace(known, num_vfs=0, vfs=(), held=(), host_use=(), first_vf="", plan=None, problem=problem)
