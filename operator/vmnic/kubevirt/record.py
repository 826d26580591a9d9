"""The annotation `vmnic.dev/assigned`: what vmnic has made of a VM's NICs, and what was there before.

The VM object itself is the ledger, so that replicas, restarts and `kubectl vmnic revert` agree without another store.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..policy.facts import Assignment, Datapath

__all__ = ["ANNOTATION", "Record", "RecordedNic", "assignments", "parse_record", "write_record"]

ANNOTATION = "vmnic.dev/assigned"


class RecordedNic(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One NIC that vmnic has changed."""

    datapath: str
    resource: str = ""
    of: int | None = None
    """How many devices of the resource there were."""
    model: str | None = None
    network: str = ""
    """Where it was connected to, `namespace/name`; empty: where it was."""
    was: dict[str, Any] = {}
    """What stood in the spec: `model` alone, or `interface` and `network` whole."""


class _Switch(msgspec.Struct, frozen=True):
    was: bool | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that vmnic has changed in one VM."""

    nics: dict[str, RecordedNic] = {}
    multiqueue: _Switch | None = None
    """What `networkInterfaceMultiqueue` was; None: not changed."""

    def with_multiqueue(self, was: bool | None) -> Record:
        """Note what the switch was, unless that is noted already."""
        return self if self.multiqueue is not None else msgspec.structs.replace(self, multiqueue=_Switch(was))


_decoder = msgspec.json.Decoder(Record)


def parse_record(text: str | None) -> Record | None:
    """Read the annotation; None if there is none, or none that can be understood."""
    if text is None:
        return None
    try:
        return _decoder.decode(text)
    except msgspec.MsgspecError:
        return None


def write_record(record: Record) -> str:
    """Give the annotation's text; empty: nothing is left to be remembered."""
    if not record.nics and record.multiqueue is None:
        return ""
    return msgspec.json.encode(record, order="sorted").decode()


def assignments(record: Record | None) -> dict[str, Assignment]:
    """Give the record as facts."""
    if record is None:
        return {}
    known = {str(one) for one in Datapath}
    return {
        name: Assignment(
            datapath=Datapath(nic.datapath), resource=nic.resource, of=nic.of, model=nic.model, network=nic.network
        )
        for name, nic in record.nics.items()
        if nic.datapath in known
    }
