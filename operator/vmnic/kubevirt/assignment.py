"""Codec of the annotation `vmnic.dev/assigned`.

It records what vmnic changed in a VM's NICs and what they were before. The VM object itself stores the record, so that
replicas, restarts and `kubectl vmnic revert` agree without another store. A tenant may write the annotation, so every reader
validates it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from ..checked.documents import read_json
from ..policy.facts import Assignment, Datapath, Network, NicState
from ..policy.types import NicDecision
from .originals import MAX_RECORD_BYTES, check_original

__all__ = [
    "ANNOTATION",
    "AssignmentRecord",
    "RecordedNic",
    "UnreadableRecord",
    "assignments",
    "binding_of",
    "parse_record",
    "read_record",
    "with_change",
    "write_record",
]

ANNOTATION = "vmnic.dev/assigned"
_MAX_DEPTH = 12
"""A private DHCP option of an interface is eight levels deep."""
_SHOWN, _SHOWN_NAME = 200, 63
"""Maximum number of characters of an error, and of a NIC's name in it."""


class RecordedNic(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One NIC that vmnic has changed."""

    datapath: str
    resource: str = ""
    of: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    """Total number of devices of the resource at the time of the assignment."""
    model: str | None = None
    network: str = ""
    """The network that it was moved to, as `namespace/name`; empty if it was not moved."""
    was: dict[str, Any] = {}
    """The original entries of the spec: `model` alone, or `interface` and `network` in full."""


class _Switch(msgspec.Struct, frozen=True):
    was: bool | None = None


class AssignmentRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All changes of vmnic to one VM."""

    nics: dict[str, RecordedNic] = {}
    multiqueue: _Switch | None = None
    """Original value of `networkInterfaceMultiqueue`; None if vmnic has not changed it."""

    def with_multiqueue(self, was: bool | None) -> AssignmentRecord:
        """Record the original value of the switch, unless one is recorded already."""
        return self if self.multiqueue is not None else msgspec.structs.replace(self, multiqueue=_Switch(was))


class UnreadableRecord(msgspec.Struct, frozen=True):
    """An annotation that vmnic cannot understand.

    The originals are then unknown, so vmnic changes nothing.
    """

    problem: str
    """The field, its fault and the remedy."""


def read_record(text: str | None) -> AssignmentRecord | UnreadableRecord | None:
    """Read the annotation. Return None if there is none."""
    if text is None:
        return None
    try:
        record = read_json(text, AssignmentRecord, max_bytes=MAX_RECORD_BYTES, max_depth=_MAX_DEPTH)
        for name, nic in record.nics.items():
            _check(name, nic.was)
    except ValueError as error:
        why = " ".join(str(error).split())[:_SHOWN]
        return UnreadableRecord(
            f"annotation {ANNOTATION}: {why}. Remove it: vmnic then treats the present NICs as the originals"
        )
    return record


def _check(name: str, was: dict[str, Any]) -> None:
    try:
        check_original(name, was)
    except ValueError as error:
        raise ValueError(f"nics.{name[:_SHOWN_NAME]}.was: {error}") from None


def parse_record(text: str | None) -> AssignmentRecord | None:
    """Read the annotation for callers that change nothing.

    Returns:
        The record, or None if there is none or it cannot be read.
    """
    record = read_record(text)
    return record if isinstance(record, AssignmentRecord) else None


def write_record(record: AssignmentRecord) -> str:
    """Return the annotation's text, or an empty string if there is nothing to record."""
    if not record.nics and record.multiqueue is None:
        return ""
    return msgspec.json.encode(record, order="sorted").decode()


def assignments(record: AssignmentRecord | None) -> dict[str, Assignment]:
    """Convert the record to facts."""
    if record is None:
        return {}
    known = {str(one) for one in Datapath}
    return {
        name: Assignment(
            datapath=Datapath(nic.datapath), resource=nic.resource, of=nic.of, model=nic.model, network=nic.network
        )
        for name, nic in record.nics.items()
        # A tenant may write any text as the datapath of a record.
        if nic.datapath in known
    }


def with_change(
    record: AssignmentRecord, decision: NicDecision, was: dict[str, Any], totals: Mapping[str, int]
) -> AssignmentRecord:
    """Record a change of a NIC.

    The original of the first change is kept. A change back to the original removes the NIC from the record.

    Args:
        record: Record so far.
        decision: New state of the NIC.
        was: Present entries of the spec: `model` alone, or `interface` and `network` in full.
        totals: Total number of devices by resource, as far as known.
    """
    name, wanted, network = decision.nic.name, decision.wanted, decision.network
    nics = dict(record.nics)
    earlier = nics.pop(name, None)
    if earlier is not None and _in_force(earlier, decision.nic.present):
        was = _older(earlier.was, was)
    if not _is_return(was, wanted, network):
        nics[name] = RecordedNic(
            datapath=wanted.datapath.value,
            resource=wanted.resource,
            of=totals.get(wanted.resource) if wanted.resource else None,
            model=wanted.model,
            network=f"{network.namespace}/{network.name}" if network is not None else "",
            was=was,
        )
    return msgspec.structs.replace(record, nics=nics)


def binding_of(datapath: Datapath) -> tuple[str, dict[str, str]]:
    """Return the field that binds an interface to a secondary network, and its value."""
    match datapath:
        case Datapath.SRIOV:
            return "sriov", {}
        case Datapath.MACVTAP:
            return "binding", {"name": "macvtap"}
    # KubeVirt allows masquerade on the pod network only.
    return "bridge", {}


def _in_force(recorded: RecordedNic, present: NicState) -> bool:
    """Return whether a NIC still is as recorded.

    Otherwise it has been edited, and the edited NIC is the original now.
    """
    return (recorded.datapath, recorded.resource) == (present.datapath.value, present.resource)


def _older(earlier: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return the first original.

    If the first change was of the model only and the present one is of the binding, the full original gets the first model.
    """
    if "interface" in earlier or "interface" not in now:
        return earlier or now
    if "model" not in earlier:
        return now
    interface = {key: value for key, value in now["interface"].items() if key != "model"}
    model = {} if earlier["model"] is None else {"model": earlier["model"]}
    return {**now, "interface": interface | model}


def _is_return(was: dict[str, Any], wanted: NicState, network: Network | None) -> bool:
    """Return whether the wanted state is the original."""
    if "model" in was:
        return network is None and was["model"] == wanted.model and wanted.datapath.is_bridged
    interface = was.get("interface", {})
    name, _ = binding_of(wanted.datapath)
    reference = (was.get("network", {}).get("multus") or {}).get("networkName", "")
    # Multus takes a network of the pod's namespace with or without the namespace.
    place = network is None or reference in (network.name, f"{network.namespace}/{network.name}")
    return (
        name in interface and interface.get("model") == wanted.model and place and wanted.datapath is not Datapath.PASSTHROUGH
    )
