"""Facts about NIC models, kept as data in `nics.yaml` and not as code."""

from __future__ import annotations

import functools
import pathlib
from typing import Annotated, Any, Literal

import msgspec

from ..checked.data_files import DataFiles

__all__ = ["NicModel", "model_of", "nic_files", "read_models"]


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
    keeps_vf_links: Annotated[tuple[Literal["mtu", "queues"], ...], msgspec.Meta(max_length=2)] = ()
    """Settings of the PF that the driver changes without taking down the links of its VFs."""


_MOST_MODELS = 1024


def _parse(document: Any) -> tuple[NicModel, ...]:
    models = msgspec.convert(document, tuple[NicModel, ...])
    if len(models) > _MOST_MODELS:
        raise ValueError(f"more than {_MOST_MODELS} models are not read")
    return models


def _forget() -> None:
    """Forget lookups, which may have cached an entry, or the absence of one."""
    read_models.cache_clear()
    model_of.cache_clear()


nic_files = DataFiles("NIC data", pathlib.Path(__file__).with_name("nics.yaml"), _parse, _forget)


@functools.cache
def read_models() -> tuple[NicModel, ...]:
    """Return all known models, the user's first."""
    return tuple(model for models in nic_files.read() for model in models)


@functools.lru_cache(maxsize=256)
def model_of(vendor: str, device: str) -> NicModel | None:
    """Return the model of a PF by its PCI IDs, or None if it is unknown."""
    return next((nic for nic in read_models() if nic.vendor == vendor and device in nic.pf), None)
