"""Carries out chosen plans: journals, checks once more, applies, reads back, journals the end.

A run may be killed at any point. The journal then says that it was running and what had been granted, so the next pass brings
it to its end; the attempt, part of every digest, rises with each end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from ..host.client import HostAccess, OperationTimedOutError, WorkerGoneError, WriteStillInFlightError
from ..nodes.digest import same_desired
from ..nodes.observed import ObservedPf
from ..nodes.plan import Planned, plan_pf
from ..nodes.state import Apply, ApplyState, HostFacts, PfPlan, PfSpec
from .apply import Applier, ApplyError
from .journal import JournalError, JournalStore, Original
from .observe import Reader, read_pf
from .podresources import Holders

__all__ = ["Run", "Runner"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One function that is about to be changed."""

    desired: PfSpec
    observed: ObservedPf
    plan: PfPlan
    digest: str | None
    """The granted digest that the run answers for; None: it brings back what was granted before."""


class Runner:
    """Carries out runs on one host.

    Args:
        host: Opens sessions on the node.
        store: The journal.
        holders: Names who holds VFs.
        sleep: Waits between looks for VFs.
    """

    def __init__(
        self,
        host: HostAccess,
        store: JournalStore,
        holders: Holders,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._host = host
        self._store = store
        self._holders = holders
        self._sleep = sleep
        self.stuck: dict[str, asyncio.Future[None]] = {}
        """Functions with a write in the kernel that has not returned."""
        self.in_flight: set[str] = set()
        """Functions on which a write of an earlier agent has not returned."""

    @property
    def bus_stuck(self) -> bool:
        """Whether a write has not returned: the kernel holds a global lock then, so no further one is started."""
        self.stuck = {address: returned for address, returned in self.stuck.items() if not returned.done()}
        return bool(self.stuck)

    async def forget_returned(self) -> None:
        """Look whether writes of an earlier agent have returned: their locks are free then."""
        for address in sorted(self.in_flight):
            with contextlib.suppress(WriteStillInFlightError, WorkerGoneError):
                async with self._host.session(address, write=True):
                    self.in_flight.discard(address)

    def conclude(self, desired: PfSpec, planned: Planned) -> None:
        """End a run that was interrupted, once it is clear how: done after all, impossible, or asked for no more.

        A run that still has something to do, and may, is brought to its end by another one under the same digest.
        """
        record = self._store.load().of(desired.pci_address)
        if record.running is None:
            return
        if record.granted is None or not same_desired(record.granted, desired):
            self._conclude(desired, ApplyState.REFUSED, "interrupted, and something else is asked for now")
        elif planned.problem is not None:
            self._conclude(desired, ApplyState.FAILED, planned.problem.message)
        elif planned.plan is None:
            self._conclude(desired, ApplyState.APPLIED, "")

    async def carry_out(self, runs: list[Run], host: HostFacts, boot_id: str) -> str:
        """Run the plans side by side, each in its own session; gives what forbids writes from now on, in words."""
        results = await asyncio.gather(*(self._run_one(run, host, boot_id) for run in runs), return_exceptions=True)
        for result in results:
            if isinstance(result, JournalError):
                return f"{result}; the host is not changed meanwhile"
            if isinstance(result, BaseException):
                raise result
        return ""

    async def _run_one(self, run: Run, host: HostFacts, boot_id: str) -> None:
        """Journal, apply, read back, journal."""
        address = run.desired.pci_address
        self._begin(run)
        try:
            async with self._host.session(address, write=True) as session:
                refusal = await self._check_again(run, host, boot_id, Reader(session))
                if refusal:
                    self._end(run, ApplyState.REFUSED, refusal)
                    return
                applier = Applier(session, address, run.observed.name, sleep=self._sleep)
                await applier.apply(run.plan.actions)
                difference = await self._check_result(run, host, boot_id, Reader(session))
            self._end(run, ApplyState.FAILED if difference else ApplyState.APPLIED, difference)
        except WriteStillInFlightError as error:
            self.in_flight.add(address)
            self._end(run, ApplyState.REFUSED, str(error))
        except OperationTimedOutError as error:
            self.stuck[address] = error.returned
            self._end(run, ApplyState.FAILED, f"{address}: {error}")
        except (ApplyError, WorkerGoneError, OSError) as error:
            self._end(run, ApplyState.FAILED, str(error))

    async def _check_again(self, run: Run, host: HostFacts, boot_id: str, reader: Reader) -> str:
        """Read the function once more right before the first write; gives what has changed, empty if nothing."""
        planned = await self._replan(run, host, boot_id, reader)
        if planned.plan is None or planned.plan.actions != run.plan.actions:
            return f"{run.desired.pci_address} has changed since it was planned"
        return ", ".join(planned.plan.blocked_by)

    async def _check_result(self, run: Run, host: HostFacts, boot_id: str, reader: Reader) -> str:
        """Read back what was written; gives how it differs from what was desired, empty if it does not."""
        planned = await self._replan(run, host, boot_id, reader)
        if planned.problem is not None:
            return planned.problem.message
        return f"{run.desired.pci_address}: read back, still to do: {planned.plan.text}" if planned.plan is not None else ""

    async def _replan(self, run: Run, host: HostFacts, boot_id: str, reader: Reader) -> Planned:
        observed = await read_pf(reader, run.desired.pci_address, await reader.links())
        return plan_pf(
            run.desired,
            observed,
            host=host,
            boot_id=boot_id,
            attempt=self._store.load().of(run.desired.pci_address).attempt,
            holders=await self._holders.read(),
        )

    def _begin(self, run: Run) -> None:
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

    def _end(self, run: Run, state: ApplyState, message: str) -> None:
        self._journal_end(run.desired, run.digest, state, message)

    def _conclude(self, desired: PfSpec, state: ApplyState, message: str) -> None:
        record = self._store.load().of(desired.pci_address)
        self._journal_end(desired, record.running, state, message)

    def _journal_end(self, desired: PfSpec, digest: str | None, state: ApplyState, message: str) -> None:
        """Journal the end of a run: its grant is used up."""
        journal = self._store.load()
        record = journal.of(desired.pci_address)
        failed = state is ApplyState.FAILED
        granted = record.granted if state is ApplyState.APPLIED or digest is None else None
        # To be refused what needed no grant is no end: nothing was begun, and it is tried again as it is.
        ended = digest is not None or state is not ApplyState.REFUSED
        record = msgspec.structs.replace(
            record,
            granted=granted,
            running=None,
            attempt=record.attempt + ended,
            apply=Apply(digest=digest, state=state, message=message[:512]) if digest is not None else record.apply,
            failure=message[:512] if failed else None,
            failed_spec=msgspec.structs.replace(desired, grant=None) if failed else None,
        )
        self._store.update(journal, desired.pci_address, record)
        level = logging.INFO if state is ApplyState.APPLIED else logging.WARNING
        _log.log(level, "%s: %s %s", desired.pci_address, state, message, extra={"pf": desired.pci_address})
