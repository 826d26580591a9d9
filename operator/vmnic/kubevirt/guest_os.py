"""Guest OS of a VM.

Sources are read in the order of their reliability: the guest itself, then the places that the guest data name, then a hint in
the spec.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..policy.facts import GuestOs
from .guests import Place, read_places, system_of
from .vm import Preference, VirtualMachine
from .vmi import VirtualMachineInstance

__all__ = ["OS_ANNOTATION", "read_guest_os"]

OS_ANNOTATION = "vm.kubevirt.io/os"


def read_guest_os(
    machine: VirtualMachine, instance: VirtualMachineInstance | None, preference: Preference | None
) -> tuple[GuestOs, str]:
    """Return the guest OS of a VM and where it was read from."""
    for name, source in _names(machine, instance, preference):
        found = system_of(name)
        # A name that vmnic does not know says nothing, so the next source is asked.
        if found is not GuestOs.UNKNOWN:
            return found, source
    if machine.spec.template.spec.domain.features is not None and machine.spec.template.spec.domain.features.hyperv is not None:
        # Only a hint, so it comes last: Linux runs with Hyper-V features too.
        return GuestOs.WINDOWS, "domain.features.hyperv"
    return GuestOs.UNKNOWN, ""


def _names(
    machine: VirtualMachine, instance: VirtualMachineInstance | None, preference: Preference | None
) -> Iterator[tuple[str, str]]:
    """Yield every name that a source contains, with the source, the most reliable first."""
    if instance is not None:
        info = instance.status.guest_os_info
        yield from ((info.id, "guest agent"), (info.name, "guest agent"))
    for place in read_places():
        for labels, notes in _texts(place.object, machine, instance, preference):
            for name, key in _names_at(place, labels, notes):
                yield name, "preference" if place.object == "Preference" else key


_Texts = Mapping[str, str]
_NONE: _Texts = {}


def _texts(
    kind: str, machine: VirtualMachine, instance: VirtualMachineInstance | None, preference: Preference | None
) -> Iterator[tuple[_Texts, _Texts]]:
    """Yield labels and annotations of a kind of object."""
    if kind == "VirtualMachine":
        yield machine.metadata.labels, machine.annotations
    elif kind == "Template":
        template = machine.spec.template.metadata
        yield machine.template_labels, template.annotations if template is not None else _NONE
        # A VMI has the annotations of its template, and those of its preference.
        if instance is not None:
            yield _NONE, instance.metadata.annotations
    elif preference is not None:
        yield preference.metadata.labels, preference.spec.annotations


def _names_at(place: Place, labels: _Texts, notes: _Texts) -> Iterator[tuple[str, str]]:
    """Yield the names that a place contains, with its key."""
    if place.label is not None:
        yield labels.get(place.label, ""), f"label {place.label}"
    elif place.annotation is not None:
        yield notes.get(place.annotation, ""), f"annotation {place.annotation}"
    elif place.label_prefix is not None:
        for key in sorted(labels):
            if key.startswith(place.label_prefix) and labels[key] == "true":
                yield key.removeprefix(place.label_prefix), f"label {key}"
