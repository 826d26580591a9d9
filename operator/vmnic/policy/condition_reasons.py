"""Reasons of a policy's conditions, each with its cause and what to do.

The docstring below a member becomes a row of `docs/reference/reasons.md`: the first sentence is the cause, the rest the remedy.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["PolicyReason"]


class PolicyReason(StrEnum):
    """Reason of a policy's conditions."""

    EVALUATED = "Evaluated"
    """The policy was evaluated at `observedGeneration`. Nothing."""
    KUBEVIRT_ABSENT = "KubeVirtAbsent"
    """The cluster has no KubeVirt, so there are no VMs. Install KubeVirt; the policy is evaluated then."""
    UNSUPPORTED_SPEC = "UnsupportedSpec"
    """This version of vmnic cannot read the policy. Correct the field that the message names, or upgrade vmnic."""
    ROLLING_OUT = "RollingOut"
    """With `existingVMs: Rolling`, VMs still have to be changed and restarted. Nothing."""
    SETTLED = "Settled"
    """No VM waits for a restart by vmnic. Nothing."""
    INVALID_WINDOW = "InvalidWindow"
    """`enforcement.window` cannot be read, so no VM is restarted. Correct the schedule or the time zone."""
    VM_DID_NOT_COME_BACK = "VmDidNotComeBack"
    """A VM that vmnic restarted does not run, so no further VM is restarted. Repair or stop the VM that the message names."""
    NOT_STALLED = "NotStalled"
    """Nothing waits for a person. Nothing."""
    ALL_COMPLIANT = "AllCompliant"
    """Every selected VM has the NICs that the policy wants. Nothing."""
    NOT_COMPLIANT = "NotCompliant"
    """Selected VMs have other NICs. Read `status.problems`, which names the first ten and why."""
    CONFLICT = "Conflict"
    """Another policy of the same priority decides a NIC differently. Give one of them another `spec.priority`."""
    NO_CONFLICT = "NoConflict"
    """No other policy of the same priority decides differently. Nothing."""
