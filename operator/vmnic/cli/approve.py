"""Approval of a node's plans by a person. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..api.node_state import APPROVED_CHARS, NodeNicState, PfStatus, blocker_id

__all__ = ["Approval", "ApprovalError", "approve_plans"]


class ApprovalError(Exception):
    """There is nothing to approve. The message says why."""


@dataclass(frozen=True, slots=True)
class Approval:
    """Approved plans."""

    value: str
    """Value of the annotation `vmnic.dev/approved`."""
    lines: tuple[str, ...]
    """Descriptions of the approved plans."""


def approve_plans(state: NodeNicState, address: str | None) -> Approval:
    """Approve the plans of a node, or of one of its PFs.

    Earlier approvals stay as long as their plan does.

    Raises:
        ApprovalError: the node has no such function, or no plan for it.
    """
    name = state.metadata.name
    found = [pf for pf in state.status.pfs if address in (None, pf.pci_address, pf.name)]
    if not found:
        there = ", ".join(f"{pf.pci_address} ({pf.name})" for pf in state.status.pfs)
        raise ApprovalError(f"node {name} has no function {address}; it has {there or 'none'}")
    planned = [pf for pf in found if pf.plan is not None]
    if not planned:
        raise ApprovalError(f"nothing is planned on {address or 'any function'} of node {name}")
    digests = {pf.plan.digest for pf in state.status.pfs if pf.plan is not None}
    # The annotation is written as a whole, so approvals of other PFs are repeated. A digest whose plan is gone is left out.
    approvals = {digest: ids for digest, ids in state.approvals.items() if digest in digests}
    approvals |= {pf.plan.digest: frozenset(map(blocker_id, pf.plan.soft)) for pf in planned if pf.plan is not None}
    value = ",".join(":".join([digest, *sorted(approvals[digest])]) for digest in sorted(approvals))
    if len(value) > APPROVED_CHARS:
        raise ApprovalError(f"node {name} has too many plans to approve together: approve one function at a time")
    return Approval(value, tuple(_words(pf) for pf in planned))


def _words(pf: PfStatus) -> str:
    assert pf.plan is not None
    blocked = f"; {', '.join(pf.plan.blocked_by)}" if pf.plan.blocked_by else ""
    again = f" again after: {pf.problem.message}" if pf.problem is not None else ""
    return f"{pf.pci_address} ({pf.name}): {pf.plan.text}{again}{blocked}"
