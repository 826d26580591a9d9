"""One pass of the agent, which observes, plans, claims, applies, reads back and reports.

A pass may be repeated, and killed at any point. Nothing is written to the host without a grant, except to restore what was
granted before, after a reboot, an agent restart during a change, or drift. A grant is the digest of a plan. The digest includes
the attempt, which rises with every end of a change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from typing import Protocol, TypeVar

import msgspec

from ..api.node_state import Apply, ApplyState, NodeNicState, NodeSpec, NodeStatus
from ..api.reasons import PfReason
from ..host.client import HostAccess, OperationTimedOutError, WorkerGoneError
from ..inspection.errno_hints import describe_errno
from ..kube.backoff import Backoff
from ..kube.errors import ApiError
from ..kube.tasks import cancel_and_wait
from ..nodes.planning.digest import same_desired
from ..nodes.planning.plan import Planned
from .change import Change, NodeContext, needs_holders
from .execute.executor import ChangeExecutor
from .execute.fence import Fence
from .execute.probes import Probes, boot_clock
from .journal import Journal, JournalError, JournalStore
from .kubelet.plugin import Devices
from .kubelet.podresources import Holders
from .node_state_client import NodeStateClient
from .observe.observer import NodeObservation, NodeObserver
from .status.publisher import Publisher
from .status.render import InFlightSummary, render_status, render_unobservable

__all__ = ["HostReconciler", "ReconcilerProtocol"]

_log = logging.getLogger(__name__)


T = TypeVar("T")
_FAULT_CHARS = 512

_BACKOFF_S = (5.0, 300.0)
"""Delays between attempts to restore a PF, in seconds (min, max). A restart of the agent forgets earlier failures."""
_IDLE_REFRESH_S = 3.0
"""Interval at which the other PFs are observed while some are being changed."""


class ReconcilerProtocol(Protocol):
    """Runs passes over the node."""

    async def run(self, state: NodeNicState | None) -> NodeStatus:
        """Run one pass (see `HostReconciler.run`)."""
        ...

    async def reconcile_offline(self) -> None:
        """Run one pass without the API server (see `HostReconciler.reconcile_offline`)."""
        ...


class HostReconciler:
    """Reconciles one node with its NodeNicState.

    Args:
        host: Opens sessions on the node.
        store: The journal.
        holders: Names the holders of VFs.
        reporter: Client of this node's NodeNicState.
        probes: Reports whether the node is reachable.
        fence: Keeps the kubelet from allocating VFs that are about to be removed.
        devices: Receives the devices to advertise.
        refused: Modules that the init container could not load, each with the kernel's answer.
        sleep: Sleeps between polls.
        clock: Seconds since boot.
    """

    def __init__(
        self,
        *,
        host: HostAccess,
        store: JournalStore,
        holders: Holders,
        reporter: NodeStateClient,
        probes: Probes,
        fence: Fence,
        devices: Devices,
        refused: tuple[str, ...] = (),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._store = store
        self._reporter = reporter
        self._clock = clock
        self._runner = ChangeExecutor(host, store, holders, probes, fence, sleep=sleep, clock=clock)
        self._looker = NodeObserver(host, store, holders, devices, calls=self._runner.calls, refused=refused, clock=clock)
        self._backoff = Backoff(_BACKOFF_S)
        self._publisher = Publisher(reporter)

    async def run(self, state: NodeNicState | None) -> NodeStatus:
        """Run one pass and return the status as it is published.

        Args:
            state: The NodeNicState as last seen. None if there is none, in which case the host is only observed.

        Raises:
            OSError: The host as a whole cannot be read.
            WorkerGoneError: The host worker died.
            ApiError: The status could not be published.
        """
        state = self._publisher.begin(state)
        spec = state.spec if state is not None else NodeSpec()
        try:
            # Before the controller has synced the spec, it may lack PFs. Acting on it would forget what was granted for them.
            look, journal, fault = await self._reconcile_once(
                spec, state.approvals if state is not None else {}, acts=state is not None and spec.synced
            )
        except (OperationTimedOutError, OSError, WorkerGoneError) as error:
            status = self._unobservable_status(state, _unobservable_reason(error))
            await self._publisher.publish(status)
            if isinstance(error, OperationTimedOutError):
                return status
            raise
        except ApiError:
            raise
        except Exception as error:
            # The agent could not handle what the host, or another program on it, reports. The advertised devices stay.
            await self._publisher.publish(self._failed(state, error))
            raise
        # The decoder puts an empty, unsynced spec in place of one that cannot be read, so the pass above only observed.
        if state is not None and state.spec_unreadable:
            fault = fault or f"the spec cannot be read ({state.spec_unreadable}); the host is not changed meanwhile"
        status = render_status(self._with_metadata(state), look, journal, self._calls(), fault=fault, claims={})
        await self._publisher.publish(status)
        return status

    def _failed(self, state: NodeNicState | None, error: Exception) -> NodeStatus:
        """Return the status of a node that an internal error of the agent keeps from being observed."""
        journal, broken = self._load()
        fault = f"the agent cannot handle what it found ({type(error).__name__}: {error}): report its log"
        return render_unobservable(
            self._with_metadata(state), journal, broken or f"{fault[:_FAULT_CHARS]}; the host is not changed meanwhile"
        )

    def _unobservable_status(self, state: NodeNicState | None, fault: str) -> NodeStatus:
        """Withdraw all devices and report the node as unobservable."""
        journal, broken = self._load()
        self._looker.withdraw(state.spec if state is not None else NodeSpec(), journal)
        return render_unobservable(self._with_metadata(state), journal, broken or f"{fault}; the host is not changed meanwhile")

    def _with_metadata(self, state: NodeNicState | None) -> NodeNicState | None:
        """Return the object that was observed, with the status that it has now."""
        shown = self._publisher.shown
        return state if state is None or shown is None else msgspec.structs.replace(state, status=shown.status)

    async def reconcile_offline(self) -> None:
        """Restore what was granted before, and roll back what cut the node off, without the API server.

        Raises:
            OSError, OperationTimedOutError: The host as a whole cannot be read.
            WorkerGoneError: The host worker died.
        """
        # Without an object to show, nothing is published during this pass.
        self._publisher.begin(None)
        try:
            records = self._store.load().pfs.values()
        except JournalError as error:
            _log.error("%s", error)
            return
        granted = tuple(record.granted for record in records if record.granted is not None)
        running = tuple(record.running.desired for record in records if record.running is not None)
        # A running change comes second and so replaces the granted spec: it must end before anything else is restored.
        wanted = {pf.pci_address: pf for pf in (*granted, *running)}
        await self._reconcile_once(NodeSpec(synced=True, pfs=tuple(wanted.values())), {}, acts=True)

    async def _reconcile_once(
        self, spec: NodeSpec, approvals: Mapping[str, frozenset[str]], *, acts: bool
    ) -> tuple[NodeObservation, Journal, str]:
        """Observe, apply, and observe again if anything changed.

        Args:
            spec: The node's spec.
            approvals: IDs of the approved soft blockers by the digest of the plan.
            acts: Whether the host may be changed.

        Returns:
            The observation, the journal, and why writes are forbidden, which is empty if they are allowed.
        """
        journal, fault = self._load()
        look = await self._look(spec, journal)
        if acts and not fault:
            fault = await self._apply_changes(spec, approvals, look, journal)
            fresh = self._store.load() if not fault else journal
            # Every change ends in the journal, so without a difference the host is as it was observed.
            if fresh != journal:
                journal = fresh
                look = await self._look(spec, journal)
        return look, journal, fault

    def _load(self) -> tuple[Journal, str]:
        """Read the journal.

        Returns:
            The journal, and why writes are forbidden, which is empty if they are allowed.
        """
        try:
            return self._store.load(), ""
        except JournalError as error:
            return Journal(), f"{error}; the host is not changed meanwhile"

    async def _apply_changes(
        self, spec: NodeSpec, approvals: Mapping[str, frozenset[str]], look: NodeObservation, journal: Journal
    ) -> str:
        """End interrupted changes and execute those that may run.

        Returns:
            Why no further write is allowed, or an empty string.
        """
        host, boot_id = look.observation.host, look.observation.boot_id
        try:
            interrupted = {address for address, record in journal.pfs.items() if record.running is not None}
            if interrupted:
                await self._refresh_idle(self._runner.resume(boot_id), spec, look, interrupted)
                journal = self._store.load()
                # A rollback has changed the host, so plans from the first observation no longer apply.
                look = await self._look(spec, journal)
            self._runner.recover(spec.pfs, dict(look.planned))
            journal = self._store.load()
        except JournalError as error:
            return f"{error}; the host is not changed meanwhile"
        runs = await self._claim(self._select_changes(spec, approvals, look, journal), look, journal)
        place = NodeContext(host=host, boot_id=boot_id, desired=spec.pfs)
        if not runs:
            return ""
        changed = {run.desired.pci_address for run in runs}
        # The other PFs of a reloaded driver lose links and VFs for a moment, and would be reported as faulty.
        busy = changed.union(*(run.driver.others for run in runs if run.reloads))
        fault = await self._refresh_idle(self._runner.execute(runs, place), spec, look, busy)
        self._note_failures(changed)
        return fault

    def _note_failures(self, changed: Collection[str]) -> None:
        """Record failures to restore PFs, which delays the next attempt."""
        journal, _ = self._load()
        for address in changed:
            if journal.of(address).failure:
                self._backoff.record_failure(address, self._clock())
            else:
                self._backoff.reset(address)

    async def _refresh_idle(
        self, work: Coroutine[None, None, T], spec: NodeSpec, look: NodeObservation, busy: Collection[str]
    ) -> T:
        """Run something that may take minutes, and observe the idle PFs meanwhile."""
        working = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({working}, timeout=_IDLE_REFRESH_S))[0]:
                await self._glance(spec, look, busy)
        finally:
            await cancel_and_wait([working])
        return working.result()

    async def _glance(self, spec: NodeSpec, look: NodeObservation, busy: Collection[str]) -> None:
        """Withdraw and report devices that disappeared from idle PFs.

        An error here is only logged, because the end of the pass reports it.
        """
        journal, fault = self._load()
        try:
            look = await self._looker.observe_idle(spec, journal, look, busy)
            shown = self._publisher.shown
            # Without the journal every PF would be reported as not owned.
            if shown is not None and not fault:
                await self._publisher.publish(render_status(shown, look, journal, self._calls(), fault="", claims={}))
        except (OSError, OperationTimedOutError, WorkerGoneError, ApiError) as error:
            _log.warning("the other functions are not observed: %s", error)

    async def _look(self, spec: NodeSpec, journal: Journal) -> NodeObservation:
        """Observe everything.

        An earlier agent may have reported a lost carrier in the status, so that is passed on.
        """
        shown = self._publisher.shown
        pfs = shown.status.pfs if shown is not None else ()
        link_down = {pf.pci_address for pf in pfs if pf.problem is not None and pf.problem.reason is PfReason.CARRIER_LOST}
        return await self._looker.look(spec, journal, reported_down=link_down)

    def _calls(self) -> InFlightSummary:
        calls = self._runner.calls
        return InFlightSummary(stuck=calls.hanging, bus_stuck=calls.bus_stuck, in_flight=calls.in_flight or ())

    def _select_changes(
        self, spec: NodeSpec, approvals: Mapping[str, frozenset[str]], look: NodeObservation, journal: Journal
    ) -> list[Change]:
        """Select the changes that may run now, which are granted or restore what was granted before."""
        calls = self._runner.calls
        if calls.bus_stuck or calls.waits:
            return []
        hanging = calls.hanging
        observed = {pf.pci_address: pf for pf in look.observation.pfs}
        runs = []
        for desired in spec.pfs:
            plan = look.planned.get(desired.pci_address, Planned()).plan
            if plan is None or desired.pci_address in hanging:
                continue
            seen, driver = observed[desired.pci_address], look.drivers[desired.pci_address]
            if look.unknown and needs_holders(plan, seen):
                continue
            record = journal.of(desired.pci_address)
            intent = record.running
            accepted = frozenset(intent.approved if intent is not None else ()) | approvals.get(plan.digest, frozenset())
            if plan.unapproved(accepted):
                continue
            # Such a change can only be rolled back, which `resume` does.
            if intent is not None and intent.rolling_back:
                continue
            failed = record.rolled_back and record.failed_spec is not None and same_desired(record.failed_spec, desired)
            granted = record.granted is not None and same_desired(record.granted, desired)
            # A spec that cut the node off is not restored without a new grant, even though it was granted and worked before.
            known = (granted and not failed) or intent is not None
            # A grant does not wait: the controller or a person has decided that the plan runs now.
            if desired.grant != plan.digest and self._backoff.is_active(desired.pci_address, self._clock()):
                continue
            if desired.grant == plan.digest or known:
                # The ledger waits for the end of the digest that was claimed, so an interrupted change is completed under it.
                digest = plan.digest if desired.grant == plan.digest else intent.digest if intent is not None else None
                run = Change(desired=desired, observed=seen, plan=plan, digest=digest, driver=driver, approved=accepted)
                runs.append(run)
        return runs

    async def _claim(self, runs: list[Change], look: NodeObservation, journal: Journal) -> list[Change]:
        """Claim the grants with a write to the live object.

        A change that only restores what was granted before needs no claim.
        """
        granted = [run for run in runs if run.desired.grant == run.plan.digest]
        known = [run for run in runs if run not in granted]
        if not granted:
            return known
        try:
            live = await self._reporter.read()
            # The watch lags, so the controller may have revoked the grant or withdrawn its decision since.
            if live is None or not live.spec.synced:
                return known
            grants = {pf.pci_address: pf.grant for pf in live.spec.pfs}
            granted = [
                run
                for run in granted
                if grants.get(run.desired.pci_address) == run.plan.digest and not live.unapproved_blockers(run.plan)
            ]
            claims = {run.desired.pci_address: Apply(digest=run.plan.digest, state=ApplyState.CLAIMED) for run in granted}
            status = render_status(live, look, journal, self._calls(), fault="", claims=claims)
            return known + (granted if granted and await self._publisher.claim(live, status) else [])
        except ApiError as error:
            # The claim may or may not be written. A granted change does not start then, and the next pass claims again.
            _log.warning("no grant is claimed while the API server does not answer: %s", error.message)
            return known


def _unobservable_reason(error: OperationTimedOutError | OSError | WorkerGoneError) -> str:
    """Return why the host as a whole cannot be observed."""
    if isinstance(error, OperationTimedOutError):
        return f"the kernel does not answer: {error}"
    if isinstance(error, OSError):
        return f"the host cannot be read: {describe_errno(error)}"
    return f"{error}: see the agent's log"
