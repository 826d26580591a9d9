"""The Survival, which shows whether all VMs with devices fit after the loss of a node or PF. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

from ..nodes.pools.shares import pool_shares
from ..policy.capacity import Claim
from ..policy.survival import Loss, LossOutcome, Residents, assess_losses, settle
from .objects import Objects
from .offline import Decided
from .running import RunningVms, gather_running, input_problems
from .schema import LossEntry, PoolSurvival, Survival, UnplacedVm

__all__ = ["make_survival"]


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
    losses = _node_losses(residents) if of == "node" else _pf_losses(objects, running)
    outcomes = list(assess_losses(residents, losses))
    entries = [_entry(one) for one in outcomes]
    answers = [one.survives for one in outcomes]
    if residents.unplaced:
        answers.append(False if residents.is_certain else None)
    return {
        "apiVersion": "cli.vmnic.dev/v1alpha1",
        "kind": "Survival",
        "lossOf": of,
        "survives": _all(answers),
        "unplaced": [_vm(claim) for claim in residents.unplaced],
        "losses": entries,
        "pools": [_pool(name, _resources(name, decided), residents, outcomes) for name in sorted(objects.pools)],
        "problems": input_problems(objects, decided, running, missing),
    }


def _node_losses(residents: Residents) -> Iterator[Loss]:
    """Yield the nodes that have devices, or VMs with devices."""
    for name, node in sorted(residents.capacity.nodes.items()):
        if any(node.total.values()) or residents.by_node.get(name):
            yield Loss(node=name)


def _pf_losses(objects: Objects, running: RunningVms) -> Iterator[Loss]:
    """Yield the PFs of the pools."""
    for name, state in sorted(objects.node_states.items()):
        devices: dict[str, Counter[str]] = {}
        held: dict[str, set[str]] = {}
        for pool in objects.pools.values():
            for part in pool_shares(state, pool.metadata.name):
                devices.setdefault(part.pf.pci_address, Counter())[part.resource] += part.ready
                held.setdefault(part.pf.pci_address, set()).update(part.held)
        for pf in state.status.pfs:
            if pf.pci_address in devices:
                holders = [running.holder(name, one) for one in pf.held if one.vf in held[pf.pci_address]]
                yield Loss(
                    node=name,
                    pf=pf.pci_address,
                    devices=devices[pf.pci_address],
                    holders=frozenset(one for one in holders if one is not None),
                )


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


def _pool(name: str, resources: frozenset[str], residents: Residents, outcomes: Iterable[LossOutcome]) -> PoolSurvival:
    answers = [one.survives for one in outcomes if any(resources & claim.held.keys() for claim in one.unplaced)]
    if any(resources & claim.held.keys() for claim in residents.unplaced):
        answers.append(False if residents.is_certain else None)
    return {"name": name, "survives": _all(answers)}


def _all(answers: Iterable[bool | None]) -> bool | None:
    """Return False if any is False, or else None if any is unknown."""
    found = set(answers)
    return False if False in found else None if None in found else True
