"""Facts about NIC models, kept as data in `nics.yaml` and not as code."""

from __future__ import annotations

import functools
import io
import pathlib
from typing import Annotated, Any, Literal

import msgspec

from ..checked.printable import printable

__all__ = ["NicDataError", "NicModel", "add_models", "model_of", "read_models"]


class NicDataError(Exception):
    """A user's NIC data cannot be used. The message names the file and the field."""


_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Id = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{4}\Z")]
_Ids = Annotated[tuple[_Id, ...], msgspec.Meta(max_length=256)]


class NicModel(msgspec.Struct, frozen=True, rename="camel"):
    """One NIC model, with the fields of `nics.yaml`."""

    model: _Word
    vendor: _Id
    pf: _Ids
    vf: _Ids
    driver: _Word
    vf_driver: Annotated[str, msgspec.Meta(max_length=64)]
    max_vfs: Annotated[int, msgspec.Meta(ge=0, le=1024)]
    vf_guests: Annotated[tuple[_Word, ...], msgspec.Meta(max_length=16)]
    """Guest operating systems that have a driver for the VF."""
    vfs_by: Literal["sysfs", "module"] = "sysfs"
    """How the driver creates VFs.

    `sysfs` stands for `sriov_numvfs`, `module` for the driver's parameter `max_vfs`, which it reads only when it is loaded.
    """


_OWN = pathlib.Path(__file__).with_name("nics.yaml")
_files = [_OWN]
_MOST_CHARS = 2**18
"""Longest file of NIC data, in characters. vmnic's own file has a hundredth of that."""
_MOST_MODELS = 1024


def add_models(path: pathlib.Path) -> None:
    """Add a user's file of NIC data, whose entries win over vmnic's own entries for the same IDs.

    Raises:
        NicDataError: The file cannot be read, or does not have the shape of `nics.yaml`.
    """
    try:
        # The result is dropped: the file is read here so that the program stops at its start and names the file and the field.
        _read(path)
    except (OSError, ValueError) as error:
        raise NicDataError(printable(f"NIC data {path}: {error}: write it like vmnic's own nics.yaml")) from error
    _files[:] = [path, _OWN]
    # A lookup before this call may have cached an entry, or the absence of one.
    read_models.cache_clear()
    model_of.cache_clear()


@functools.cache
def read_models() -> tuple[NicModel, ...]:
    """Return all known models, the user's first."""
    return tuple(model for path in _files for model in _read(path))


def _read(path: pathlib.Path) -> tuple[NicModel, ...]:
    """Read one file.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not UTF-8, not YAML, too large, or does not have the shape of `nics.yaml`.
    """
    with path.open(encoding="utf-8") as stream:
        # One character more shows that the file is too long, without reading a file of any size into memory.
        text = stream.read(_MOST_CHARS + 1)
    if len(text) > _MOST_CHARS:
        raise ValueError(f"more than {_MOST_CHARS} characters are not read")
    models = msgspec.convert(_document(text), tuple[NicModel, ...])
    if len(models) > _MOST_MODELS:
        raise ValueError(f"more than {_MOST_MODELS} models are not read")
    return models


def _document(text: str) -> Any:
    """Parse the single document of a file."""
    from ..checked.yaml_documents import read_documents  # noqa: PLC0415 - yaml is imported only where it is used

    documents = list(read_documents(io.StringIO(text), lambda *_: True))
    if len(documents) != 1:
        raise ValueError(f"it has {len(documents)} documents, and should have one list")
    if documents[0].problem:
        raise ValueError(f"line {documents[0].line}: {documents[0].problem}")
    return documents[0].value


@functools.lru_cache(maxsize=256)
def model_of(vendor: str, device: str) -> NicModel | None:
    """Return the model of a PF by its PCI IDs, or None if it is unknown."""
    return next((nic for nic in read_models() if nic.vendor == vendor and device in nic.pf), None)
