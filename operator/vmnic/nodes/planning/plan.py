"""Plan for one PF, computed from its spec and its observed state.

The result is a list of typed actions, or a problem.

The order follows the kernel. It refuses another number of VFs while VFs exist (EBUSY), so 0 is written in between.
`sriov_drivers_autoprobe` keeps kernel drivers from new VFs and is written before the VFs are created (drivers/pci/iov.c).
Another number of VFs resets the channels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ...api.node_state import VFIO, Action, ActionKind, HostFacts, PfPlan, PfProblem, PfSpec, blocker_id
from ...api.reasons import PfReason
from ..nics import model_of
from ..observed import ObservedPf, ObservedVf
from .actions import NO_DRIVER, plan_actions, unfold_indexes, wrong_driver
from .digest import digest_of
from .drivers import NO_SHARED_DRIVER, DriverFacts
from .groups import find_partners
from .preflight import first_problem
from .target import Original, Target, target_of, target_of_original, uses_of

__all__ = [
    "TOLD_HOLDERS",
    "Planned",
    "affected_functions",
    "desired_target",
    "hold_partners",
    "plan_pf",
    "resets_vf_links",
    "words_of_interruption",
]

TOLD_HOLDERS = 20
"""Most hard and most soft blockers that a plan lists. One more line of each then says how many more there are."""
_DISTURBING = frozenset(
    {ActionKind.BIND_PF, ActionKind.RELOAD_DRIVER, ActionKind.SET_NUM_VFS, ActionKind.SET_MTU, ActionKind.SET_QUEUES}
)
"""Actions that interrupt the PF's own link."""
_RESETTING = {ActionKind.SET_MTU: "mtu", ActionKind.SET_QUEUES: "queues"}
"""Actions that reset the function, so that the links of its VFs drop, with their name in the NIC data (igb_change_mtu and
igb_set_channels reinitialize the adapter, which pings all VFs; `drivers/net/ethernet/intel/igb`).
"""
_RENEWING = {ActionKind.SET_NUM_VFS, ActionKind.BIND_PF, ActionKind.RELOAD_DRIVER}
"""Actions that remove all VFs."""
_MARK_CHARS = 8
_UNKNOWN_HOLDER = "an unknown process"


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
    holders_unknown: str = "",
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
        holders_unknown: Why holders are unknown now; empty if they are known.
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
    losing = {*going, *(_cut_off(actions, observed))}
    hard = _holders([one for one in observed.held_addresses if one in losing], holders, _lost_uses(actions, observed))
    soft = _soft_blockers([*_interrupted(actions, observed, losing, holders), *_doubtful_uses(actions, going, observed)])
    disturbs = any(action.kind in _DISTURBING for action in actions)
    return Planned(
        plan=PfPlan(
            digest=digest_of(desired, observed, actions, boot_id=boot_id, attempt=attempt),
            actions=actions,
            text=", ".join(_words(action) for action in actions),
            # A free VF makes no plan disruptive: the fence keeps pods away from it while it changes.
            disruptive=bool(hard or soft) or (disturbs and bool(observed.host_use or holders_unknown)),
            fenced=bool(going),
            blocked_by=(*hard, *soft),
            soft_blockers=len(soft),
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
    if kinds & _RENEWING:
        own = (observed.pci_address,) if observed.held or target.whole != (observed.driver == VFIO) else ()
        return (*own, *(vf.pci_address for vf in observed.vfs))
    return tuple(vf.pci_address for vf in observed.vfs if any(_takes(action, vf, observed) for action in actions))


def _takes(action: Action, vf: ObservedVf, observed: ObservedPf) -> bool:
    """Return whether an action unbinds a VF, or binds it to another driver."""
    if action.kind is not ActionKind.BIND_VFS:
        return False
    which, _, driver = action.value.rpartition(" ")
    return vf.index in unfold_indexes(which, observed.num_vfs) and (driver == NO_DRIVER or wrong_driver(driver, vf))


def resets_vf_links(actions: Iterable[Action], observed: ObservedPf) -> bool:
    """Return whether the links of VFs that stay drop for seconds."""
    model = model_of(observed.vendor, observed.device, observed.driver)
    kept = model.keeps_vf_links if model is not None else ()
    return bool(observed.vfs) and any(_RESETTING.get(action.kind, "") not in ("", *kept) for action in actions)


def _cut_off(actions: Iterable[Action], observed: ObservedPf) -> tuple[str, ...]:
    """Return the addresses of VFs whose link would go down for good with the PF's link."""
    down = any(action.kind is ActionKind.SET_LINK and action.value == "down" for action in actions)
    return tuple(vf.pci_address for vf in observed.vfs) if down else ()


def _goes_away(actions: Iterable[Action]) -> bool:
    """Return whether the PF's own link disappears, or goes down for good."""
    return any(
        action.kind in (ActionKind.BIND_PF, ActionKind.RELOAD_DRIVER)
        or (action.kind is ActionKind.SET_LINK and action.value == "down")
        for action in actions
    )


def _lost_uses(actions: Iterable[Action], observed: ObservedPf) -> tuple[str, ...]:
    """Describe the uses that end for good because the link below them disappears."""
    actions = list(actions)
    # Another number of VFs removes representors too.
    representors = observed.representor_use if any(action.kind in _RENEWING for action in actions) else ()
    return (*(observed.macvtaps if _goes_away(actions) else ()), *(f"the host has the {use}" for use in representors))


def _doubtful_uses(actions: Iterable[Action], going: Collection[str], observed: ObservedPf) -> tuple[str, ...]:
    """Describe uses from other network namespaces that would be interrupted, or that may be there."""
    actions = list(actions)
    gone, drops = _goes_away(actions), any(action.kind in _DISTURBING for action in actions)
    own = observed.unexplained if gone or drops else ()
    taps = observed.macvtaps if drops and not gone else ()
    of_vfs = (words for vf in observed.vfs if vf.pci_address in going for words in vf.unexplained)
    return (*(f"{words} and loses its link for seconds" for words in taps), *own, *of_vfs)


def _holders(addresses: Iterable[str], holders: Mapping[str, str], more_uses: Sequence[str]) -> tuple[str, ...]:
    """Describe the holders of these functions and other uses, at most as many as a status has room for."""
    told = [f"{holders.get(address) or _UNKNOWN_HOLDER} holds {address}" for address in addresses] + [*more_uses]
    more = len(told) - TOLD_HOLDERS
    return tuple(told[:TOLD_HOLDERS] + ([f"and {more} more"] if more > 0 else []))


def words_of_interruption(holder: str, address: str) -> str:
    """Describe a holder whose link drops while its VF stays."""
    # An approval stores these words, so the address distinguishes unknown holders.
    return f"{holder or f'{_UNKNOWN_HOLDER} with {address}'} loses its link for seconds"


def _interrupted(
    actions: Iterable[Action], observed: ObservedPf, losing: Collection[str], holders: Mapping[str, str]
) -> tuple[str, ...]:
    """Describe the holders whose links drop, without those that lose their device anyway."""
    if not resets_vf_links(actions, observed):
        return ()
    staying = [vf.pci_address for vf in observed.vfs if vf.held and vf.pci_address not in losing]
    # A holder of several VFs is listed once.
    return tuple(dict.fromkeys(words_of_interruption(holders.get(address, ""), address) for address in staying))


def _soft_blockers(found: Sequence[str]) -> tuple[str, ...]:
    """Return soft blockers, at most as many as a status has room for."""
    rest = found[TOLD_HOLDERS:]
    if not rest:
        return tuple(found)
    # An approval must not cover blockers that come later, so the line for the rest changes with each of them.
    mark = blocker_id("\n".join(sorted(rest)))[:_MARK_CHARS]
    return (*found[:TOLD_HOLDERS], f"and {len(rest)} more (list {mark})")


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
