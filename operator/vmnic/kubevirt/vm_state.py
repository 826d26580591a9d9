"""Status of a VmNicState, and the part of it that stays in memory.

A status holds at most 2 kB, because every watcher of VMs may read it. The cache of 50,000 objects keeps digests only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from ..api.vm_state import Restart, Reverts
from ..policy.facts import NicState
from ..policy.guest_view import describe_view, guest_view
from ..policy.types import NicDecision, Verdict, VmDecision
from .assignment import AssignmentRecord, RecordedNic, parse_record

__all__ = ["VmStateNote", "decode_vm_state", "digest_of_status", "render_status", "should_publish"]

_BYTES = 2048
_NICS = 16
_MESSAGE = 160
_WARNINGS = 8
_DIFFERS = (Verdict.CHANGE, Verdict.BLOCKED)


class VmStateNote(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a VmNicState that stays in memory."""

    digest: str
    reverts: Reverts | None = None
    restart: Restart | None = None


class _Status(msgspec.Struct, frozen=True):
    reverts: Reverts | None = None
    restart: Restart | None = None


class _Object(msgspec.Struct, frozen=True):
    status: msgspec.Raw = msgspec.Raw(b"{}")


_object_decoder = msgspec.json.Decoder(_Object)
_status_decoder = msgspec.json.Decoder(_Status)


def decode_vm_state(raw: bytes | msgspec.Raw) -> VmStateNote:
    """Read the part of a VmNicState that stays in memory.

    Raises:
        ValueError: a field has the wrong type or exceeds its bound, or a time is malformed.
    """
    status = _object_decoder.decode(raw).status
    parsed = _status_decoder.decode(status)
    # A malformed time must show here, where it sets this object aside, and not when restarts are planned.
    for time in _times(parsed):
        datetime.fromisoformat(time)
    return VmStateNote(digest=digest_of_status(msgspec.json.decode(status)), reverts=parsed.reverts, restart=parsed.restart)


def _times(status: _Status) -> Iterator[str]:
    if status.reverts is not None:
        yield from status.reverts.patched_at
        yield from filter(None, (status.reverts.yielded_at,))
    if status.restart is not None:
        yield status.restart.at


def digest_of_status(status: Mapping[str, Any]) -> str:
    """Return the digest of a status."""
    # The API server may return the keys in another order.
    return hashlib.sha256(msgspec.json.encode(status, order="sorted")).hexdigest()[:16]


def should_publish(decision: VmDecision) -> bool:
    """Return whether a VM differs from its policy, was changed, has devices, or has a warning."""
    if not decision.selected:
        return decision.vm.record is not None
    return (
        decision.vm.record is not None
        or any(nic.verdict in _DIFFERS or nic.warnings for nic in decision.nics)
        or any(nic.nic.present.datapath.needs_device for nic in decision.nics)
    )


def render_status(decision: VmDecision, reverts: Reverts | None, restart: Restart | None) -> dict[str, Any]:
    """Build the status of a VmNicState.

    If it would exceed the size limit, candidates and texts are omitted first, and NICs last.
    """
    record = parse_record(decision.vm.record) or AssignmentRecord()
    verdicts = [nic.verdict.value for nic in decision.nics]
    counted = {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}
    status: dict[str, Any] = {
        "guestOS": decision.vm.guest_os.value,
        "summary": ", ".join(f"{count} {verdict}" for verdict, count in counted.items()),
        "nics": [_nic(decision, nic, record.nics.get(nic.nic.name)) for nic in decision.nics[:_NICS]],
    }
    if reverts is not None:
        status["reverts"] = msgspec.to_builtins(reverts)
    if restart is not None:
        status["restart"] = msgspec.to_builtins(restart)
    for dropped in ("candidates", "message", "guest", "original"):
        if len(msgspec.json.encode(status)) <= _BYTES:
            break
        for nic in status["nics"]:
            nic.pop(dropped, None)
    if len(msgspec.json.encode(status)) > _BYTES:
        for nic in status["nics"]:
            for warning in nic.get("warnings", ()):
                warning.pop("message", None)
    while status["nics"] and len(msgspec.json.encode(status)) > _BYTES:
        status["nics"].pop()
    return status


def _nic(vm: VmDecision, decision: NicDecision, recorded: RecordedNic | None) -> dict[str, Any]:
    nic: dict[str, Any] = {
        "name": decision.nic.name,
        "policy": decision.policy or "",
        "verdict": decision.verdict.value,
        "reason": decision.reason.value if decision.reason is not None else "",
        "now": _shape(decision.nic.present),
        "message": decision.message[:_MESSAGE] if decision.reason or decision.verdict in _DIFFERS else "",
        "guest": describe_view(guest_view(vm, decision)),
        "original": _original(recorded) if recorded is not None else "",
    }
    if decision.wanted != decision.nic.present:
        nic["wanted"] = _shape(decision.wanted)
    fallen = [
        {"datapath": one.datapath.value, "reason": one.finding.reason.value}
        for one in decision.candidates
        if one.finding is not None
    ]
    if fallen:
        nic["candidates"] = fallen
    if decision.warnings:
        nic["warnings"] = [
            {"reason": one.reason.value, "message": one.message[:_MESSAGE]} for one in decision.warnings[:_WARNINGS]
        ]
    return {key: value for key, value in nic.items() if value != ""}


def _shape(state: NicState) -> dict[str, Any]:
    shape: dict[str, Any] = {"datapath": state.datapath.value, "queues": state.queues}
    return shape | ({"model": state.model} if state.model else {}) | ({"resource": state.resource} if state.resource else {})


def _original(recorded: RecordedNic) -> str:
    """Describe the original of a NIC."""
    if "model" in recorded.was:
        return f"model {recorded.was['model'] or 'not named'}"
    interface, network = recorded.was.get("interface", {}), recorded.was.get("network", {})
    binding = next((name for name in ("bridge", "sriov", "masquerade", "binding", "macvtap") if name in interface), "")
    where = (network.get("multus") or {}).get("networkName", "")
    return " ".join(filter(None, (binding, interface.get("model", ""), f"on {where}" if where else "")))[:_MESSAGE]
