"""One change of one function: what is to be done, on whose behalf, and where."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..nodes.observed import ObservedPf
from ..nodes.planning.digest import same_desired
from ..nodes.planning.drivers import NO_SHARED_DRIVER, DriverFacts
from ..nodes.state import ActionKind, HostFacts, PfPlan, PfSpec
from .journal import PfRecord

__all__ = ["Change", "NodeContext", "needs_holders", "without_doubt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One function that is about to be changed."""

    desired: PfSpec
    observed: ObservedPf
    plan: PfPlan
    digest: str | None
    """The granted digest that the run answers for; None: it brings back what was granted before."""
    driver: DriverFacts = NO_SHARED_DRIVER
    """What the functions of its driver have in common."""

    @property
    def reloads(self) -> bool:
        """Whether its driver is taken from all of its functions on the way."""
        return any(action.kind is ActionKind.RELOAD_DRIVER for action in self.plan.actions)

    @property
    def going(self) -> tuple[str, ...]:
        """The functions of which a pod could get something that goes: to load a driver anew takes all that it drives."""
        own = (self.desired.pci_address,) if self.plan.fenced or self.reloads else ()
        return (*own, *(self.driver.others if self.reloads else ()))


def needs_holders(plan: PfPlan) -> bool:
    """Whether a plan may only be carried out while it is known who holds VFs: they would go, or change."""
    return plan.fenced or any(action.kind is ActionKind.SET_VFS for action in plan.actions)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContext:
    """Where and when a run is: what plans need besides the function."""

    host: HostFacts
    boot_id: str
    desired: tuple[PfSpec, ...]
    """All that is asked of the node."""


def without_doubt(observed: ObservedPf, desired: PfSpec, record: PfRecord) -> ObservedPf:
    """Leave out an unknown claim of another program where what was granted before is only brought back."""
    if observed.owner_unknown and record.granted is not None and same_desired(record.granted, desired):
        return replace(observed, owner_unknown="")
    return observed
