"""What is published where the API server refuses a status: the reason and how runs ended, no plan, and never Ready."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ...kube.errors import ApiError, InvalidError
from ...nodes.state import Apply, NodeStatus, PfProblem, PfReason, PfStatus
from .conditions import conditions_of_refusal

__all__ = ["is_refusal", "reduced_statuses"]

_TOO_LARGE = 413
_BAD_REQUEST = 400
_CAUSE_CHARS = 256


def is_refusal(error: ApiError) -> bool:
    """Return whether the API server will refuse the same status again: it breaks a rule, or is too large."""
    too_large = error.status == _TOO_LARGE or "request is too large" in error.message
    return isinstance(error, InvalidError) or too_large or error.status == _BAD_REQUEST


def reduced_statuses(refused: NodeStatus, accepted: NodeStatus, error: ApiError) -> Iterator[NodeStatus]:
    """Yield what to publish in place of a refused status, the second where the first is refused, too.

    Args:
        refused: The status.
        accepted: What the API server has; it may be older than the rules.
        error: Its answer.
    """
    cause = (next(iter(error.causes), "") or error.message or error.reason)[:_CAUSE_CHARS]
    conditions = conditions_of_refusal(cause, accepted.conditions, accepted.observed_generation)
    text = f"the API server refuses this node's status: {cause}"
    runs = {pf.pci_address: pf.apply for pf in refused.pfs}
    pfs = tuple(_without_plan(pf, text) for pf in accepted.pfs)
    pfs = tuple(msgspec.structs.replace(pf, apply=_end_of(runs.get(pf.pci_address, pf.apply))) for pf in pfs)
    yield msgspec.structs.replace(accepted, pfs=pfs, conditions=conditions)
    # Without a boot id nothing is decided about the node.
    yield NodeStatus(conditions=conditions)


def _without_plan(pf: PfStatus, text: str) -> PfStatus:
    return msgspec.structs.replace(pf, plan=None, problem=PfProblem(reason=PfReason.UNREADABLE, message=text))


def _end_of(apply: Apply | None) -> Apply | None:
    return msgspec.structs.replace(apply, message="") if apply is not None else None
