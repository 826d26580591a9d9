"""VmNicState with the decision about one VM and its reasons.

The controller writes it for the tenant.
It has only a status, of at most 2 kB, and exists for every VM that differs from what is wanted, that vmnic has changed, or
that has devices.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

__all__ = ["Restart", "Reverts", "VmNicState", "VmStatus"]

# No enums: verdicts and reasons are the controller's own words, and a newer controller may have more of them than this CRD.
_Short = Annotated[str, Meta(max_length=64)]
_Name = Annotated[str, Meta(max_length=253)]
_Time = Annotated[str, Meta(max_length=32)]
_Text = Annotated[str, Meta(max_length=512)]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of the structs below.

    Names are in camelCase in JSON, and fields that equal their default are omitted.
    """


class NicShape(_Struct, frozen=True):
    """A datapath with its settings."""

    datapath: _Short
    """emulated, vhost, macvtap, sriov, passthrough or other."""
    model: _Short | None = None
    """Model of the NIC; absent if the datapath has none."""
    queues: Annotated[int, Meta(ge=0, le=1024)] = 1
    """Number of queues."""
    resource: _Name = ""
    """Device resource; empty if the datapath needs none."""


class CandidateStatus(_Struct, frozen=True):
    """A datapath that the policy names and that the NIC does not get."""

    datapath: _Short
    """The datapath."""
    reason: _Short
    """Finding that excludes it."""


class WarningStatus(_Struct, frozen=True):
    """What fails at the next start of the VM although its NIC keeps its datapath."""

    reason: _Short
    """Finding that says so."""
    message: _Text = ""
    """What will fail, and what to do."""


class NicStatus(_Struct, frozen=True, kw_only=True):
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
    guest: _Text = ""
    """What changes for the guest: MTU, adapter, interface name, queues and link."""
    original: _Text = ""
    """Values before vmnic changed the NIC; `kubectl vmnic revert vm` restores them."""
    # As many as a policy may name.
    candidates: Annotated[tuple[CandidateStatus, ...], Meta(max_length=8)] = ()
    """Datapaths that are excluded."""
    warnings: Annotated[tuple[WarningStatus, ...], Meta(max_length=8)] = ()
    """What fails at the next start of the VM if the NIC keeps its datapath."""


class Reverts(_Struct, frozen=True):
    """Reverts of a change by another client."""

    digest: _Short
    """Digest that names the change."""
    patched_at: Annotated[tuple[_Time, ...], Meta(max_length=4)] = ()
    """Times at which vmnic made the change (RFC 3339), within the last hour."""
    yielded_at: _Time = ""
    """Time at which vmnic stopped making the change for a day."""
    manager: Annotated[str, Meta(max_length=128)] = ""
    """Client that reverted the change, as far as the VM's managed fields show."""


class Restart(_Struct, frozen=True):
    """The last restart that `existingVMs: Rolling` asked for."""

    digest: _Short
    """Digest that names the decision. A VM is restarted at most once for one decision."""
    policy: _Name
    """Policy that asked for the restart."""
    state: _Short
    """Restarting, Done, or Failed if the VM did not come back."""
    instance: _Short
    """UID of the instance that was stopped."""
    at: _Time
    """Time of the restart (RFC 3339)."""


class VmStatus(_Struct, frozen=True):
    """Decision about a VM."""

    guest_os: _Short = msgspec.field(default="unknown", name="guestOS")
    """Guest operating system."""
    summary: _Text = ""
    """Verdicts of its NICs."""
    nics: Annotated[tuple[NicStatus, ...], Meta(max_length=16)] = ()
    """The first sixteen NICs."""
    reverts: Reverts | None = None
    """Reverts of vmnic's changes by another client."""
    restart: Restart | None = None
    """The last restart."""


class VmNicState(_Struct, frozen=True):
    """The decision of vmnic about one virtual machine, and its reasons."""

    PLURAL: ClassVar[str] = "vmnicstates"
    SHORT: ClassVar[list[str]] = ["vns"]
    NAMESPACED: ClassVar[bool] = True
    COLUMNS: ClassVar[list[dict[str, Any]]] = [
        {"name": "Guest", "type": "string", "jsonPath": ".status.guestOS"},
        {"name": "NICs", "type": "string", "jsonPath": ".status.summary"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]

    status: VmStatus = VmStatus()
