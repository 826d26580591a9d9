"""Preferences and instancetypes as a VM keeps them.

KubeVirt copies the object into a ControllerRevision when it first sees the VM, and builds every instance from the copy. The
live object counts only for a VM without a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from .guest_os import OS_ANNOTATION
from .vm import Instancetype, Part, Preference, Reference, StatusReference, VirtualMachine

__all__ = ["OBJECT_KIND", "Revision", "read_reference", "read_revision", "revision_names"]

T = TypeVar("T", Preference, Instancetype)

OBJECT_KIND = "instancetype.kubevirt.io/object-kind"
"""Label of KubeVirt's revisions. Those of other programs may contain anything, such as the pod template of a DaemonSet."""
_OBJECT_NAME = "instancetype.kubevirt.io/object-name"
_GROUP = "instancetype.kubevirt.io"
_VERSIONS = ("v1alpha1", "v1alpha2", "v1beta1")
"""The fields that decisions read have the same names in all of them."""
_KINDS: dict[str, type[Preference] | type[Instancetype]] = {
    "VirtualMachinePreference": Preference,
    "VirtualMachineClusterPreference": Preference,
    "VirtualMachineInstancetype": Instancetype,
    "VirtualMachineClusterInstancetype": Instancetype,
}


class Revision(Part, frozen=True, kw_only=True):
    """A ControllerRevision with a preference or an instancetype."""

    object_name: str
    """Name of the object that was copied."""
    data: Preference | Instancetype


class _Labels(Part, frozen=True, kw_only=True):
    kind: str | None = msgspec.field(default=None, name=OBJECT_KIND)
    name: str = msgspec.field(default="", name=_OBJECT_NAME)


class _RevisionMeta(Part, frozen=True, kw_only=True):
    labels: _Labels | None = None


class _Data(Part, frozen=True, kw_only=True):
    api_version: str = ""
    kind: str = ""


class _Revision(Part, frozen=True, kw_only=True):
    metadata: _RevisionMeta
    data: Any = None


def read_revision(raw: Any) -> Revision | None:
    """Read a ControllerRevision, or return None if it is not one of KubeVirt's.

    Raises:
        ValueError: it is KubeVirt's, but its object cannot be read. The message names the field.
    """
    found = msgspec.convert(raw, _Revision)
    labels = found.metadata.labels
    if labels is None or labels.kind is None:
        return None
    header = msgspec.convert(found.data or {}, _Data)
    group, _, version = header.api_version.partition("/")
    kind = _KINDS.get(header.kind)
    if kind is None or group != _GROUP or version not in _VERSIONS:
        word = f"{header.api_version[:80]} {header.kind[:80]}".strip() or "no object"
        raise ValueError(f"data is {word!r}, but must be a preference or an instancetype of {_GROUP}/{_VERSIONS[-1]}")
    data = msgspec.convert(found.data, kind)
    # Without the rest of the metadata, copies of one object are equal, whichever VM keeps them.
    meta = type(data.metadata)(labels=data.metadata.labels)
    return Revision(object_name=labels.name, data=msgspec.structs.replace(data, metadata=meta))


def revision_names(machine: VirtualMachine) -> tuple[str, ...]:
    """Return the names of the ControllerRevisions that a VM keeps. They are in its namespace."""
    pairs = ((machine.spec.preference, machine.kept_preference), (machine.spec.instancetype, machine.kept_instancetype))
    return tuple(filter(None, (_revision_name(reference, kept) for reference, kept in pairs)))


def _revision_name(reference: Reference | None, kept: StatusReference | None) -> str:
    if reference is None:
        return ""
    if reference.revision_name:
        return reference.revision_name
    noted = kept.controller_revision_ref if kept is not None else None
    return noted.name if noted is not None else ""


def read_reference(
    kind: type[T],
    reference: Reference | None,
    kept: StatusReference | None,
    find_revision: Callable[[str], Revision | str],
    find_live: Callable[[Reference], T | str],
) -> tuple[T | None, str]:
    """Return the preference or instancetype that KubeVirt builds a VM from, or why it is unknown.

    Args:
        kind: Which of the two.
        reference: The VM's reference to it.
        kept: What KubeVirt has noted about it in the VM's status.
        find_revision: Returns a revision of the VM's namespace, or why it cannot be read.
        find_live: Returns the object itself, or why it cannot be read.
    """
    if reference is None:
        return None, ""
    name = _revision_name(reference, kept)
    found = _kept(kind, reference, kept, name, find_revision(name), find_live) if name else None
    if found is None and reference.name:
        found = find_live(reference)
    return (None, found) if isinstance(found, str) else (found, "")


def _kept(
    kind: type[T],
    reference: Reference,
    kept: StatusReference | None,
    name: str,
    found: Revision | str,
    find_live: Callable[[Reference], T | str],
) -> T | str | None:
    """Return the copy that a VM keeps, or why it cannot be read, or None if the live object counts."""
    by_spec = bool(reference.revision_name)
    # The name in the spec has changed since, and KubeVirt copies the new object before the next start.
    if not by_spec and isinstance(found, Revision) and found.object_name != reference.name:
        return None
    if not by_spec and kept is not None and kept.name not in ("", reference.name):
        return None
    word = kind.__name__.lower()
    if isinstance(found, str):
        return f"{word} {reference.name}: ControllerRevision {name} {found}"
    if not isinstance(found.data, kind):
        return f"{word} {reference.name}: ControllerRevision {name} contains no {word}"
    if found.object_name != reference.name:
        return found.data
    return _with_labels(found.data, find_live(reference))


def _with_labels(kept: T, live: T | str) -> T:
    """Return a copy with the labels of the live object, which may name the guest system.

    KubeVirt removes the labels from the copy.
    """
    is_named = isinstance(kept, Preference) and OS_ANNOTATION in kept.spec.annotations
    if isinstance(live, str) or kept.metadata.labels or is_named:
        return kept
    return msgspec.structs.replace(kept, metadata=msgspec.structs.replace(kept.metadata, labels=live.metadata.labels))
