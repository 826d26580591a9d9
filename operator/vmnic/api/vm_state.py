"""VmNicState with the decision about one VM and its reasons.

The controller writes it for the tenant.
It has only a status, of at most 2 kB, and exists for every VM that differs from what is wanted, that vmnic has changed, or
that has devices.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from .common import ApiModel, Metadata

__all__ = ["VmNicState", "VmStatus"]

# No enums: verdicts and reasons are the controller's own words, and a newer controller may have more of them than this CRD.
_Short = Annotated[str, StringConstraints(max_length=64)]
_Name = Annotated[str, StringConstraints(max_length=253)]
_Text = Annotated[str, StringConstraints(max_length=512)]


class NicShape(ApiModel):
    """A datapath with its settings."""

    datapath: _Short
    """emulated, vhost, macvtap, sriov, passthrough or other."""
    model: _Short | None = None
    """Model of the NIC; absent if the datapath has none."""
    queues: Annotated[int, Field(ge=0, le=1024)] = 1
    """Number of queues."""
    resource: _Name = ""
    """Device resource; empty if the datapath needs none."""


class CandidateStatus(ApiModel):
    """A datapath that the policy names and that the NIC does not get."""

    datapath: _Short
    """The datapath."""
    reason: _Short
    """Finding that excludes it."""


class NicStatus(ApiModel):
    """One NIC."""

    name: _Name
    """Name of the interface."""
    policy: _Name = ""
    """VmNicPolicy that decides the NIC; empty if there is none."""
    verdict: _Short
    """Change, Compliant, Blocked or NotSelected."""
    reason: _Short = ""
    """Why the NIC is blocked or waits."""
    now: NicShape
    """Present datapath."""
    wanted: NicShape | None = None
    """Wanted datapath; absent if it stays as it is."""
    message: _Text = ""
    """What will happen, and when."""
    original: _Text = ""
    """Values before vmnic changed the NIC; `kubectl vmnic revert vm` restores them."""
    # As many as a policy may name.
    candidates: Annotated[list[CandidateStatus], Field(max_length=8)] = []
    """Datapaths that are excluded."""


class Reverts(ApiModel):
    """Reverts of a change by another client."""

    digest: _Short
    """Digest that names the change."""
    patched_at: Annotated[list[Annotated[str, StringConstraints(max_length=32)]], Field(max_length=4)] = []
    """Times at which vmnic made the change (RFC 3339), within the last hour."""
    yielded_at: Annotated[str, StringConstraints(max_length=32)] = ""
    """Time at which vmnic stopped making the change for a day."""
    manager: Annotated[str, StringConstraints(max_length=128)] = ""
    """Client that reverted the change, as far as the VM's managed fields show."""


class Restart(ApiModel):
    """The last restart that `existingVMs: Rolling` asked for."""

    digest: _Short
    """Digest that names the decision. A VM is restarted at most once for one decision."""
    policy: _Name
    """Policy that asked for the restart."""
    state: _Short
    """Restarting, Done, or Failed if the VM did not come back."""
    instance: _Short
    """UID of the instance that was stopped."""
    at: Annotated[str, StringConstraints(max_length=32)]
    """Time of the restart (RFC 3339)."""


class VmStatus(ApiModel):
    """Decision about a VM."""

    guest_os: Annotated[_Short, Field(alias="guestOS")] = "unknown"
    """Guest operating system."""
    summary: _Text = ""
    """Verdicts of its NICs."""
    nics: Annotated[list[NicStatus], Field(max_length=16)] = []
    """The first sixteen NICs."""
    reverts: Reverts | None = None
    """Reverts of vmnic's changes by another client."""
    restart: Restart | None = None
    """The last restart."""


class VmNicState(ApiModel):
    """The decision of vmnic about one virtual machine, and its reasons."""

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
