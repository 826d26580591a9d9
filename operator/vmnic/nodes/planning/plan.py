"""Plan for one PF, computed from its spec and its observed state.

The result is a list of typed actions, or a problem.

The order follows the kernel. It refuses another number of VFs while VFs exist (EBUSY), so 0 is written in between.
`sriov_drivers_autoprobe` keeps kernel drivers from new VFs and is written before the VFs are created (drivers/pci/iov.c).
Another number of VFs resets the channels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from ...api.node_state import VFIO, Action, ActionKind, HostFacts, PfPlan, PfProblem, PfSpec
from ...api.reasons import PfReason
from ..observed import ObservedPf, ObservedVf
from .actions import NO_DRIVER, plan_actions, unfold_indexes, wrong_driver
from .digest import digest_of
from .drivers import NO_SHARED_DRIVER, DriverFacts
from .groups import find_partners
from .preflight import first_problem
from .target import Original, Target, target_of, target_of_original, uses_of

__all__ = ["TOLD_HOLDERS", "Planned", "affected_functions", "desired_target", "hold_partners", "plan_pf"]

TOLD_HOLDERS = 20
"""Most holders that a plan lists. One more line then says how many more there are."""
_DISTURBING = frozenset(
    {ActionKind.BIND_PF, ActionKind.RELOAD_DRIVER, ActionKind.SET_NUM_VFS, ActionKind.SET_MTU, ActionKind.SET_QUEUES}
)
"""Actions that interrupt the PF's own link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """Plan for one PF. If neither field is set, the PF matches its spec."""

    plan: PfPlan | None = None
    problem: PfProblem | None = None


def plan_pf(
    desired: PfSpec,
    observed: ObservedPf,
    *,
    host: HostFacts,
    boot_id: str,
    attempt: int,
    holders: Mapping[str, str],
    original: Original | None = None,
    driver: DriverFacts = NO_SHARED_DRIVER,
    others: Iterable[PfSpec] = (),
) -> Planned:
    """Plan the change that brings a PF from its observed state to its spec.

    Args:
        desired: Spec of the PF, merged from all pools.
        observed: Observed state of the PF.
        host: Facts about the node.
        boot_id: The kernel's boot ID.
        attempt: Number of changes that have ended; part of the digest, so that a grant is valid once.
        holders: Holders by the PCI address of the VF, as far as known.
        original: Values of the PF before vmnic changed it; None if vmnic has not changed it.
        driver: Facts about all functions of its driver.
        others: Specs of all PFs of the node.
    """
    target = desired_target(desired, original, driver)
    if target is None:
        return Planned()
    # From here on, what the kernel learned from routers counts as the host's own use if vmnic did not switch the link on.
    observed = replace(observed, host_use=uses_of(observed, original))
    problem = first_problem(target, desired, observed, host, driver, others)
    if problem is not None:
        return Planned(problem=problem)
    actions = plan_actions(target, observed)
    if not actions:
        return Planned()
    going = affected_functions(actions, target, observed)
    blocked_by = _holders([one for one in going if one in observed.held_addresses], holders)
    disturbs = any(action.kind in _DISTURBING for action in actions)
    return Planned(
        plan=PfPlan(
            digest=digest_of(desired, observed, actions, boot_id=boot_id, attempt=attempt),
            actions=actions,
            text=", ".join(_words(action) for action in actions),
            # A free VF makes no plan disruptive: the fence keeps pods away from it while it changes.
            disruptive=bool(blocked_by) or (disturbs and bool(observed.host_use)),
            fenced=bool(going),
            blocked_by=blocked_by,
        )
    )


def hold_partners(
    planned: Mapping[str, Planned],
    desired: Iterable[PfSpec],
    observed: Mapping[str, ObservedPf],
    unreadable: Collection[str] = (),
) -> dict[str, Planned]:
    """Return the plans, without those of whole PFs whose partners in the same group cannot be prepared."""
    specs, found = tuple(desired), dict(planned)
    for spec in specs:
        own = planned.get(spec.pci_address)
        if own is None or own.plan is None:
            continue
        for address in find_partners(spec, observed[spec.pci_address], specs):
            problem = planned[address].problem if address in planned else None
            why = f"{address} does not answer" if address in unreadable else problem.message if problem is not None else ""
            if why:
                text = f"{spec.pci_address} goes to VMs together with {address} of its IOMMU group: {why}"
                found[spec.pci_address] = Planned(problem=PfProblem(reason=PfReason.IOMMU_GROUP_SHARED, message=text))
    return found


def desired_target(desired: PfSpec, original: Original | None, driver: DriverFacts) -> Target | None:
    """Return the target of a PF, or None if the PF may stay as it is.

    A PF that is being released returns to its original values if vmnic owns it and the pool asks for a reset.
    """
    if not desired.release:
        return target_of(desired, driver.options, driver.udev_rules)
    if original is None or desired.release != "Reset" or desired.management == "Adopt":
        return None
    # The file of module options belongs to all PFs of the driver. Those that stay in a pool may still need it.
    return replace(target_of_original(original), options=driver.options, udev_rules=driver.udev_rules)


def affected_functions(actions: tuple[Action, ...], target: Target, observed: ObservedPf) -> tuple[str, ...]:
    """Return the addresses of existing functions that would disappear or change their driver."""
    kinds = {action.kind for action in actions}
    # Another number of VFs removes all of them first, also those with an index that stays.
    if kinds & {ActionKind.SET_NUM_VFS, ActionKind.BIND_PF, ActionKind.RELOAD_DRIVER}:
        own = (observed.pci_address,) if observed.held or target.whole != (observed.driver == VFIO) else ()
        return (*own, *(vf.pci_address for vf in observed.vfs))
    return tuple(vf.pci_address for vf in observed.vfs if any(_takes(action, vf, observed) for action in actions))


def _takes(action: Action, vf: ObservedVf, observed: ObservedPf) -> bool:
    """Return whether an action unbinds a VF, or binds it to another driver."""
    if action.kind is not ActionKind.BIND_VFS:
        return False
    which, _, driver = action.value.rpartition(" ")
    return vf.index in unfold_indexes(which, observed.num_vfs) and (driver == NO_DRIVER or wrong_driver(driver, vf))


def _holders(addresses: Iterable[str], holders: Mapping[str, str]) -> tuple[str, ...]:
    """Describe the holders of these functions, at most as many as a status has room for."""
    told = [f"{holders.get(address) or 'an unknown process'} holds {address}" for address in addresses]
    more = len(told) - TOLD_HOLDERS
    return tuple(told[:TOLD_HOLDERS] + ([f"and {more} more"] if more > 0 else []))


def _words(action: Action) -> str:
    return _WORDS[action.kind](action.value)


def _bind_words(value: str) -> str:
    part, _, driver = value.rpartition(" ")
    which = f"VFs {part}" if part else "the VFs"
    if driver == NO_DRIVER:
        return f"unbind {which} from their driver"
    return f"bind {which} to {'their kernel driver' if driver == 'kernel' else driver}"


def _rule_words(pool: str, driver: str = "", count: str = "", autoprobe: str = "1") -> str:
    if not driver:
        return f"remove the udev rule of pool {pool}"
    unbound = "" if autoprobe == "1" else " without drivers"
    return f"write the udev rule of pool {pool} for {count} VFs{unbound}"


_WORDS: dict[ActionKind, Callable[[str], str]] = {
    ActionKind.BIND_PF: lambda value: f"bind the whole NIC to {'its kernel driver' if value == 'kernel' else value}",
    ActionKind.WRITE_MODULE_OPTIONS: lambda value: f"write the module options {value}",
    ActionKind.WRITE_UDEV_RULE: lambda value: _rule_words(*value.split()),
    ActionKind.RELOAD_DRIVER: lambda value: f"reload the driver {value}",
    ActionKind.SET_AUTOPROBE: lambda value: (
        "let kernel drivers bind new VFs" if value == "1" else "keep kernel drivers off new VFs"
    ),
    ActionKind.SET_NUM_VFS: lambda value: "remove all VFs" if value == "0" else f"create {value} VFs",
    ActionKind.SET_VFS: lambda value: f"set the attributes of {f'VFs {value}' if value else 'the VFs'}",
    ActionKind.BIND_VFS: _bind_words,
    ActionKind.SET_MTU: lambda value: f"set the MTU to {value}",
    ActionKind.SET_QUEUES: lambda value: f"set {value} queues",
    ActionKind.SET_LINK: lambda value: f"switch the link {value}",
}
