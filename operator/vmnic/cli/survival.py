"""The Survival, which shows whether all VMs with devices fit after the loss of a node or PF. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Literal

from ..nodes.pools.shares import PoolShare, pool_shares
from ..policy.capacity import Claim
from ..policy.eviction import describe_unbounded
from ..policy.problems import ProblemReason
from ..policy.survival import Loss, LossOutcome, Residents, assess_losses, describe_unknown, settle
from .objects import Objects, shown_name
from .offline import Decided
from .running import RunningVms, gather_running, input_problems, unread_kinds
from .schema import LossEntry, PoolSurvival, ProblemEntry, Survival, UnplacedVm

__all__ = ["make_survival"]

_DECIDING = frozenset({"Node", "SriovNetworkPool", "VirtualMachine", "VirtualMachineInstance"})
"""Kinds of which one unread object may need a place, or have one."""


def make_survival(
    of: Literal["node", "pf"], objects: Objects, decided: Decided, missing: list[str], *, offline: bool
) -> Survival:
    """Build the Survival.

    Args:
        of: What is lost.
        objects: Objects from files, or of the cluster.
        decided: Decisions about them.
        missing: Descriptions of kinds that the cluster does not have.
        offline: Whether objects that are not given may exist nevertheless.
    """
    running = gather_running(objects, decided, offline=offline)
    residents = settle(running.capacity.nodes, running.claims)
    losses = _node_losses(residents) if of == "node" else _pf_losses(objects, running, residents)
    outcomes = list(assess_losses(residents, losses))
    entries = [_entry(one) for one in outcomes]
    gaps = list(_gaps(of, objects, decided, running, residents))
    is_incomplete = bool(gaps) or bool(unread_kinds(objects, decided, running) & _DECIDING)
    answers: list[bool | None] = [one.survives for one in outcomes]
    if is_incomplete:
        answers.append(None)
    if residents.unplaced:
        answers.append(_without_place(residents))
    return {
        "apiVersion": "cli.vmnic.dev/v1alpha1",
        "kind": "Survival",
        "lossOf": of,
        "survives": _all(answers),
        "unplaced": [_vm(claim) for claim in residents.unplaced],
        "losses": entries,
        "pools": [
            _pool(name, _resources(name, decided), residents, outcomes, is_incomplete=is_incomplete)
            for name in sorted(objects.pools)
        ],
        "problems": [*input_problems(objects, decided, running, missing), *gaps],
    }


def _node_losses(residents: Residents) -> Iterator[Loss]:
    """Yield the nodes that have devices, or VMs with devices."""
    with_devices = {name for name, node in residents.capacity.nodes.items() if any(node.total.values())}
    for name in sorted({*with_devices, *residents.by_node}):
        yield Loss(node=name)


def _pf_losses(objects: Objects, running: RunningVms, residents: Residents) -> Iterator[Loss]:
    """Yield the PFs of the pools."""
    waiting = {claim.key for claim in residents.waiting}
    for name, state in sorted(objects.node_states.items()):
        parts = [part for pool in sorted(objects.pools) for part in pool_shares(state, pool)]
        by_pf: dict[str, list[PoolShare]] = defaultdict(list)
        for part in parts:
            by_pf[part.pf.pci_address].append(_lead(part, parts))
        holders = {held.vf: running.holder(name, held) for pf in state.status.pfs for held in pf.held}
        pfs_of = Counter(resource for own in by_pf.values() for resource in {part.resource for part in own})
        located = {*holders.values(), *waiting}
        unlocated = [claim for claim in residents.by_node.get(name, ()) if claim.key not in located]
        for address, own in sorted(by_pf.items()):
            devices: Counter[str] = Counter()
            for part in own:
                devices[part.resource] += part.ready
            known = {holders.get(one) for one in (address, *(vf for part in own for vf in part.held))}
            # The agent names no holder of these VMs' devices. A resource of one PF leaves no doubt.
            sure = {claim.key for claim in unlocated if any(pfs_of[resource] == 1 for resource in devices.keys() & claim.held)}
            possible = {claim.key for claim in unlocated if devices.keys() & claim.held.keys()} - sure
            yield Loss(
                node=name,
                pf=address,
                devices=devices,
                holders=frozenset(one for one in (*known, *sure) if one is not None),
                possible=frozenset(possible),
            )


def _lead(part: PoolShare, parts: Iterable[PoolShare]) -> PoolShare:
    """Return the share that stands for the IOMMU group of a whole PF, which is lost with any of its PFs."""
    if not part.is_partner:
        return part
    group = (one for one in parts if one.indexes is None and not one.is_partner and one.resource == part.resource)
    return next((one for one in group if one.pf.iommu_group == part.pf.iommu_group), part)


def _gaps(
    of: Literal["node", "pf"], objects: Objects, decided: Decided, running: RunningVms, residents: Residents
) -> Iterator[ProblemEntry]:
    """Yield what is not known about VMs or PFs, and may change a yes."""
    for claim in running.claims:
        # Labels of namespaces select policies, not nodes.
        if claim.vm.unknown and claim.vm.unknown != objects.refused.get("Namespace"):
            text = f"on which nodes it may run is not known: {claim.vm.unknown}"
            yield _gap(f"VirtualMachine/{claim.vm.namespace}/{shown_name(claim.vm.name)}", text)
        unbounded = "" if claim.held or claim.vm.halted else describe_unbounded(claim.wanted, running.capacity)
        if unbounded:
            yield _gap(f"VirtualMachine/{claim.vm.namespace}/{shown_name(claim.vm.name)}", unbounded)
    unknown = describe_unknown(residents.capacity, residents.unplaced, is_certain=residents.is_certain)
    if unknown:
        yield _gap("", f"whether {len(residents.unplaced)} VMs have a place even now is not known: {unknown}")
    own = {resource for pool in decided.cluster.pools.values() for resource in pool.resource_names}
    for name, claims in sorted(residents.by_node.items()) if of == "pf" else ():
        # The empty resource is that of an unknown network.
        resources = {""} if name in objects.node_states else {"", *own}
        if any(resources & claim.held.keys() for claim in claims):
            yield _gap(f"NodeNicState/{name}", "its VMs have devices, and on which PFs is not known")


def _without_place(residents: Residents) -> bool | None:
    """Return False if VMs have no place even now, or None if that is unknown."""
    return None if describe_unknown(residents.capacity, residents.unplaced, is_certain=residents.is_certain) else False


def _gap(about: str, text: str) -> ProblemEntry:
    return {"object": about, "reason": ProblemReason.CAPACITY_UNKNOWN.value, "message": text}


def _entry(outcome: LossOutcome) -> LossEntry:
    return {
        "node": outcome.loss.node,
        "pf": outcome.loss.pf or None,
        "vms": outcome.leaving,
        "survives": outcome.survives,
        "unplaced": [_vm(claim) for claim in outcome.unplaced],
        "message": outcome.unknown,
    }


def _vm(claim: Claim) -> UnplacedVm:
    return {"namespace": claim.vm.namespace, "name": claim.vm.name, "devices": dict(sorted(claim.held.items()))}


def _resources(pool: str, decided: Decided) -> frozenset[str]:
    known = decided.cluster.pools.get(pool)
    return frozenset(known.resource_names) if known is not None else frozenset()


def _pool(
    name: str, resources: frozenset[str], residents: Residents, outcomes: Iterable[LossOutcome], *, is_incomplete: bool
) -> PoolSurvival:
    answers: list[bool | None] = [None] if is_incomplete else []
    answers += [one.survives for one in outcomes if any(resources & claim.held.keys() for claim in one.unplaced)]
    if any(resources & claim.held.keys() for claim in residents.unplaced):
        answers.append(_without_place(residents))
    return {"name": name, "survives": _all(answers)}


def _all(answers: Iterable[bool | None]) -> bool | None:
    """Return False if any is False, or else None if any is unknown."""
    found = set(answers)
    return False if False in found else None if None in found else True
