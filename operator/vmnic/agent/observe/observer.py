"""Observation of the node, with PFs, holders, plans and the devices to advertise."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from ...api.node_state import NodeSpec
from ...host.client import HostAccess, OperationTimedOutError
from ...inspection.function_links import owners_by_name
from ...inspection.host_snapshot import HostSnapshot, read_snapshot
from ...nodes.observed import MACVTAP, hold_groups, holders_by_address, with_holders, with_macvtaps
from ...nodes.planning.drivers import DriverFacts, gather_driver
from ...nodes.planning.plan import Planned, hold_partners, plan_pf
from ..change import without_doubt
from ..journal import Journal, JournalStore
from ..kubelet.advertised import advertised_devices
from ..kubelet.devices import AdvertisedDevices
from ..kubelet.plugin import Devices
from ..kubelet.podresources import Holders, HoldersUnknownError
from .in_flight import InFlightOperations
from .link_loss import LinkLossTracker

__all__ = ["NodeObservation", "NodeObserver"]

_SET_UP_S = 10.0
"""Time, in seconds, within which a pod's network is set up after the kubelet has given it a macvtap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeObservation:
    """One observation, with the host, the holders of VFs, and a plan for each PF of the spec."""

    observation: HostSnapshot
    holders: Mapping[str, str]
    planned: Mapping[str, Planned]
    drivers: Mapping[str, DriverFacts]
    offers: Mapping[str, AdvertisedDevices] = field(default_factory=dict)
    """What each PF offers to the kubelet."""
    unknown: str = ""
    """Why holders are unknown now. Empty if they are known."""
    link_down: Collection[str] = ()
    """PFs that have lost link."""
    busy: Collection[str] = ()
    """PFs that were not read because they are being changed."""


class NodeObserver:
    """Observes one node.

    Args:
        host: Opens sessions on the node.
        store: The journal.
        holders: Names the holders of VFs.
        devices: Receives the devices to advertise.
        calls: Kernel calls that have not returned.
        refused: Modules that the init container could not load, each with the kernel's answer.
        clock: Seconds since boot.
    """

    def __init__(
        self,
        host: HostAccess,
        store: JournalStore,
        holders: Holders,
        devices: Devices,
        *,
        calls: InFlightOperations,
        refused: tuple[str, ...],
        clock: Callable[[], float],
    ) -> None:
        self._host = host
        self._store = store
        self._holders = holders
        self._devices = devices
        self._calls = calls
        self._refused = refused
        self._carriers = LinkLossTracker()
        self._clock = clock
        self._macvtaps: dict[str, float] = {}
        """Time of the first look at which a macvtap had a holder, by device ID."""
        self._hung: OperationTimedOutError | None = None
        """A read of the host as a whole that has not returned."""

    async def look(self, spec: NodeSpec, journal: Journal, *, reported_down: Collection[str] = ()) -> NodeObservation:
        """Observe everything.

        Args:
            spec: The node's spec.
            journal: What vmnic records of the PFs.
            reported_down: PFs whose lost carrier the node's status reports.

        Raises:
            OSError, OperationTimedOutError: The host as a whole cannot be read.
            WorkerGoneError: The host worker died.
        """
        await self._calls.forget_returned(self._host, self._store)
        return await self._look(spec, journal, reported_down=reported_down, busy=(), earlier=None)

    async def observe_idle(
        self, spec: NodeSpec, journal: Journal, earlier: NodeObservation, busy: Collection[str]
    ) -> NodeObservation:
        """Observe all PFs except those that are being changed, for which the earlier observation holds.

        Raises the same errors as `look`.
        """
        return await self._look(spec, journal, reported_down=(), busy=busy, earlier=earlier)

    def withdraw(self, spec: NodeSpec, journal: Journal) -> None:
        """Withdraw all devices, because their state is unknown."""
        everything = {pf.pci_address for pf in spec.pfs} | journal.pfs.keys()
        self._devices.replace(advertised_devices(spec, {}, {}, journal, everything), None)

    async def _look(
        self,
        spec: NodeSpec,
        journal: Journal,
        *,
        reported_down: Collection[str],
        busy: Collection[str],
        earlier: NodeObservation | None,
    ) -> NodeObservation:
        observation = await self._observe({*self._calls.hanging, *busy})
        for address, error in observation.unreadable.items():
            if isinstance(error, OperationTimedOutError):
                self._calls.note_late(address, error)
        try:
            told, unknown = await self._holders.read(), observation.records.unknown
        except HoldersUnknownError as error:
            told, unknown = {}, str(error)
        own_links, settled = owners_by_name(observation.links), self._settled(told)
        found = [with_macvtaps(pf, told, own_links, settled) for pf in observation.pfs]
        macvtaps = {vf: holder for _, of_vfs in found for vf, holder in of_vfs.items()}
        holders = holders_by_address(observation.pfs, macvtaps | observation.records.holders | told)
        # Here holders that other programs only record do not count: a record makes no device Unhealthy.
        opened = {pf.pci_address: pf for pf in observation.pfs}
        pfs = hold_groups([with_holders(pf, holders) for pf, _ in found])
        observation = replace(observation, pfs=pfs, host=msgspec.structs.replace(observation.host, refused=self._refused))
        observed = {pf.pci_address: pf for pf in pfs}
        # PFs that are being changed still use their driver, which may forbid its reload.
        left = () if earlier is None else tuple(pf for pf in earlier.observation.pfs if pf.pci_address in busy)
        originals = {address: record.original for address, record in journal.pfs.items()}
        drivers = {pf.pci_address: gather_driver(pf, (*pfs, *left), spec.pfs, originals) for pf in pfs}
        planned = {
            pf.pci_address: plan_pf(
                pf,
                without_doubt(observed[pf.pci_address], pf, journal.of(pf.pci_address)),
                host=observation.host,
                boot_id=observation.boot_id,
                attempt=journal.of(pf.pci_address).attempt,
                holders=holders,
                original=journal.of(pf.pci_address).original,
                driver=drivers[pf.pci_address],
                others=spec.pfs,
                holders_unknown=unknown,
            )
            for pf in spec.pfs
            if pf.pci_address in observed
        }
        planned = hold_partners(planned, spec.pfs, observed, observation.unreadable)
        link_down = self._carriers.see(pfs, reported_down, self._clock())
        unreadable = {*self._calls.hanging, *observation.unreadable}
        made = advertised_devices(spec, opened, planned, journal, unreadable, link_down)
        offers = {offer.spec.pci_address: offer for offer in made}
        if earlier is not None:
            # A PF that was not read would be offered as missing, so its earlier offer stays.
            kept = {address: offer for address, offer in earlier.offers.items() if address in busy}
            offers = {address: offer for address, offer in offers.items() if address not in busy} | kept
        self._devices.replace(offers.values(), holders_by_address(pfs, told) if not unknown else None)
        return NodeObservation(
            observation=observation,
            holders=holders,
            planned=planned,
            drivers=drivers,
            offers=offers,
            unknown=unknown,
            link_down=link_down,
            busy=busy,
        )

    def _settled(self, told: Mapping[str, str]) -> frozenset[str]:
        """Return the device IDs of macvtaps that had a holder at an earlier look.

        They are set up by now.
        """
        now = self._clock()
        self._macvtaps = {key: self._macvtaps.get(key, now) for key in told if key.startswith(MACVTAP)}
        return frozenset(key for key, since in self._macvtaps.items() if now - since >= _SET_UP_S)

    async def _observe(self, leave_out: set[str]) -> HostSnapshot:
        """Observe the host, unless an earlier read has not returned.

        Each further read would leave one more child process in the kernel.
        """
        if self._hung is not None and not self._hung.returned.done():
            # The same exception is raised in every pass, and its traceback would grow each time.
            raise self._hung.with_traceback(None)
        try:
            return await read_snapshot(self._host, leave_out=leave_out)
        except OperationTimedOutError as error:
            self._hung = error
            raise
