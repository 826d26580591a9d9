"""What is to be done to one physical function: desired and observed in, typed actions or a problem out.

The order follows the kernel: it refuses another VF count while VFs exist (EBUSY), so 0 comes between; kernel drivers are kept
off new VFs by `sriov_drivers_autoprobe` before the VFs are made (drivers/pci/iov.c).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .digest import digest_of
from .observed import ObservedPf, ObservedVf
from .state import Action, ActionKind, HostFacts, PfPlan, PfProblem, PfReason, PfSpec

__all__ = ["Planned", "plan_pf"]

VFIO = "vfio-pci"
_TOLD_HOLDERS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The plan for one function; neither field set means that it is as desired."""

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
) -> Planned:
    """Compare desired with observed.

    Args:
        desired: What the pools ask.
        observed: What is there.
        host: Facts of the node.
        boot_id: The kernel's boot id.
        attempt: Ends of runs so far; part of the digest, so that a grant serves once.
        holders: Who holds a VF, by its PCI address, as far as known.
    """
    actions = _actions(desired, observed)
    if not actions:
        return Planned()
    problem = _problem(desired, observed, host)
    if problem is not None:
        return Planned(problem=problem)
    blocked_by = _holders(_touched(actions, desired, observed), holders)
    return Planned(
        plan=PfPlan(
            digest=digest_of(desired, observed, actions, boot_id=boot_id, attempt=attempt),
            actions=actions,
            text=", ".join(_words(action) for action in actions),
            disruptive=bool(blocked_by),
            blocked_by=blocked_by,
        )
    )


def _holders(addresses: Iterable[str], holders: Mapping[str, str]) -> tuple[str, ...]:
    """Say who holds which of these functions, as many as a status has room for."""
    told = [f"{holders.get(address) or 'an unknown program'} holds {address}" for address in addresses]
    more = len(told) - _TOLD_HOLDERS
    return tuple(told[:_TOLD_HOLDERS] + ([f"and {more} more"] if more > 0 else []))


def _actions(desired: PfSpec, observed: ObservedPf) -> tuple[Action, ...]:
    if desired.function == "Physical":
        return _whole_actions(observed)
    actions = []
    if observed.driver == VFIO:
        # It was a whole NIC; VFs need its own driver.
        actions.append(Action(kind=ActionKind.BIND_PF, value="kernel"))
    counts_differ = observed.num_vfs != desired.num_vfs
    autoprobe = desired.vf_driver != VFIO
    if desired.num_vfs and observed.autoprobe != autoprobe:
        actions.append(Action(kind=ActionKind.SET_AUTOPROBE, value=str(int(autoprobe))))
    if counts_differ:
        steps = [0] * bool(observed.num_vfs) + [desired.num_vfs] * bool(desired.num_vfs)
        actions += [Action(kind=ActionKind.SET_NUM_VFS, value=str(step)) for step in steps]
    bind_new = counts_differ and desired.num_vfs > 0 and not autoprobe
    if bind_new or (not counts_differ and any(_wrong_driver(desired, vf) for vf in observed.vfs)):
        actions.append(Action(kind=ActionKind.BIND_VFS, value=desired.vf_driver))
    if desired.mtu is not None and observed.mtu != desired.mtu:
        actions.append(Action(kind=ActionKind.SET_MTU, value=str(desired.mtu)))
    return tuple(actions)


def _whole_actions(observed: ObservedPf) -> tuple[Action, ...]:
    """VFs would go with the function's driver, so they go first."""
    if observed.driver == VFIO:
        return ()
    remove = (Action(kind=ActionKind.SET_NUM_VFS, value="0"),) if observed.num_vfs else ()
    return (*remove, Action(kind=ActionKind.BIND_PF, value=VFIO))


def _wrong_driver(desired: PfSpec, vf: ObservedVf) -> bool:
    """`kernel` means any driver of the kernel's own but vfio-pci."""
    return vf.driver != VFIO if desired.vf_driver == VFIO else vf.driver in ("", VFIO)


def _touched(actions: tuple[Action, ...], desired: PfSpec, observed: ObservedPf) -> tuple[str, ...]:
    """The functions that somebody holds and that would go or change their driver."""
    kinds = {action.kind for action in actions}
    if ActionKind.SET_NUM_VFS in kinds or ActionKind.BIND_PF in kinds:
        return observed.held_addresses
    if ActionKind.BIND_VFS in kinds:
        return tuple(vf.pci_address for vf in observed.vfs if vf.held and _wrong_driver(desired, vf))
    return ()


def _problem(desired: PfSpec, observed: ObservedPf, host: HostFacts) -> PfProblem | None:
    """Say what makes the plan impossible; None if nothing does."""
    name = f"{observed.name or 'the function'} ({observed.pci_address})"
    whole = desired.function == "Physical"
    vfio = whole or (desired.num_vfs > 0 and desired.vf_driver == VFIO)
    if observed.host_use:
        return PfProblem(
            reason=PfReason.HOST_USED,
            message=f"{name} carries the host's own {'; '.join(observed.host_use)}: take it out of the pool's nicSelector",
        )
    if not observed.driver:
        return PfProblem(reason=PfReason.NO_DRIVER, message=f"{name} has no driver: bind the NIC's driver to it")
    if desired.num_vfs > observed.total_vfs:
        return PfProblem(
            reason=PfReason.TOO_MANY_VFS,
            message=f"{name} supports {observed.total_vfs} VFs, numVfs asks for {desired.num_vfs}: lower numVfs or say max",
        )
    if vfio and host.iommu is False:
        return PfProblem(
            reason=PfReason.IOMMU_OFF,
            message=f"vfio-pci needs an IOMMU for {name}: switch VT-d or AMD-Vi on in the firmware, add intel_iommu=on to the"
            " kernel's command line (AMD: amd_iommu=on), and reboot",
        )
    if vfio and observed.shares_iommu_group:
        return PfProblem(
            reason=PfReason.IOMMU_GROUP_SHARED,
            message=f"{name} shares its IOMMU group with other functions, so vfio-pci cannot take them: use a slot with ACS",
        )
    return None


def _words(action: Action) -> str:
    match action.kind:
        case ActionKind.SET_AUTOPROBE:
            return "let kernel drivers take new VFs" if action.value == "1" else "keep kernel drivers off new VFs"
        case ActionKind.SET_NUM_VFS:
            return "remove all VFs" if action.value == "0" else f"create {action.value} VFs"
        case ActionKind.BIND_VFS:
            return f"bind the VFs to {'their kernel driver' if action.value == 'kernel' else action.value}"
        case ActionKind.BIND_PF:
            return f"bind the whole NIC to {'its kernel driver' if action.value == 'kernel' else action.value}"
        case ActionKind.SET_MTU:
            return f"set the MTU to {action.value}"
