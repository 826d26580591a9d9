"""Checks of a PF right before the first write of a change and after the last one."""

from __future__ import annotations

from ...inspection.function_links import owners_by_name
from ...inspection.holder_files import read_records
from ...inspection.networkmanager import read_profiles
from ...inspection.pf_reader import read_pf
from ...inspection.sysfs import SysfsReader
from ...inspection.udev_rules import read_udev_rules
from ...nodes.observed import ObservedPf, holders_by_address, with_holders, with_macvtaps
from ...nodes.planning.drivers import DriverFacts, gather_driver
from ...nodes.planning.plan import Planned, plan_pf
from ..change import Change, NodeContext, assume_attributes, needs_holders, without_doubt
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
        if unknown and needs_holders(run.plan, run.observed):
            return unknown
        planned = await self._replan(run, place, reader, told, unknown=unknown)
        if planned.plan is None or planned.plan.actions != run.plan.actions:
            return f"{run.desired.pci_address} has changed since it was planned"
        # The grant was for a plan that disturbs no one, so it took no slot of maxUnavailable.
        if planned.plan.disruptive and not run.plan.disruptive and not planned.plan.blocked_by:
            return unknown or f"the host now uses {run.desired.pci_address}"
        # A person has approved only those that were there then.
        return ", ".join(planned.plan.unapproved(run.approved))

    async def after(self, run: Change, place: NodeContext, reader: SysfsReader) -> str:
        """Read back what was written.

        Returns:
            How it differs from the spec, or an empty string.
        """
        planned = await self._replan(run, place, reader, {}, after=True)
        if planned.problem is not None:
            return planned.problem.message
        return (
            f"{run.desired.pci_address}: the host still differs after the change: {planned.plan.text}"
            if planned.plan is not None
            else ""
        )

    async def _replan(
        self,
        run: Change,
        place: NodeContext,
        reader: SysfsReader,
        told: dict[str, str],
        *,
        unknown: str = "",
        after: bool = False,
    ) -> Planned:
        profiles, rules, links = await read_profiles(reader), await read_udev_rules(reader), await reader.links()
        observed = await read_pf(reader, run.desired.pci_address, links, profiles, rules)
        observed, macvtaps = with_macvtaps(observed, told, owners_by_name(links), run.observed.cleared_macvtaps)
        # What the kernel has accepted and does not report is no difference.
        observed = assume_attributes(observed, run.desired) if after else observed
        holders = holders_by_address([observed], macvtaps | told)
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
            holders_unknown=unknown,
        )

    async def _look_at_driver(
        self, run: Change, place: NodeContext, observed: ObservedPf, told: dict[str, str], reader: SysfsReader
    ) -> DriverFacts:
        """Read all PFs of a driver again if it is about to be reloaded."""
        if not run.reloads:
            return run.driver
        links = await reader.links()
        names, cleared = owners_by_name(links), run.observed.cleared_macvtaps
        others = [
            with_macvtaps(await read_pf(reader, address, links), told, names, cleared)[0] for address in run.driver.others
        ]
        ports = [with_holders(port, holders_by_address([port], told)) for port in (observed, *others)]
        originals = {address: record.original for address, record in self._store.load().pfs.items()}
        return gather_driver(observed, ports, place.desired, originals)
