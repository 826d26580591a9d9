"""Status of a pool with counts, problems and conditions, computed from its nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ...api.common import Condition
from ...api.node_state import NodeNicState, PfSpec, PfStatus
from ...api.pool import MOST_RESOURCES, NodeCounts, PoolProblem, PoolStatus, SriovNetworkPool, VfCounts
from ...api.reasons import PfReason, PoolProblemReason, PoolReason
from ..pools.guests import find_mixed_support
from ..pools.merge import PoolConflict
from ..pools.nic_data import find_nic_data_problems
from ..pools.resources import PoolResources, collect_resources
from ..state import group_of
from .ledger import EntryState, NodeView, PoolLedger

__all__ = ["summarise_pool"]

_MAX_PROBLEMS = 10
_MAX_NETWORK_PROBLEMS = 3
"""Most problems of networks in a status. Tenants can cause them, so they must not displace the problems of nodes."""
_MISSING_NETWORK = (PoolProblemReason.NAD_KIND_ABSENT, PoolProblemReason.NAD_EXISTS, PoolProblemReason.NAD_REFUSED)
"""Reasons of problems with networks that the pool asks for and does not have."""
_NO_FAILURES = (
    PoolProblemReason.WAITING_FOR_VMS,
    PoolProblemReason.WAITING_FOR_APPROVAL,
    PoolProblemReason.DRAINING,
    PoolProblemReason.NO_VFS_FOR_DRAIN,
    PoolProblemReason.NODE_NOT_READY,
    PoolProblemReason.CONFLICT,
    PfReason.LINK_TYPE_DIFFERS,
)
"""Reasons of problems that do not count a node as failed."""


@dataclass(frozen=True, slots=True)
class _NodeResult:
    state: Literal["ready", "updating", "waiting", "blocked", "failed"]
    problems: tuple[PoolProblem, ...]


def summarise_pool(
    pool: SriovNetworkPool,
    nodes: Sequence[NodeView],
    part: PoolLedger,
    conflicts: Iterable[PoolConflict],
    more: Iterable[PoolProblem] = (),
) -> PoolStatus:
    """Compute the pool's status, in which conditions have no transition times yet.

    Args:
        pool: The pool.
        nodes: The nodes that have at least one PF of the pool, or are releasing one.
        part: The pool's part of the ledger.
        conflicts: Conflicts that pools have lost to older ones.
        more: Problems found elsewhere, with drains and with networks.
    """
    results = [_judge(view, pool, part) for view in sorted(nodes, key=lambda view: view.name)]
    lost = [conflict for conflict in conflicts if conflict.pool == pool.metadata.name]
    mixed = find_mixed_support(pool, (view.state for view in nodes))
    # One node may have many problems. The first of every node comes first, so that no node hides another.
    own = [one for result in results for one in result.problems[:1]] + [
        one for result in results for one in result.problems[1:]
    ]
    told = {one.reason for one in own}
    faults = [one for one in find_nic_data_problems(pool) if one.reason not in told]
    resources = collect_resources(pool, (view.state for view in nodes))
    whole = [*([mixed] if mixed is not None else []), *([_too_many(resources)] if resources.refused else [])]
    problems = _ranked([*more, *faults, *whole, *own], lost)
    counts = _count_nodes(results)
    blocked = sum(result.state == "blocked" for result in results)
    return PoolStatus(
        observed_generation=pool.metadata.generation,
        resource_names=list(resources.names),
        conditions=_conditions(pool, counts, blocked, lost, problems, faults, everywhere=all(view.refused for view in nodes)),
        problems=problems[:_MAX_PROBLEMS],
        nodes=counts,
        vfs=_count_vfs(nodes),
    )


def _too_many(resources: PoolResources) -> PoolProblem:
    text = (
        f"resourcePerPF gives {len(resources.names) + len(resources.refused)} resources, and a pool has at most "
        f"{MOST_RESOURCES}: policies do not use {', '.join(resources.refused[:3])}; make several pools with nicSelector.pfNames"
    )
    return PoolProblem(reason=PoolProblemReason.TOO_MANY_RESOURCES, message=text[:512])


def _ranked(found: Sequence[PoolProblem], lost: Sequence[PoolConflict]) -> list[PoolProblem]:
    """Order the problems, with those of nodes first and few of networks last."""
    networks = [one for one in found if one.reason.startswith("Nad")]
    # Networks that the pool lacks come first, so that the shortened list keeps what makes the pool Stalled.
    networks.sort(key=lambda one: one.reason not in _MISSING_NETWORK)
    others = [one for one in found if not one.reason.startswith("Nad")]
    conflicts = [PoolProblem(pf=one.pci_address, reason=one.reason, message=one.message) for one in lost]
    nodes_first = sorted([*conflicts, *others], key=lambda one: not one.node)
    return nodes_first + _shortened(networks)


def _shortened(problems: list[PoolProblem]) -> list[PoolProblem]:
    kept, more = problems[:_MAX_NETWORK_PROBLEMS], len(problems) - _MAX_NETWORK_PROBLEMS
    if more > 0:
        # The CRD allows 512 characters, so this leaves room for the words that follow.
        text = f"{kept[-1].message[:440]} (and {more} more networks have problems)"
        kept[-1] = kept[-1].model_copy(update={"message": text})
    return kept


def _judge(view: NodeView, pool: SriovNetworkPool, part: PoolLedger) -> _NodeResult:
    name, node = pool.metadata.name, view.name
    if view.state.unreadable:
        return _NodeResult("waiting", (_unreadable(node, view.state.unreadable),))
    mine = {pf.pci_address: pf for pf in view.state.spec.pfs if _is_part(pf, name)}
    pfs = [pf for pf in view.state.status.pfs if pf.pci_address in mine]
    entry = part.entries.get(node)
    rests = entry is not None and entry.state is EntryState.RESTING
    found = (_problem_of(node, pf, pool, view.state, rests=rests) for pf in pfs)
    problems = tuple(problem for problem in found if problem is not None)
    failed = entry is not None and entry.state is EntryState.FAILED
    if failed and view.lost:
        text = f"node {node} is lost, and its change failed or is unfinished: bring it back, or delete its Node"
        problems = (PoolProblem(node=node, reason=PoolProblemReason.NODE_LOST, message=text), *problems)
    if failed or any(pf.problem is not None for pf in pfs):
        return _NodeResult("failed", problems)
    if entry is not None and entry.under_way:
        return _NodeResult("updating", problems)
    plans = [pf.plan for pf in pfs if pf.plan is not None]
    # A plan, or its absence, may belong to an older spec.
    fresh = view.current and view.confirmed
    if not view.ready and (plans or not fresh):
        text = f"node {node} is not ready, so its agent may not see the change: it continues once the node is back"
        return _NodeResult(
            "waiting", (*problems, PoolProblem(node=node, reason=PoolProblemReason.NODE_NOT_READY, message=text))
        )
    # A released PF without a plan is done, but its spec is not removed yet.
    leaving = not plans and any(spec.release for spec in mine.values())
    if not fresh or leaving or (plans and not all(plan.disruptive for plan in plans)):
        return _NodeResult("waiting", problems)
    return _NodeResult("blocked" if plans else "ready", problems)


def _unreadable(node: str, why: str) -> PoolProblem:
    text = f"the status of node {node} cannot be read ({why}): its VFs stay as they are; upgrade or restart its agent"
    return PoolProblem(node=node, reason=PfReason.UNREADABLE, message=text[:512])


def _is_part(pf: PfSpec, pool: str) -> bool:
    """Return whether a PF belongs to the pool, or is being released by it."""
    return pf.pool == pool or (not pf.release and group_of(pf, pool) is not None)


def _problem_of(node: str, pf: PfStatus, pool: SriovNetworkPool, state: NodeNicState, *, rests: bool) -> PoolProblem | None:
    if pf.problem is not None:
        return PoolProblem(node=node, pf=pf.pci_address, reason=pf.problem.reason, message=pf.problem.message)
    left = state.unapproved_blockers(pf.plan) if pf.plan is not None else ()
    if pf.plan is not None and left:
        more = len(left) - 1
        who = left[0] + (f" and {more} more" if more else "")
        late = f" (it was not evicted within {pool.spec.rollout.drain_timeout}; vmnic tries again later)" if rests else ""
        manual = pool.spec.rollout.disruption == "Manual"
        command = f"kubectl vmnic approve {node} {pf.pci_address}"
        approve = f" (`{command}` allows vmnic to move it)" if manual else ""
        remedy = f"stop or move it{approve}" if pf.plan.hard else f"accept that with {command}, or stop it"
        message = f"{who}{late}: {remedy}, then {pf.plan.text} continues"[:512]
        return PoolProblem(node=node, pf=pf.pci_address, reason=PoolProblemReason.WAITING_FOR_VMS, message=message)
    unapproved = pf.plan is not None and pf.plan.disruptive and pf.plan.digest not in state.approved
    if pf.plan is not None and pool.spec.rollout.disruption == "Manual" and unapproved:
        message = f"{pf.plan.text} interrupts the host's own traffic: kubectl vmnic approve {node} {pf.pci_address}"[:512]
        return PoolProblem(node=node, pf=pf.pci_address, reason=PoolProblemReason.WAITING_FOR_APPROVAL, message=message)
    return None


def _count_nodes(results: Sequence[_NodeResult]) -> NodeCounts:
    of = [result.state for result in results]
    return NodeCounts(
        matched=len(of),
        ready=of.count("ready"),
        updating=of.count("updating"),
        waiting=of.count("waiting") + of.count("blocked"),
        failed=of.count("failed"),
        summary=f"{of.count('ready')}/{len(of)}",
    )


def _count_vfs(nodes: Iterable[NodeView]) -> VfCounts:
    totals = [view.vfs for view in nodes]
    return VfCounts(
        desired=sum(one.desired for one in totals),
        configured=sum(one.configured for one in totals),
        in_use=sum(one.in_use for one in totals),
    )


def _conditions(
    pool: SriovNetworkPool,
    counts: NodeCounts,
    blocked: int,
    lost: Sequence[PoolConflict],
    problems: Sequence[PoolProblem],
    faults: Sequence[PoolProblem],
    *,
    everywhere: bool,
) -> list[Condition]:
    """Build the conditions, Ready first. Each reason names the cause (see the reference of the kind).

    `everywhere` is whether no node has what the pool asks, because of its conflicts and faults.
    """
    going = counts.updating > 0 or counts.waiting > blocked
    # A conflict stalls a pool only if it lost everywhere: on other nodes its rollout still goes on.
    stalled = (
        counts.failed > 0
        or (bool(lost) and everywhere)
        or (bool(faults) and counts.matched == 0)
        or _refused_network(problems) is not None
    )
    ready, reason, message = _ready(pool, counts, blocked, lost, problems, faults, going=going, everywhere=everywhere)
    up_to_date = counts.ready == counts.matched and not lost and not (faults and counts.matched == 0)

    clashes = [one for one in lost if one.reason == PoolProblemReason.CONFLICT]

    def make(kind: str, holds: bool, why: str, text: str = "") -> Condition:
        status: Literal["True", "False"] = "True" if holds else "False"
        return Condition(
            type=kind, status=status, reason=why, message=text[:1024], observed_generation=pool.metadata.generation
        )

    return [
        make("Ready", ready, reason, message),
        make("UpToDate", up_to_date, PoolReason.ALL_NODES_READY if up_to_date else reason, "" if up_to_date else message),
        make("Reconciling", going and not stalled, PoolReason.ROLLING_OUT if going else PoolReason.SETTLED),
        make("Stalled", stalled, reason if stalled else PoolReason.NOT_STALLED, message if stalled else ""),
        make(
            "Conflict",
            bool(clashes),
            PoolProblemReason.CONFLICT if clashes else PoolReason.NO_CONFLICT,
            clashes[0].message if clashes else "",
        ),
    ]


def _refused_network(problems: Iterable[PoolProblem]) -> PoolProblem | None:
    """Return the first problem with a network that the pool asks for and cannot have."""
    return next((one for one in problems if one.reason in _MISSING_NETWORK), None)


def _ready(
    pool: SriovNetworkPool,
    counts: NodeCounts,
    blocked: int,
    lost: Sequence[PoolConflict],
    problems: Sequence[PoolProblem],
    faults: Sequence[PoolProblem],
    *,
    going: bool,
    everywhere: bool,
) -> tuple[bool, str, str]:
    """Return whether the pool is ready, the reason, and a message."""
    failures = [problem for problem in problems if problem.node and problem.reason not in _NO_FAILURES]
    refused = _refused_network(problems)
    if counts.failed:
        where = f" {failures[0].node}: {failures[0].message}" if failures else ""
        return False, PoolReason.NODES_FAILED, f"{counts.failed} of {counts.matched} nodes failed.{where}"
    if pool.metadata.deletion_timestamp:
        who = f" {': '.join(filter(None, (problems[0].node, problems[0].message)))}" if problems else ""
        text = f"{counts.matched} nodes still have to release functions; the annotation vmnic.dev/abandon ends the wait.{who}"
        return False, PoolReason.REMOVING, text
    if refused is not None:
        return False, refused.reason, refused.message
    if lost and (everywhere or not lost[0].pci_address):
        return False, lost[0].reason, lost[0].message
    if counts.matched == 0 and faults:
        return False, faults[0].reason, faults[0].message
    if counts.matched == 0:
        why = next((f" ({one.node}: {one.message})" for one in problems if one.reason == PfReason.LINK_TYPE_DIFFERS), "")
        return True, PoolReason.NO_NODES_MATCHED, f"no node has a NIC that the pool selects{why}"
    if going and pool.spec.rollout.paused:
        return False, PoolReason.PAUSED, f"{counts.summary} nodes are ready; spec.rollout.paused holds the others back"
    if going:
        return False, PoolReason.ROLLING_OUT, f"{counts.summary} nodes are ready"
    # A pool whose other nodes are done is Ready: VMs may run for months, and UpToDate is False meanwhile.
    if blocked:
        return True, PoolProblemReason.WAITING_FOR_VMS, f"{blocked} of {counts.matched} nodes wait for VMs to release VFs"
    return True, PoolReason.ALL_NODES_READY, f"{counts.summary} nodes are ready"
