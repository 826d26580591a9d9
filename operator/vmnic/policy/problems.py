"""Problems of a plan that are no reasons of a NIC.

The docstring below a member becomes a row of `docs/reference/reasons.md`: the first sentence is the cause, the rest the remedy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .reasons import Reason

__all__ = ["ProblemReason", "VmProblem"]


class ProblemReason(StrEnum):
    """Reason of an entry of `problems` in a plan, beside those of a NIC and of a function."""

    NOT_FOUND = "NotFound"
    """An object that a VM or a policy refers to is not there or not given; the message says what is assumed. Create it, or add
    it to the files."""
    NOT_MANAGED = "NotManaged"
    """The plan does not show VMs of this kind. Nothing; the message says when they are decided, and what else to use."""
    FORBIDDEN = "Forbidden"
    """You may not read a kind, so what depends on it is not known. Ask for the right to list it."""
    UNREADABLE = "Unreadable"
    """An object cannot be read or handled, and is set aside. Correct what the message names."""
    KIND_ABSENT = "KindAbsent"
    """The cluster does not serve a kind, so it counts as having no such object. Install the operator that brings it, or do
    nothing."""
    CONFLICT = "Conflict"
    """Two policies of the same priority decide one NIC differently, or two pools ask for one function. Change the priority of
    one policy, or the selector of one pool."""
    CAPACITY_UNKNOWN = "CapacityUnknown"
    """No NodeNicState with functions of the pool is given, so it counts as ready. Add `kubectl get nicst -o yaml` to the
    files."""
    ANNOTATION_INVALID = "AnnotationInvalid"
    """An annotation of the VM has a value that vmnic does not know, so it has no effect. Write one that the message names."""
    NOT_ACCEPTABLE = "NotAcceptable"
    """The annotation vmnic.dev/accept of a NetworkAttachmentDefinition has words that are no reasons which can be accepted, or
    is too long; they have no effect. Write the words that the message names."""
    BINDING_REMOVED = "BindingRemoved"
    """A NIC has a binding that KubeVirt no longer has, so the VM does not start. Use the binding plugin of that name."""


@dataclass(frozen=True, slots=True)
class VmProblem:
    """What is wrong with a VM, or with an object that it refers to."""

    reason: Reason | ProblemReason
    message: str
