"""One pass of the agent: observe, plan, claim, apply, read back, report. It may be repeated and killed at any point.

Nothing is written to the host without a grant, except to bring back what was granted before: after a reboot, a restart in the
middle of a run, or drift. A grant is a plan's digest; the digest holds the attempt, which rises with every end of a run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec

from ..host.client import HostAccess, OperationTimedOutError, WorkerGoneError, WriteStillInFlightError
from ..kube.errors import ApiError
from ..nodes.digest import same_desired
from ..nodes.observed import ObservedPf, render_pf_status
from ..nodes.plan import Planned, plan_pf
from ..nodes.state import (
    Apply,
    ApplyState,
    NodeNicState,
    NodeSpec,
    NodeStatus,
    PfPlan,
    PfProblem,
    PfReason,
    PfSpec,
    PfStatus,
)
from .apply import Applier, ApplyError
from .journal import Journal, JournalError, JournalStore, Original, PfRecord
from .observe import Observation, Reader, observe_host, read_pf
from .podresources import Holders
from .reporter import Reporter
from .status import same_status, summarise_node

__all__ = ["NodePass"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What one look gave: the host, who holds VFs, and a plan for each function that is asked for."""

    observation: Observation
    holders: Mapping[str, str]
    planned: Mapping[str, Planned]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One function that is about to be changed."""

    desired: PfSpec
    observed: ObservedPf
    plan: PfPlan
    digest: str | None
    """The granted digest that the run answers for; None: it brings back what was granted before."""


class NodePass:
    """Everything that the agent does to its node.

    Args:
        host: Opens sessions on the node.
        store: The journal.
        holders: Names who holds VFs.
        reporter: Where orders come from and status goes.
        sleep: Waits between looks for VFs.
    """

    def __init__(
        self,
        *,
        host: HostAccess,
        store: JournalStore,
        holders: Holders,
        reporter: Reporter,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._host = host
        self._store = store
        self._holders = holders
        self._reporter = reporter
        self._sleep = sleep
        self._stuck: dict[str, asyncio.Future[None]] = {}
        """Functions with a call in the kernel that has not returned."""
        self._bus_stuck: asyncio.Future[None] | None = None
        """A write that has not returned: the kernel holds a global lock, so no further one is started."""

    async def run(self, state: NodeNicState | None) -> NodeStatus:
        """Make one pass and give the status as it is published.

        Args:
            state: The NodeNicState as last seen; None if there is none, then the host is only looked at.

        Raises:
            OSError, OperationTimedOutError: the host as such cannot be read.
            WorkerGoneError: the host worker died.
            ApiError: the status could not be published.
        """
        spec = state.spec if state is not None else NodeSpec()
        try:
            journal, fault = self._store.load(), ""
        except JournalError as error:
            journal, fault = Journal(), f"{error}; the host is not changed meanwhile"
        look = await self._look(spec, journal)
        if state is not None and spec.synced and not fault:
            runs = self._choose(spec, look, journal)
            runs = await self._claim(runs, look, journal)
            if runs:
                fault = await self._carry_out(runs, look)
                journal = self._store.load()
                look = await self._look(spec, journal)
        status = self._status(state, look, journal, fault)
        if state is not None and not same_status(status, state.status):
            await self._reporter.publish(status)
        return status

    async def _look(self, spec: NodeSpec, journal: Journal) -> _Look:
        self._forget_returned()
        observation = await observe_host(self._host, leave_out=self._stuck)
        for address, error in observation.unreadable.items():
            if isinstance(error, OperationTimedOutError):
                self._stuck[address] = error.returned
        holders = await self._holders.read()
        observed = {pf.pci_address: pf for pf in observation.pfs}
        planned = {
            pf.pci_address: plan_pf(
                pf,
                observed[pf.pci_address],
                host=observation.host,
                boot_id=observation.boot_id,
                attempt=journal.of(pf.pci_address).attempt,
                holders=holders,
            )
            for pf in spec.pfs
            if pf.pci_address in observed
        }
        return _Look(observation=observation, holders=holders, planned=planned)

    def _forget_returned(self) -> None:
        self._stuck = {address: returned for address, returned in self._stuck.items() if not returned.done()}
        if self._bus_stuck is not None and self._bus_stuck.done():
            self._bus_stuck = None

    def _choose(self, spec: NodeSpec, look: _Look, journal: Journal) -> list[_Run]:
        """Say which plans may be carried out now: granted ones, and those that bring back what was granted."""
        if self._bus_stuck is not None:
            return []
        observed = {pf.pci_address: pf for pf in look.observation.pfs}
        runs = []
        for desired in spec.pfs:
            plan = look.planned.get(desired.pci_address, Planned()).plan
            if plan is None or plan.disruptive:
                continue
            record = journal.of(desired.pci_address)
            known = record.granted is not None and same_desired(record.granted, desired)
            if desired.grant == plan.digest or known:
                digest = plan.digest if desired.grant == plan.digest else record.running
                runs.append(_Run(desired=desired, observed=observed[desired.pci_address], plan=plan, digest=digest))
        return runs

    async def _claim(self, runs: list[_Run], look: _Look, journal: Journal) -> list[_Run]:
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

    async def _carry_out(self, runs: list[_Run], look: _Look) -> str:
        """Run the plans side by side, each in its own session; gives what forbids writes from now on, in words."""
        results = await asyncio.gather(*(self._run_one(run, look) for run in runs), return_exceptions=True)
        for result in results:
            if isinstance(result, JournalError):
                return f"{result}; the host is not changed meanwhile"
            if isinstance(result, BaseException):
                raise result
        return ""

    async def _run_one(self, run: _Run, look: _Look) -> None:
        """Journal, apply, read back, journal."""
        address = run.desired.pci_address
        self._begin(run)
        try:
            async with self._host.session(address, write=True) as session:
                refusal = await self._check_again(run, look, Reader(session))
                if refusal:
                    self._end(run, ApplyState.REFUSED, refusal)
                    return
                applier = Applier(session, address, run.observed.name, sleep=self._sleep)
                await applier.apply(run.plan.actions)
                difference = await self._check_result(run, look, Reader(session))
            self._end(run, ApplyState.FAILED if difference else ApplyState.APPLIED, difference)
        except WriteStillInFlightError as error:
            self._end(run, ApplyState.REFUSED, str(error))
        except OperationTimedOutError as error:
            self._stuck[address] = self._bus_stuck = error.returned
            self._end(run, ApplyState.FAILED, f"{address}: {error}")
        except (ApplyError, WorkerGoneError, OSError) as error:
            self._end(run, ApplyState.FAILED, str(error))

    async def _check_again(self, run: _Run, look: _Look, reader: Reader) -> str:
        """Read the function once more right before the first write; gives what has changed, empty if nothing."""
        planned, holders = await self._replan(run, look, reader)
        if planned.plan is None or planned.plan.actions != run.plan.actions:
            return f"{run.desired.pci_address} has changed since it was planned"
        return ", ".join(f"{who}" for who in planned.plan.blocked_by) if holders or planned.plan.blocked_by else ""

    async def _check_result(self, run: _Run, look: _Look, reader: Reader) -> str:
        """Read back what was written; gives how it differs from what was desired, empty if it does not."""
        planned, _ = await self._replan(run, look, reader)
        if planned.problem is not None:
            return planned.problem.message
        return f"{run.desired.pci_address}: read back, still to do: {planned.plan.text}" if planned.plan is not None else ""

    async def _replan(self, run: _Run, look: _Look, reader: Reader) -> tuple[Planned, Mapping[str, str]]:
        observed = await read_pf(reader, run.desired.pci_address, await reader.links())
        holders = await self._holders.read()
        planned = plan_pf(
            run.desired,
            observed,
            host=look.observation.host,
            boot_id=look.observation.boot_id,
            attempt=self._store.load().of(run.desired.pci_address).attempt,
            holders=holders,
        )
        return planned, holders

    def _begin(self, run: _Run) -> None:
        """Journal ownership, original values and the intent, before the first write."""
        journal = self._store.load()
        record = journal.of(run.desired.pci_address)
        before = run.observed
        original = Original(num_vfs=before.num_vfs, autoprobe=before.autoprobe, mtu=before.mtu)
        apply = record.apply
        if run.digest is not None:
            apply = Apply(digest=run.digest, state=ApplyState.APPLYING)
        record = msgspec.structs.replace(
            record,
            original=record.original or original,
            granted=msgspec.structs.replace(run.desired, grant=None),
            running=run.digest or run.plan.digest,
            apply=apply,
        )
        self._store.update(journal, run.desired.pci_address, record)
        _log.info("%s: %s", run.desired.pci_address, run.plan.text, extra={"pf": run.desired.pci_address})

    def _end(self, run: _Run, state: ApplyState, message: str) -> None:
        """Journal the end of a run: its grant is used up."""
        journal = self._store.load()
        record = journal.of(run.desired.pci_address)
        failed = state is ApplyState.FAILED
        granted = record.granted if state is ApplyState.APPLIED or run.digest is None else None
        record = msgspec.structs.replace(
            record,
            granted=granted,
            running=None,
            attempt=record.attempt + 1,
            apply=Apply(digest=run.digest, state=state, message=message[:512]) if run.digest is not None else record.apply,
            failure=message[:512] if failed else None,
            failed_spec=msgspec.structs.replace(run.desired, grant=None) if failed else None,
        )
        self._store.update(journal, run.desired.pci_address, record)
        level = logging.INFO if state is ApplyState.APPLIED else logging.WARNING
        _log.log(level, "%s: %s %s", run.desired.pci_address, state, message, extra={"pf": run.desired.pci_address})

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
        pfs += [self._unread(pf) for pf in before.pfs if pf.pci_address not in seen and self._is_unread(pf, look)]
        pfs.sort(key=lambda pf: pf.pci_address)
        return NodeStatus(
            observed_generation=generation,
            boot_id=look.observation.boot_id,
            host=look.observation.host,
            pfs=tuple(pfs),
            conditions=summarise_node(spec, pfs, generation=generation, fault=fault, before=before.conditions),
        )

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
        """What hinders a run, as far as something is to be done at all."""
        if desired is None or planned.plan is None:
            return None
        if self._bus_stuck is not None:
            text = f"a write on this node has not returned from the kernel: {record.failure or 'see the other functions'}"
            return PfProblem(reason=PfReason.PCI_BUS_STUCK, message=text)
        if record.failure and record.failed_spec is not None and same_desired(record.failed_spec, desired):
            return PfProblem(reason=PfReason.APPLY_FAILED, message=record.failure)
        return None

    def _is_unread(self, pf: PfStatus, look: _Look) -> bool:
        return pf.pci_address in self._stuck or pf.pci_address in look.observation.unreadable

    def _unread(self, pf: PfStatus) -> PfStatus:
        """What was last known of a function that does not answer, with the reason in place of a plan."""
        if self._bus_stuck is not None:
            problem = PfProblem(
                reason=PfReason.PCI_BUS_STUCK, message=f"{pf.pci_address} has a write in the kernel that does not return"
            )
        else:
            problem = PfProblem(reason=PfReason.UNREADABLE, message=f"{pf.pci_address} does not answer reads")
        return msgspec.structs.replace(pf, plan=None, problem=problem)
