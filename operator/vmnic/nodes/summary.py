"""How far a pool is, from its nodes: counts, problems and conditions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..api.common import Condition
from ..api.pool import NodeCounts, PoolProblem, PoolStatus, SriovNetworkPool, VfCounts
from .budget import EntryState, NodeView, PoolLedger
from .merge import PoolConflict
from .parts import parts_of
from .state import PfStatus, group_of

__all__ = ["summarise_pool"]

_MAX_PROBLEMS = 10


@dataclass(frozen=True, slots=True)
class _NodeResult:
    state: Literal["ready", "updating", "waiting", "blocked", "failed"]
    problems: tuple[PoolProblem, ...]


def summarise_pool(
    pool: SriovNetworkPool, nodes: Sequence[NodeView], part: PoolLedger, conflicts: Iterable[PoolConflict]
) -> PoolStatus:
    """Write the pool's status; conditions come without transition times.

    Args:
        pool: The pool.
        nodes: The nodes that have at least one function of the pool.
        part: The pool's part of the ledger.
        conflicts: Where the pool gave way to an older one.
    """
    results = [_judge(view, pool, part) for view in sorted(nodes, key=lambda view: view.name)]
    lost = [conflict for conflict in conflicts if conflict.pool == pool.metadata.name]
    problems = [PoolProblem(pf=one.pci_address, reason="Conflict", message=one.message) for one in lost]
    problems += [problem for result in results for problem in result.problems]
    counts = _count_nodes(results)
    blocked = sum(result.state == "blocked" for result in results)
    return PoolStatus(
        observed_generation=pool.metadata.generation,
        resource_names=[pool.resource_name],
        conditions=_conditions(pool, counts, blocked, lost, problems),
        problems=problems[:_MAX_PROBLEMS],
        nodes=counts,
        vfs=_count_vfs(nodes, pool.metadata.name),
    )


def _judge(view: NodeView, pool: SriovNetworkPool, part: PoolLedger) -> _NodeResult:
    name, node = pool.metadata.name, view.name
    mine = {pf.pci_address for pf in view.state.spec.pfs if pf.pool == name or group_of(pf, name) is not None}
    pfs = [pf for pf in view.state.status.pfs if pf.pci_address in mine]
    problems = tuple(problem for pf in pfs if (problem := _problem_of(node, pf)) is not None)
    entry = part.entries.get(node)
    fresh = view.current and view.state.status.observed_generation >= view.state.metadata.generation
    if any(pf.problem is not None for pf in pfs) or (entry is not None and entry.state is EntryState.FAILED):
        return _NodeResult("failed", problems)
    if entry is not None:
        return _NodeResult("updating", problems)
    plans = [pf.plan for pf in pfs if pf.plan is not None]
    if not fresh or (plans and not all(plan.disruptive for plan in plans)):
        return _NodeResult("waiting", problems)
    return _NodeResult("blocked" if plans else "ready", problems)


def _problem_of(node: str, pf: PfStatus) -> PoolProblem | None:
    if pf.problem is not None:
        return PoolProblem(node=node, pf=pf.pci_address, reason=pf.problem.reason, message=pf.problem.message)
    if pf.plan is not None and pf.plan.blocked_by:
        more = len(pf.plan.blocked_by) - 1
        who = pf.plan.blocked_by[0] + (f" and {more} more" if more else "")
        message = f"{who}: stop or move it, then {pf.plan.text} goes on"[:512]
        return PoolProblem(node=node, pf=pf.pci_address, reason="WaitingForVMs", message=message)
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


def _count_vfs(nodes: Iterable[NodeView], pool: str) -> VfCounts:
    desired = configured = in_use = 0
    for view in nodes:
        for part in parts_of(view.state, pool):
            desired += part.desired
            configured += part.configured
            in_use += len(part.held)
    return VfCounts(desired=desired, configured=configured, in_use=in_use)


def _conditions(
    pool: SriovNetworkPool,
    counts: NodeCounts,
    blocked: int,
    lost: Sequence[PoolConflict],
    problems: Sequence[PoolProblem],
) -> list[Condition]:
    """Ready first; each condition's reason names its cause (see the reference of the kind)."""
    going = counts.updating > 0 or counts.waiting > blocked
    stalled = counts.failed > 0 or (bool(lost) and counts.matched == 0)
    ready, reason, message = _ready(pool, counts, blocked, lost, problems, going=going)
    up_to_date = counts.ready == counts.matched and not lost

    def make(kind: str, holds: bool, why: str, text: str = "") -> Condition:
        status: Literal["True", "False"] = "True" if holds else "False"
        return Condition(
            type=kind, status=status, reason=why, message=text[:1024], observed_generation=pool.metadata.generation
        )

    return [
        make("Ready", ready, reason, message),
        make("UpToDate", up_to_date, "AllNodesReady" if up_to_date else reason, "" if up_to_date else message),
        make("Reconciling", going and not stalled, "RollingOut" if going else "Settled"),
        make("Stalled", stalled, reason if stalled else "NotStalled", message if stalled else ""),
        make("Conflict", bool(lost), "Conflict" if lost else "NoConflict", lost[0].message if lost else ""),
    ]


def _ready(
    pool: SriovNetworkPool,
    counts: NodeCounts,
    blocked: int,
    lost: Sequence[PoolConflict],
    problems: Sequence[PoolProblem],
    *,
    going: bool,
) -> tuple[bool, str, str]:
    """Whether the pool is as asked, a word why, and a sentence."""
    failures = [problem for problem in problems if problem.reason not in ("WaitingForVMs", "Conflict")]
    if counts.failed:
        where = f" {failures[0].node}: {failures[0].message}" if failures else ""
        return False, "NodesFailed", f"{counts.failed} of {counts.matched} nodes failed.{where}"
    if lost and (counts.matched == 0 or not lost[0].pci_address):
        return False, "Conflict", lost[0].message
    if counts.matched == 0:
        return True, "NoNodesMatched", "no node has a NIC that the pool selects"
    if going and pool.spec.rollout.paused:
        return False, "Paused", f"{counts.summary} nodes are ready; spec.rollout.paused holds the others back"
    if going:
        return False, "RollingOut", f"{counts.summary} nodes are ready"
    if blocked:
        return True, "WaitingForVMs", f"{blocked} of {counts.matched} nodes wait for VMs to let go of VFs"
    return True, "AllNodesReady", f"{counts.summary} nodes are ready"
