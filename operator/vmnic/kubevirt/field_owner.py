"""Field manager of a VM's NIC list.

It is read from the managed fields, which are too large to keep.
"""

from __future__ import annotations

import msgspec

__all__ = ["last_field_manager"]

_OURSELVES = "vmnic-controller"
_NIC_LIST = b'"f:interfaces"'


class _Managed(msgspec.Struct, rename="camel"):
    manager: str = ""
    operation: str = ""
    fields: msgspec.Raw = msgspec.field(default=msgspec.Raw(b""), name="fieldsV1")


class _Applied(msgspec.Struct):
    last: str | None = msgspec.field(default=None, name="kubectl.kubernetes.io/last-applied-configuration")


class _OwnedMeta(msgspec.Struct, rename="camel"):
    managed_fields: list[_Managed] = []
    annotations: _Applied | None = None


class _Owned(msgspec.Struct):
    metadata: _OwnedMeta


_decoder = msgspec.json.Decoder(_Owned)


def last_field_manager(raw: bytes | msgspec.Raw) -> str:
    """Return the field manager that applies the NIC list of a VirtualMachine.

    It is a manager that uses server-side apply, or one that wrote the list of a VM with the annotation of client-side apply.
    Empty
    if there is none.

    Raises:
        msgspec.ValidationError: a field has the wrong type; the message has its path.
    """
    meta = _decoder.decode(raw).metadata
    # Client-side apply writes with the operation Update. Only its annotation shows that the list is applied.
    by_hand = meta.annotations is not None and meta.annotations.last is not None
    for entry in meta.managed_fields:
        # The list is atomic, so it has one key in `fieldsV1`. Searching for it spares parsing the rest, which is large.
        # vmnic itself is a manager of the list once it has patched it.
        applies = entry.operation == "Apply" or by_hand
        if applies and entry.manager != _OURSELVES and _NIC_LIST in bytes(entry.fields):
            return entry.manager
    return ""
