"""One change of one PF, with the plan, the grant and the node it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..api.node_state import ActionKind, HostFacts, PfPlan, PfSpec, VfSettings
from ..nodes.observed import ObservedPf, ObservedVf
from ..nodes.planning.actions import admin_mac
from ..nodes.planning.digest import same_desired
from ..nodes.planning.drivers import NO_SHARED_DRIVER, DriverFacts
from ..nodes.planning.plan import resets_vf_links
from ..nodes.state import indexes_of
from .journal import PfRecord

__all__ = ["Change", "NodeContext", "assume_attributes", "needs_holders", "without_doubt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A PF that is about to be changed."""

    desired: PfSpec
    observed: ObservedPf
    plan: PfPlan
    digest: str | None
    """The granted digest that this change answers. None if the change restores what was granted before."""
    driver: DriverFacts = NO_SHARED_DRIVER
    """What the PFs that share its driver have in common."""
    approved: frozenset[str] = frozenset()
    """IDs of the soft blockers that a person has approved for this plan."""

    @property
    def reloads(self) -> bool:
        """Return whether the plan unloads the driver from all of its PFs and loads it again."""
        return any(action.kind is ActionKind.RELOAD_DRIVER for action in self.plan.actions)

    @property
    def going(self) -> tuple[str, ...]:
        """Return the PFs whose devices disappear during the change.

        Reloading a driver takes the devices of every PF that it drives.
        """
        own = (self.desired.pci_address,) if self.plan.fenced or self.reloads else ()
        return (*own, *(self.driver.others if self.reloads else ()))


def needs_holders(plan: PfPlan, observed: ObservedPf) -> bool:
    """Return whether a plan may only run while the holders of VFs are known.

    Such a plan removes VFs, changes their attributes or interrupts their links.
    """
    sets = any(action.kind is ActionKind.SET_VFS for action in plan.actions)
    return plan.fenced or sets or resets_vf_links(plan.actions, observed)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContext:
    """Facts about the node that plans need besides the PF."""

    host: HostFacts
    boot_id: str
    desired: tuple[PfSpec, ...]
    """Specs of all PFs of the node."""


def assume_attributes(observed: ObservedPf, desired: PfSpec) -> ObservedPf:
    """Fill in the attributes of VFs that the driver does not report, as the spec asks for them."""
    asked = {index: group.settings for group in desired.groups if group.settings for index in indexes_of(desired, group)}
    return replace(observed, vfs=tuple(_assume(observed, vf, asked.get(vf.index)) for vf in observed.vfs))


def _assume(pf: ObservedPf, vf: ObservedVf, asked: VfSettings | None) -> ObservedVf:
    own = vf.attributes
    if own is None or asked is None:
        return vf
    wanted = {
        "mac": admin_mac(asked.mac_prefix, pf.mac, vf.index) if asked.mac_prefix else None,
        "vlan": asked.vlan,
        "qos": asked.vlan_qos,
        "spoof_check": asked.spoof_check,
        "trust": asked.trust,
        "link_state": asked.link_state.lower() if asked.link_state else None,
        "min_tx_rate_mbit": asked.min_tx_rate_mbps,
        "max_tx_rate_mbit": asked.max_tx_rate_mbps,
    }
    return replace(vf, attributes=replace(own, **{name: one for name, one in wanted.items() if getattr(own, name) is None}))  # type: ignore[arg-type]


def without_doubt(observed: ObservedPf, desired: PfSpec, record: PfRecord) -> ObservedPf:
    """Ignore what is unknown if the change only restores what was granted before."""
    if record.granted is None or not same_desired(record.granted, desired):
        return observed
    # The owner was known when this spec was granted. An unreadable file must not keep a rebooted node without its VFs.
    observed = replace(observed, owner_unknown="") if observed.owner_unknown else observed
    # The kernel has accepted these attributes once. It would be asked again with every pass.
    return observed if record.failure else assume_attributes(observed, desired)
