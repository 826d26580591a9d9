"""VmNicState: what was decided about one VM, and why; written by the controller, read by its tenant.

Status only, and at most 2 kB: there is one for every VM that is not as wanted, that vmnic has changed, or that has devices.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from .common import ApiModel, Metadata

__all__ = ["VmNicState", "VmStatus"]

_Short = Annotated[str, StringConstraints(max_length=64)]
_Name = Annotated[str, StringConstraints(max_length=253)]
_Text = Annotated[str, StringConstraints(max_length=512)]


class NicShape(ApiModel):
    """A datapath with its settings."""

    datapath: _Short
    """emulated, vhost, macvtap, sriov, passthrough, or other."""
    model: _Short | None = None
    """Model of the NIC, where the datapath has one."""
    queues: Annotated[int, Field(ge=0, le=1024)] = 1
    """Queues."""
    resource: _Name = ""
    """Device resource, where it takes one."""


class CandidateStatus(ApiModel):
    """A datapath that the policy names and that the NIC does not get."""

    datapath: _Short
    """The datapath."""
    reason: _Short
    """Why it fell out."""


class NicStatus(ApiModel):
    """One NIC."""

    name: _Name
    """Name of the interface."""
    policy: _Name = ""
    """The VmNicPolicy that decides it; empty: none."""
    verdict: _Short
    """Change, Compliant, Blocked or NotSelected."""
    reason: _Short = ""
    """Why it is blocked or waits."""
    now: NicShape
    """What it is."""
    wanted: NicShape | None = None
    """What it is to become; absent: as it is."""
    message: _Text = ""
    """What will happen, and when."""
    original: _Text = ""
    """What it was before vmnic changed it; `kubectl vmnic revert vm` puts it back."""
    candidates: Annotated[list[CandidateStatus], Field(max_length=8)] = []
    """The datapaths that fell out."""


class Reverts(ApiModel):
    """How often somebody has put a change back."""

    digest: _Short
    """Names the change."""
    patched_at: Annotated[list[Annotated[str, StringConstraints(max_length=32)]], Field(max_length=4)] = []
    """When it was made (RFC 3339), within the last hour."""
    yielded_at: Annotated[str, StringConstraints(max_length=32)] = ""
    """When vmnic gave in for a day."""
    manager: Annotated[str, StringConstraints(max_length=128)] = ""
    """Who put it back, as far as the VM's managed fields tell."""


class Restart(ApiModel):
    """The last restart that `existingVMs: Rolling` asked for."""

    digest: _Short
    """Names the decision; for one decision a VM is restarted at most once."""
    policy: _Name
    """The policy that asked."""
    state: _Short
    """Restarting, Done, or Failed: the VM did not come back."""
    instance: _Short
    """uid of the instance that was stopped."""
    at: Annotated[str, StringConstraints(max_length=32)]
    """When (RFC 3339)."""


class VmStatus(ApiModel):
    """What was decided about a VM."""

    guest_os: Annotated[_Short, Field(alias="guestOS")] = "unknown"
    """What runs in it."""
    summary: _Text = ""
    """Verdicts of its NICs."""
    nics: Annotated[list[NicStatus], Field(max_length=16)] = []
    """Its NICs; the first sixteen."""
    reverts: Reverts | None = None
    """Changes that somebody has put back."""
    restart: Restart | None = None
    """The last restart."""


class VmNicState(ApiModel):
    """What vmnic has decided about one virtual machine, and why."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore")

    PLURAL: ClassVar[str] = "vmnicstates"
    SHORT: ClassVar[list[str]] = ["vns"]
    NAMESPACED: ClassVar[bool] = True
    COLUMNS: ClassVar[list[dict[str, Any]]] = [
        {"name": "Guest", "type": "string", "jsonPath": ".status.guestOS"},
        {"name": "NICs", "type": "string", "jsonPath": ".status.summary"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]

    metadata: Metadata
    status: VmStatus = VmStatus()
