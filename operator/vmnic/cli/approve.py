"""`kubectl vmnic approve`: which plans of a node a person lets go on. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..nodes.state import NodeNicState, PfStatus

__all__ = ["Approval", "ApprovalError", "approve_plans"]


class ApprovalError(Exception):
    """There is nothing to approve; the message says why."""


@dataclass(frozen=True, slots=True)
class Approval:
    """Plans that are approved."""

    value: str
    """Of the annotation `vmnic.dev/approved`."""
    lines: tuple[str, ...]
    """What is approved, in words."""


def approve_plans(state: NodeNicState, address: str | None) -> Approval:
    """Approve the plans of a node, or of one of its functions; earlier approvals stay as long as their plan does.

    Raises:
        ApprovalError: the node has no such function, or nothing is planned there.
    """
    name = state.metadata.name
    found = [pf for pf in state.status.pfs if address in (None, pf.pci_address, pf.name)]
    if not found:
        there = ", ".join(f"{pf.pci_address} ({pf.name})" for pf in state.status.pfs)
        raise ApprovalError(f"node {name} has no function {address}; it has {there or 'none'}")
    planned = [pf for pf in found if pf.plan is not None]
    if not planned:
        raise ApprovalError(f"nothing is planned on {address or 'any function'} of node {name}")
    digests = {pf.plan.digest for pf in planned if pf.plan is not None}
    standing = {pf.plan.digest for pf in state.status.pfs if pf.plan is not None and pf.plan.digest in state.approved}
    return Approval(",".join(sorted(digests | standing)), tuple(_words(pf) for pf in planned))


def _words(pf: PfStatus) -> str:
    assert pf.plan is not None
    blocked = f"; {', '.join(pf.plan.blocked_by)}" if pf.plan.blocked_by else ""
    again = f" again after: {pf.problem.message}" if pf.problem is not None else ""
    return f"{pf.pci_address} ({pf.name}): {pf.plan.text}{again}{blocked}"
