"""The status that is published if the API server refuses the full one.

It has the reason and the ends of changes, no plan, and is never Ready.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ...api.node_state import Apply, NodeStatus, PfProblem, PfStatus
from ...api.reasons import PfReason
from ...kube.errors import ApiError, InvalidError
from .conditions import conditions_of_refusal

__all__ = ["is_refusal", "reduced_statuses"]

_TOO_LARGE = 413
_BAD_REQUEST = 400
_CAUSE_CHARS = 256


def is_refusal(error: ApiError) -> bool:
    """Return whether the API server will refuse the same status again.

    It will if the status breaks a rule or is too large.
    """
    # A request above etcd's own limit is answered with 500 and this text.
    too_large = error.status == _TOO_LARGE or "request is too large" in error.message
    return isinstance(error, InvalidError) or too_large or error.status == _BAD_REQUEST


def reduced_statuses(refused: NodeStatus, accepted: NodeStatus, error: ApiError) -> Iterator[NodeStatus]:
    """Yield replacements for a refused status.

    The second one is for the case that the API server refuses the first one too.

    Args:
        refused: The refused status.
        accepted: The status that the API server has, which may be older than the CRD's rules.
        error: The server's answer.
    """
    cause = (next(iter(error.causes), "") or error.message or error.reason)[:_CAUSE_CHARS]
    # The old generation stays, so the controller does not count the node as one that has seen its spec.
    conditions = conditions_of_refusal(cause, accepted.conditions, accepted.observed_generation)
    text = f"the API server refuses this node's status: {cause}"
    runs = {pf.pci_address: pf.apply for pf in refused.pfs}
    pfs = tuple(_without_plan(pf, text) for pf in accepted.pfs)
    pfs = tuple(msgspec.structs.replace(pf, apply=_end_of(runs.get(pf.pci_address, pf.apply))) for pf in pfs)
    yield msgspec.structs.replace(accepted, pfs=pfs, conditions=conditions)
    # Without a boot id the controller decides nothing about the node.
    yield NodeStatus(conditions=conditions)


def _without_plan(pf: PfStatus, text: str) -> PfStatus:
    return msgspec.structs.replace(pf, plan=None, problem=PfProblem(reason=PfReason.UNREADABLE, message=text))


def _end_of(apply: Apply | None) -> Apply | None:
    # The text may be what the API server refuses. The ledger needs only digest and state.
    return msgspec.structs.replace(apply, message="") if apply is not None else None
