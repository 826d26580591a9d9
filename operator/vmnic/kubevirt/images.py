"""Defaults that KubeVirt's webhook takes from the images of a VM's disks.

These are architecture, preference and instancetype. A VM in a file has not passed the webhook yet. A stored VM already has what
the webhook has written.
"""

from __future__ import annotations

from collections.abc import Callable

from ..policy.facts import Architecture
from .vm import Named, Part, Reference

__all__ = ["Disks", "FindImage", "Image", "image_architecture", "infer_reference"]

_ARCHITECTURE = "template.kubevirt.io/architecture"
_ARCHITECTURES = ("amd64", "arm64", "s390x")
"""Values of the label that KubeVirt takes."""


class _Place(Part, frozen=True, kw_only=True):
    kind: str = ""
    name: str = ""
    namespace: str | None = None


class _Source(Part, frozen=True, kw_only=True):
    pvc: _Place | None = None
    data_source: _Place | None = None


class _ImageMeta(Part, frozen=True, kw_only=True):
    name: str = ""
    labels: dict[str, str] | None = None


class _ImageSpec(Part, frozen=True, kw_only=True):
    source: _Source | None = None
    source_ref: _Place | None = None


class Image(Part, frozen=True, kw_only=True):
    """A DataSource, a DataVolume, a template of one, or a PersistentVolumeClaim."""

    metadata: _ImageMeta = _ImageMeta()
    spec: _ImageSpec = _ImageSpec()

    @property
    def labels(self) -> dict[str, str]:
        """Return its labels."""
        return self.metadata.labels or {}


class _Claim(Part, frozen=True, kw_only=True):
    claim_name: str = ""


class _Volume(Part, frozen=True, kw_only=True):
    name: str = ""
    data_volume: Named | None = None
    persistent_volume_claim: _Claim | None = None


class _DisksTemplateSpec(Part, frozen=True, kw_only=True):
    volumes: list[_Volume] | None = None


class _DisksTemplate(Part, frozen=True, kw_only=True):
    spec: _DisksTemplateSpec = _DisksTemplateSpec()


class _DisksSpec(Part, frozen=True, kw_only=True):
    template: _DisksTemplate = _DisksTemplate()
    data_volume_templates: list[Image] | None = None


class Disks(Part, frozen=True, kw_only=True):
    """The part of a VirtualMachine that names the images of its disks."""

    spec: _DisksSpec = _DisksSpec()


FindImage = Callable[[str, str, str], Image | str]
"""Finds an image by kind, namespace and name, or returns why there is none."""


class _UnknownError(Exception):
    """The image is not given. The message names it."""


def image_architecture(disks: Disks, namespace: str, find: FindImage) -> Architecture | None:
    """Return the architecture that the DataSources of a VM's disks name, or None if they name none.

    It follows setDefaultArchitectureFromDataSource in KubeVirt 1.8.2 (pkg/defaults/defaults.go).
    """
    for template in disks.spec.data_volume_templates or ():
        place = template.spec.source_ref
        if place is None or place.kind.lower() != "datasource":
            continue
        where = place.namespace or namespace
        try:
            image = _given(find, "DataSource", where, place.name)
            other = image.spec.source.data_source if image.spec.source is not None else None
            if other is not None:
                place, where = other, other.namespace or where
                image = _given(find, "DataSource", where, place.name)
        except _UnknownError as error:
            remedy = "give it, or write spec.template.spec.architecture"
            return Architecture(unknown=f"the guest's architecture is unknown, because {error}: {remedy}")
        name = image.labels.get(_ARCHITECTURE, "")
        if name in _ARCHITECTURES:
            return Architecture(name, f"label {_ARCHITECTURE} of DataSource {where}/{place.name}")
    return None


def infer_reference(word: str, reference: Reference, disks: Disks, namespace: str, find: FindImage) -> Reference | str | None:
    """Return the preference or instancetype that KubeVirt infers from a volume, or why it is unknown.

    It follows pkg/instancetype/infer in KubeVirt 1.8.2.

    Args:
        word: `preference` or `instancetype`.
        reference: The reference, which names a volume.
        disks: The VM's disks.
        namespace: The VM's namespace.
        find: Finds the images of the disks.

    Returns:
        None if KubeVirt drops the reference, because no image has a default.
    """
    label = f"instancetype.kubevirt.io/default-{word}"
    begin = f"{word} is inferred from volume {reference.infer_from_volume}"
    try:
        labels = _labels_of_volume(reference.infer_from_volume, label, disks, namespace, find)
    except _UnknownError as error:
        return f"{begin}, and {error}: give it, or name the {word}"
    if labels is not None:
        return Reference(name=labels[label], kind=labels.get(f"{label}-kind", ""))
    if reference.infer_from_volume_failure_policy == "Ignore":
        return None
    return f"{begin}, whose images have no label {label}, so KubeVirt refuses the VM: name the {word}"


def _labels_of_volume(name: str, label: str, disks: Disks, namespace: str, find: FindImage) -> dict[str, str] | None:
    """Return the labels of the first image behind a volume that has a label, or None if none has it.

    Raises:
        _UnknownError: an image is not given.
    """
    volume = next((one for one in disks.spec.template.spec.volumes or () if one.name == name), None)
    if volume is None:
        return None
    if volume.persistent_volume_claim is not None:
        return _labels_of_claim(_Place(name=volume.persistent_volume_claim.claim_name), label, namespace, find)
    if volume.data_volume is None:
        return None
    image = _data_volume(volume.data_volume.name, disks, namespace, find)
    if label in image.labels:
        return image.labels
    if image.spec.source is not None and image.spec.source.pvc is not None:
        return _labels_of_claim(image.spec.source.pvc, label, namespace, find)
    place = image.spec.source_ref
    if place is None or place.kind != "DataSource":
        return None
    image = _given(find, "DataSource", place.namespace or namespace, place.name)
    if label in image.labels:
        return image.labels
    claim = image.spec.source.pvc if image.spec.source is not None else None
    return _labels_of_claim(claim, label, namespace, find) if claim is not None else None


def _data_volume(name: str, disks: Disks, namespace: str, find: FindImage) -> Image:
    """Return a DataVolume, or what is left of it.

    Raises:
        _UnknownError: it is not given.
    """
    template = next((one for one in disks.spec.data_volume_templates or () if one.metadata.name == name), None)
    if template is not None:
        # KubeVirt does not read a template's labels.
        return Image(spec=template.spec)
    claim = find("PersistentVolumeClaim", namespace, name)
    image = find("DataVolume", namespace, name)
    # The claim of a DataVolume has its name, and stays when the DataVolume is removed.
    return claim if isinstance(image, str) and not isinstance(claim, str) else _given(find, "DataVolume", namespace, name)


def _labels_of_claim(place: _Place, label: str, namespace: str, find: FindImage) -> dict[str, str] | None:
    image = _given(find, "PersistentVolumeClaim", place.namespace or namespace, place.name)
    return image.labels if label in image.labels else None


def _given(find: FindImage, kind: str, namespace: str, name: str) -> Image:
    """Find an image.

    Raises:
        _UnknownError: it is not given, or cannot be read.
    """
    found = find(kind, namespace, name)
    if isinstance(found, str):
        raise _UnknownError(found)
    return found
