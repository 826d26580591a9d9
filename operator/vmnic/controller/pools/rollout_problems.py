"""Problems of a pool that report which nodes hold up its rollout, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...api.pool import PoolProblem, SriovNetworkPool
from ...api.reasons import PoolProblemReason
from ...nodes.rollout.ledger import EntryState, NodeView, PoolLedger
from .ledger import LEDGER_NAME
from .rollout_memory import RolloutMemory

__all__ = ["find_rollout_problems"]


def find_rollout_problems(
    pool: SriovNetworkPool,
    part: PoolLedger,
    views: Sequence[NodeView],
    memory: RolloutMemory,
    answers: Mapping[str, str],
    now: int,
) -> list[PoolProblem]:
    """Return which nodes hold up the rollout and why.

    Failed nodes come first, because they stop it.

    Args:
        pool: The pool.
        part: The pool's part of the ledger.
        views: Its nodes.
        memory: What its rollout waits for.
        answers: What prevents drains from finishing, by node.
        now: Seconds since 1970.
    """
    problems = [_timed_out(view, pool) for view in views if _is_unexplained(view, part)]
    if memory.left_out:
        problems.append(_full(memory.left_out))
    there = {view.name for view in views}
    problems += [
        PoolProblem(node=node, reason=PoolProblemReason.NO_VFS_FOR_DRAIN, message=memory.refusals[node][:512])
        for node in sorted(memory.refused(now))
        if node in there and node not in part.entries
    ]
    for node, entry in sorted(part.entries.items()):
        answer = answers.get(node)
        if entry.state is EntryState.DRAINING and answer:
            problems.append(PoolProblem(node=node, reason=PoolProblemReason.DRAINING, message=answer[:512]))
    return problems


def _is_unexplained(view: NodeView, part: PoolLedger) -> bool:
    """Return whether a node's change has failed and the node reports no problem that explains it."""
    entry = part.entries.get(view.name)
    if entry is None or entry.state is not EntryState.FAILED or view.lost:
        return False
    return not any(pf.problem is not None and pf.pci_address in entry.digests for pf in view.state.status.pfs)


def _timed_out(view: NodeView, pool: SriovNetworkPool) -> PoolProblem:
    rollout, safety = pool.spec.rollout, pool.spec.safety
    text = (
        f"node {view.name} was granted a change, and its agent has not completed it within rollout.drainTimeout"
        f" ({rollout.drain_timeout}) and safety.rollbackTimeout ({safety.rollback_timeout}): check the agent's log. A"
        " node that spec.nodeSelector no longer matches does not delay the others"
    )
    return PoolProblem(node=view.name, reason=PoolProblemReason.CHANGE_TIMED_OUT, message=text[:512])


def _full(nodes: int) -> PoolProblem:
    text = (
        f"{nodes} nodes wait: ConfigMap {LEDGER_NAME} has no room for more changes in progress: lower rollout.maxConcurrent,"
        " or repair the failed nodes"
    )
    return PoolProblem(reason=PoolProblemReason.LEDGER_FULL, message=text)
