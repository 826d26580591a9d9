"""Field manager of a VM's NIC list.

It is read from the managed fields, which are too large to keep.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..checked.documents import read_json

__all__ = ["last_field_manager"]

_OURSELVES = "vmnic-controller"
_NIC_LIST = b'"f:interfaces"'
_KUBECTL, _ARGO, _FLUX = "kubectl-client-side-apply", "argocd-controller", "kustomize-controller"
"""Field managers of appliers that mark their objects. Helm's marks show no apply: it updates objects without owning fields."""
_APPLIED_BYTES = 2**18
"""Kubernetes' limit on all annotations of an object."""


class _Managed(msgspec.Struct, rename="camel"):
    manager: str = ""
    operation: str = ""
    fields: msgspec.Raw = msgspec.field(default=msgspec.Raw(b""), name="fieldsV1")


class _Annotations(msgspec.Struct):
    last_applied: str | None = msgspec.field(default=None, name="kubectl.kubernetes.io/last-applied-configuration")
    tracked_by_argo: str | None = msgspec.field(default=None, name="argocd.argoproj.io/tracking-id")
    record: str | None = msgspec.field(default=None, name="vmnic.dev/assigned")


class _Labels(msgspec.Struct):
    tracked_by_flux: str | None = msgspec.field(default=None, name="kustomize.toolkit.fluxcd.io/name")


class _OwnedMeta(msgspec.Struct, rename="camel"):
    managed_fields: list[_Managed] = []
    annotations: _Annotations | None = None
    labels: _Labels | None = None


class _Owned(msgspec.Struct):
    metadata: _OwnedMeta


class _Devices(msgspec.Struct, frozen=True):
    interfaces: list[dict[str, Any]] = []


class _Domain(msgspec.Struct, frozen=True):
    devices: _Devices = _Devices()


class _InstanceSpec(msgspec.Struct, frozen=True):
    domain: _Domain = _Domain()


class _Template(msgspec.Struct, frozen=True):
    spec: _InstanceSpec = _InstanceSpec()


class _Spec(msgspec.Struct, frozen=True):
    template: _Template = _Template()


class _Listed(msgspec.Struct, frozen=True):
    """A VM, or what was applied of it, with its NIC list only."""

    spec: _Spec = _Spec()


_decoder = msgspec.json.Decoder(_Owned)
_listed_decoder = msgspec.json.Decoder(_Listed)


def last_field_manager(raw: bytes | msgspec.Raw) -> str:
    """Return the field manager that applies the NIC list of a VirtualMachine.

    It is a manager that uses server-side apply, or one that wrote the list of a VM with the annotation of client-side apply.
    `kubectl get -o yaml` leaves out the managed fields, so without any the marks of appliers count. Empty if there is none.

    Raises:
        msgspec.ValidationError: a field has the wrong type; the message has its path.
    """
    meta = _decoder.decode(raw).metadata
    if not meta.managed_fields:
        return _marked_manager(raw, meta)
    # Client-side apply writes with the operation Update. Only its annotation shows that the list is applied.
    by_hand = meta.annotations is not None and meta.annotations.last_applied is not None
    for entry in meta.managed_fields:
        # The list is atomic, so it has one key in `fieldsV1`. Searching for it spares parsing the rest, which is large.
        # vmnic itself is a manager of the list once it has patched it.
        applies = entry.operation == "Apply" or by_hand
        if applies and entry.manager != _OURSELVES and _NIC_LIST in bytes(entry.fields):
            return entry.manager
    return ""


def _marked_manager(raw: bytes | msgspec.Raw, meta: _OwnedMeta) -> str:
    """Return the field manager that the annotations and labels of an exported VM show."""
    notes, labels = meta.annotations or _Annotations(), meta.labels or _Labels()
    argo, flux = notes.tracked_by_argo is not None, labels.tracked_by_flux is not None
    if not (argo or flux or notes.last_applied is not None):
        return ""
    present = _listed_decoder.decode(raw).spec.template.spec.domain.devices.interfaces
    # A VM that vmnic has patched is vmnic's, unless its applier has written its own list again.
    if not present or (notes.record is not None and present != _last_applied(notes.last_applied)):
        return ""
    return _ARGO if argo else _FLUX if flux else _KUBECTL


def _last_applied(text: str | None) -> list[dict[str, Any]] | None:
    """Return the NIC list in the annotation of client-side apply, or None if it cannot be read."""
    try:
        applied = read_json(text or "", _Listed, max_bytes=_APPLIED_BYTES)
    except ValueError:
        return None
    return applied.spec.template.spec.domain.devices.interfaces
