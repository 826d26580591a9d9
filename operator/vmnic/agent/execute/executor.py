"""Execution of changes on one host.

The executor journals a change, fences devices, verifies the plan, applies it, reads back, probes, and journals the end.

The agent may be killed at any point of a change. The journal then records that the change was running, the PF's state before
it, and what was reachable. The next pass rolls the change back if it cut the node off, and otherwise completes it. The attempt
is part of every digest and rises with each end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec

from ...api.node_state import ApplyState, PfSpec
from ...host.client import HostAccess, OperationTimedOutError, Session, WorkerGoneError, WriteStillInFlightError
from ...inspection.pf_reader import read_pf
from ...inspection.sysfs import SysfsReader
from ...inspection.udev_rules import read_udev_rules
from ...nodes.observed import ObservedPf
from ...nodes.planning.actions import plan_actions
from ...nodes.planning.digest import same_desired
from ...nodes.planning.drivers import NO_SHARED_DRIVER
from ...nodes.planning.plan import Planned, affected_functions, desired_target
from ...nodes.planning.target import Binding, is_switched_on, rollback_target
from ..change import Change, NodeContext
from ..journal import (
    Intent,
    JournalError,
    JournalStore,
    PfRecord,
    mark_awaiting_confirmation,
    mark_finished,
    mark_recovered,
    mark_released,
    mark_rolling_back,
    mark_started,
)
from ..kubelet.podresources import Holders
from ..observe.in_flight import InFlightOperations
from .applier import Applier, ApplyError
from .fence import Fence
from .probes import Probes
from .verification import Verifier

__all__ = ["ChangeExecutor"]

_log = logging.getLogger(__name__)

_PROBE_PAUSE_S = 0.5


class ChangeExecutor:
    """Executes changes on one host.

    Args:
        host: Opens sessions on the node.
        store: The journal.
        holders: Names the holders of VFs.
        probes: Reports whether the node is reachable.
        fence: Keeps the kubelet from allocating VFs that are about to be removed.
        sleep: Sleeps between probes.
        clock: Seconds since boot.
    """

    def __init__(
        self,
        host: HostAccess,
        store: JournalStore,
        holders: Holders,
        probes: Probes,
        fence: Fence,
        *,
        sleep: Callable[[float], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self._host = host
        self._store = store
        self._probes = probes
        self._fence = fence
        self._sleep = sleep
        self._clock = clock
        self.calls = InFlightOperations()
        self._recheck = Verifier(store, holders)
        self._pci = asyncio.Lock()
        """Lock for creating and removing VFs, which the kernel does for one PF at a time. Waiting for it uses no deadline."""

    async def resume(self, boot_id: str) -> None:
        """Handle interrupted changes before anything else.

        A change that cut the node off is rolled back.

        Raises:
            JournalError: The journal cannot be read or written.
        """
        for record in self._store.load().pfs.values():
            intent = record.running
            if intent is None or self.calls.waits or self.calls.bus_stuck:
                continue
            # A reboot resets the kernel's values, so nothing is left to complete. A pending rollback still has to end.
            if intent.boot_id != boot_id and not intent.rolling_back:
                self._journal_end(intent.desired, intent.digest, ApplyState.REFUSED, "the node rebooted during the change")
            elif intent.rolling_back or not await self._is_reachable(intent):
                await self._roll_back(intent.desired, intent.digest)

    def recover(self, wanted: Iterable[PfSpec], planned: dict[str, Planned]) -> None:
        """End interrupted changes whose outcome is clear.

        The outcome is clear if the change is complete, impossible, or no longer asked for. A change that still has work to do
        and may do it is completed by another run under the same digest. A PF that the pool releases, and that needs no further
        write, is no longer owned by vmnic.
        """
        by_address = {pf.pci_address: pf for pf in wanted}
        for address, record in self._store.load().pfs.items():
            desired, found = by_address.get(address), planned.get(address)
            if desired is not None and found is None:
                continue  # The PF could not be read.
            if record.running is not None:
                self._recover_one(record.running, desired, found)
            elif desired is not None and desired.release and record.original is not None and found == Planned():
                self._prune_journal(address, record)
            elif desired is not None and found == Planned() and _has_healed(record, desired):
                self._store.update(self._store.load(), address, mark_recovered(record, desired))
            elif desired is None and record.granted is not None:
                # No pool asks for the PF any more, so it is not restored at the next boot.
                self._store.update(self._store.load(), address, msgspec.structs.replace(record, granted=None))

    def _recover_one(self, intent: Intent, desired: PfSpec | None, found: Planned | None) -> None:
        if self.calls.waits or self.calls.bus_stuck or intent.rolling_back:
            return
        if desired is None or not same_desired(intent.desired, desired):
            self._journal_end(intent.desired, intent.digest, ApplyState.REFUSED, "interrupted, and the spec has changed since")
        elif found is not None and found.problem is not None:
            self._journal_end(desired, intent.digest, ApplyState.FAILED, found.problem.message)
        elif found is None or found.plan is None:
            self._journal_end(desired, intent.digest, ApplyState.APPLIED, "")

    async def execute(self, runs: list[Change], place: NodeContext) -> str:
        """Run the changes in parallel, each in its own session.

        Changes that reload a driver run first, one after another.

        Returns:
            Why no further write is allowed, or an empty string.
        """
        alone = [run for run in runs if run.reloads]
        results: list[BaseException | None] = []
        try:
            # Asked once and before all changes. Later answers could already show what one of them has cut off.
            probes = await self._probes.working(self._self_enabled_links())
        except JournalError as error:
            return f"{error}; the host is not changed meanwhile"
        for run in alone:  # A reload affects other PFs of the driver, so the next reload must see its result.
            results += await asyncio.gather(self._execute_one(run, place, probes), return_exceptions=True)
        side_by_side = (self._execute_one(run, place, probes) for run in runs if not run.reloads)
        # Without return_exceptions, the first error would end the pass while the other changes still run.
        results += await asyncio.gather(*side_by_side, return_exceptions=True)
        for result in results:
            if isinstance(result, JournalError):
                return f"{result}; the host is not changed meanwhile"
            if isinstance(result, BaseException):
                raise result
        return ""

    async def _execute_one(self, run: Change, place: NodeContext, probes: tuple[str, ...]) -> None:
        """Journal, fence, change, probe and journal the end of one change.

        Args:
            run: The change.
            place: The node.
            probes: What was reachable before any change.
        """
        address = run.desired.pci_address
        if self.calls.bus_stuck:  # A write got stuck after the changes were chosen.
            return
        going = run.going
        try:
            # The lock precedes the journal: while an earlier agent's write holds it, that change must stay journaled as it is.
            async with self._host.session(address, write=True) as session:
                intent = self._journal_start(run, probes, place.boot_id)
                if going:
                    await self._fence.close(going)
                # `_change` reads the holders after the fence is closed, so no container starts that it has not seen.
                state, message = await self._change(session, run, place)
            # A call that did not return does not end the change. The rollback waits until the call returns, and `resume`
            # retries it.
            # A refused change has written nothing, so it cannot have cut the node off.
            if state is ApplyState.REFUSED or await self._is_reachable(self._await_probes(address) or intent):
                self._journal_end(run.desired, run.digest, state, message)
            else:
                await self._roll_back(run.desired, run.digest)
        except WriteStillInFlightError as error:
            self._wait_for_write(run, str(error))
        finally:
            if going:
                await self._fence.open(going)

    def _wait_for_write(self, run: Change, message: str) -> None:
        """Handle an earlier agent's write that is still in flight.

        A new change is refused. An interrupted change stays as it is until that write has returned.
        """
        address = run.desired.pci_address
        self.calls.note_in_flight(address)
        if self._store.load().of(address).running is None:
            self._journal_end(run.desired, run.digest, ApplyState.REFUSED, message)

    async def _change(self, session: Session, run: Change, place: NodeContext) -> tuple[ApplyState, str]:
        """Apply a plan and read back.

        Returns:
            How the change ended, and why if it did not succeed.
        """
        address, reader = run.desired.pci_address, SysfsReader(session)
        try:
            refusal = await self._recheck.before(run, place, reader)
            if refusal:
                return ApplyState.REFUSED, refusal
            await self._applier(session, run.desired, run.observed).apply(run.plan.actions)
            difference = await self._recheck.after(run, place, reader)
        except OperationTimedOutError as error:
            self.calls.note_late(address, error)
            return ApplyState.FAILED, f"{address}: {error}"
        except (ApplyError, WorkerGoneError, OSError) as error:
            return ApplyState.FAILED, str(error)
        return (ApplyState.FAILED if difference else ApplyState.APPLIED), difference

    def _applier(self, session: Session, desired: PfSpec, observed: ObservedPf) -> Applier:
        # Only the bindings are used, and they do not depend on what PFs of a driver share.
        target = desired_target(desired, self._store.load().of(desired.pci_address).original, NO_SHARED_DRIVER)
        return self._applier_of(session, observed, target.bindings if target is not None else ())

    def _applier_of(self, session: Session, observed: ObservedPf, bindings: Sequence[Binding]) -> Applier:
        return Applier(session, observed, bindings, pci=self._pci, is_stuck=lambda: self.calls.bus_stuck, sleep=self._sleep)

    async def _is_reachable(self, intent: Intent) -> bool:
        """Wait until everything that was reachable before a change is reachable again.

        The wait ends at the deadline that the pool's `rollbackTimeout` sets.
        """
        while not await self._probes.hold(intent.probes, self._self_enabled_links()):
            if self._clock() >= intent.deadline:
                return False
            await self._sleep(_PROBE_PAUSE_S)
        return True

    def _self_enabled_links(self) -> tuple[str, ...]:
        """Return the PFs that vmnic enabled.

        What the kernel learned there from router advertisements is no path that the node relies on.
        """
        pfs = self._store.load().pfs
        return tuple(sorted(address for address, record in pfs.items() if is_switched_on(record.original)))

    async def _roll_back(self, desired: PfSpec, digest: str | None) -> None:
        """Restore the state of a PF before its change, without the controller."""
        address = desired.pci_address
        record = self._store.load().of(address)
        intent = record.running
        assert intent is not None
        lost = f"{' and '.join(intent.probes)} not reachable again within {desired.rollback_timeout_s} s"
        if not intent.rolling_back:
            # Journaled before the first write of the rollback, so that no restarted agent completes the change instead.
            self._store.update(self._store.load(), address, mark_rolling_back(record, lost, failed=False))
        target = rollback_target(intent.before, record.granted)
        try:
            async with self._host.session(address, write=True) as session:
                reader = SysfsReader(session)
                observed = await read_pf(reader, address, await reader.links(), rules=await read_udev_rules(reader))
                steps = plan_actions(target, observed)
                # A write would wait in the kernel for the holder, and block all PCI changes of the node meanwhile.
                held = [one for one in affected_functions(steps, target, observed) if one in observed.held_addresses]
                if held:
                    raise ApplyError(f"{', '.join(held)} is held")
                await self._applier_of(session, observed, target.bindings).apply(steps)
        except WriteStillInFlightError:
            self.calls.note_in_flight(address)
            return  # The rollback happens once that write has returned.
        except (OperationTimedOutError, ApplyError, WorkerGoneError, OSError) as error:
            if isinstance(error, OperationTimedOutError):
                self.calls.note_late(address, error)
            # The change has not ended, so every pass retries the rollback. Report it as failed, so that no other node
            # starts.
            why = f"{lost}, and the change cannot be undone yet: {error}"
            self._store.update(self._store.load(), address, mark_rolling_back(record, why, failed=True))
            _log.error("%s: %s", address, why, extra={"pf": address})
            return
        # A repair has no grant to answer, but its rollback must be published, so it ends under its plan's digest.
        self._journal_end(desired, digest or intent.digest, ApplyState.ROLLED_BACK, f"{lost}: the change was undone")

    def _journal_start(self, run: Change, probes: tuple[str, ...], boot_id: str) -> Intent:
        """Journal a change before its first write."""
        journal, address = self._store.load(), run.desired.pci_address
        record = mark_started(
            journal.of(address),
            run.desired,
            run.observed,
            digest=run.digest or run.plan.digest,
            granted=run.digest is not None,
            probes=probes,
            boot_id=boot_id,
            approved=run.approved,
            now=self._clock(),
        )
        self._store.update(journal, address, record)
        _log.info("%s: %s", address, run.plan.text, extra={"pf": address})
        assert record.running is not None
        return record.running

    def _await_probes(self, address: str) -> Intent | None:
        """Journal that all is written, with the time until which the node must become reachable."""
        journal = self._store.load()
        record = mark_awaiting_confirmation(journal.of(address), self._clock())
        self._store.update(journal, address, record)
        return record.running

    def _journal_end(self, desired: PfSpec, digest: str | None, state: ApplyState, message: str) -> None:
        """Journal the end of a change."""
        journal, address = self._store.load(), desired.pci_address
        self._store.update(journal, address, mark_finished(journal.of(address), desired, digest, state, message))
        level = logging.INFO if state is ApplyState.APPLIED else logging.WARNING
        _log.log(level, "%s: %s %s", address, state, message, extra={"pf": address})

    def _prune_journal(self, address: str, record: PfRecord) -> None:
        self._store.update(self._store.load(), address, mark_released(record))
        _log.info("%s is released", address, extra={"pf": address})


def _has_healed(record: PfRecord, desired: PfSpec) -> bool:
    """Return whether the last change failed at the present spec without cutting the node off."""
    failed = record.failed_spec
    return failed is not None and not record.rolled_back and not desired.release and same_desired(failed, desired)
