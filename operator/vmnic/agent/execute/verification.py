"""Checks of a PF right before the first write of a change and after the last one."""

from __future__ import annotations

from ...inspection.holder_files import read_records
from ...inspection.networkmanager import read_profiles
from ...inspection.pf_reader import read_pf
from ...inspection.sysfs import SysfsReader
from ...inspection.udev_rules import read_udev_rules
from ...nodes.observed import ObservedPf, holders_by_address, with_holders
from ...nodes.planning.drivers import DriverFacts, gather_driver
from ...nodes.planning.plan import Planned, plan_pf
from ..change import Change, NodeContext, needs_holders, without_doubt
from ..journal import JournalStore
from ..kubelet.podresources import Holders, HoldersUnknownError

__all__ = ["Verifier"]


class Verifier:
    """Computes a change's plan again from what is observed now.

    Args:
        store: The journal.
        holders: Names the holders of VFs.
    """

    def __init__(self, store: JournalStore, holders: Holders) -> None:
        self._store = store
        self._holders = holders

    async def before(self, run: Change, place: NodeContext, reader: SysfsReader) -> str:
        """Read the PF again right before the first write.

        Returns:
            What has changed since the plan, or an empty string.
        """
        records = await read_records(reader)
        try:
            # The kubelet's answer wins: a record of sriov-cni may outlive its pod and hide the one that has the VF now.
            told, unknown = records.holders | await self._holders.read(), records.unknown
        except HoldersUnknownError as error:
            told, unknown = {}, str(error)
        if unknown and needs_holders(run.plan):
            return unknown
        planned = await self._replan(run, place, reader, told)
        if planned.plan is None or planned.plan.actions != run.plan.actions:
            return f"{run.desired.pci_address} has changed since it was planned"
        # The grant was for a plan that disturbs no one, so it took no slot of maxUnavailable.
        if planned.plan.disruptive and not run.plan.disruptive and not planned.plan.blocked_by:
            return f"the host now uses {run.desired.pci_address}"
        return ", ".join(planned.plan.blocked_by)

    async def after(self, run: Change, place: NodeContext, reader: SysfsReader) -> str:
        """Read back what was written.

        Returns:
            How it differs from the spec, or an empty string.
        """
        planned = await self._replan(run, place, reader, {})
        if planned.problem is not None:
            return planned.problem.message
        return (
            f"{run.desired.pci_address}: the host still differs after the change: {planned.plan.text}"
            if planned.plan is not None
            else ""
        )

    async def _replan(self, run: Change, place: NodeContext, reader: SysfsReader, told: dict[str, str]) -> Planned:
        profiles, rules = await read_profiles(reader), await read_udev_rules(reader)
        observed = await read_pf(reader, run.desired.pci_address, await reader.links(), profiles, rules)
        holders = holders_by_address([observed], told)
        record = self._store.load().of(run.desired.pci_address)
        return plan_pf(
            run.desired,
            without_doubt(with_holders(observed, holders), run.desired, record),
            host=place.host,
            boot_id=place.boot_id,
            attempt=record.attempt,
            holders=holders,
            original=record.original,
            driver=await self._look_at_driver(run, place, observed, told, reader),
            others=place.desired,
        )

    async def _look_at_driver(
        self, run: Change, place: NodeContext, observed: ObservedPf, told: dict[str, str], reader: SysfsReader
    ) -> DriverFacts:
        """Read all PFs of a driver again if it is about to be reloaded."""
        if not run.reloads:
            return run.driver
        links = await reader.links()
        others = [await read_pf(reader, address, links) for address in run.driver.others]
        ports = [with_holders(port, holders_by_address([port], told)) for port in (observed, *others)]
        originals = {address: record.original for address, record in self._store.load().pfs.items()}
        return gather_driver(observed, ports, place.desired, originals)
