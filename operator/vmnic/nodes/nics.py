"""Facts about NIC models, kept as data in `nics.yaml` and not as code."""

from __future__ import annotations

import functools
import pathlib
from typing import Annotated, Any, Literal

import msgspec

from ..checked.data_files import DataFiles

__all__ = ["NicModel", "VfParameter", "known_names", "model_of", "models_of", "nic_files", "read_models"]


_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_OptionalWord = Annotated[str, msgspec.Meta(max_length=64)]
_Id = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{4}\Z")]
_OptionalId = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{4})?\Z")]
_Ids = Annotated[tuple[_Id, ...], msgspec.Meta(max_length=256)]
_Words = Annotated[tuple[_Word, ...], msgspec.Meta(max_length=16)]

VfParameter = Literal["max_vfs", "num_vfs"]


class NicModel(msgspec.Struct, frozen=True, rename="camel"):
    """One NIC model, or all other NICs of a driver, with the fields of `nics.yaml`."""

    driver: _Word
    model: _OptionalWord = ""
    """Empty only in an entry without `pf`."""
    aliases: _Words = ()
    """Other names of the model."""
    vendor: _OptionalId = ""
    pf: _Ids = ()
    """Device IDs of the physical function. Without them the entry stands for all NICs of the driver that no entry lists."""
    vf: _Ids = ()
    """Device IDs of the VFs; empty if the model has no SR-IOV."""
    vf_driver: _OptionalWord = ""
    max_vfs: Annotated[int, msgspec.Meta(ge=0, le=1024)] | None = None
    """VFs that the driver allows; None if that is unknown."""
    max_vfs_per: Literal["Function", "Device"] = "Function"
    """Whether `max_vfs` counts for each function, or for all ports of a device together."""
    parameter: VfParameter | None = None
    """The driver's parameter that creates VFs when it is loaded; None if it has none."""
    count_by: Literal["sysfs", "parameter"] = "sysfs"
    """How the driver is given the number of VFs: by `sriov_numvfs`, or only by its parameter."""
    vf_guests: _Words | None = None
    """Guest operating systems that have a driver for the VF; None if that is unknown."""
    keeps_vf_links: Annotated[tuple[Literal["mtu", "queues"], ...], msgspec.Meta(max_length=2)] = ()
    """Settings of the PF that the driver changes without taking down the links of its VFs."""

    def __post_init__(self) -> None:
        """Check what the single fields cannot express."""
        if self.pf and not (self.model and self.vendor):
            raise ValueError("an entry with pf needs model and vendor")
        if self.count_by == "parameter" and self.parameter is None:
            raise ValueError("countBy: parameter needs parameter: max_vfs or num_vfs")

    @property
    def names(self) -> tuple[str, ...]:
        """Return all names of the model."""
        return (self.model, *self.aliases) if self.model else self.aliases

    @property
    def title(self) -> str:
        """Return a name for messages."""
        return self.model or f"driver {self.driver}"

    @property
    def has_vfs(self) -> bool:
        """Return whether the model supports SR-IOV, according to its entry."""
        return bool(self.vf or self.max_vfs)


_MOST_MODELS = 1024
_COLUMNS = frozenset(one.encode_name for one in msgspec.structs.fields(NicModel))


def _parse(document: Any) -> tuple[NicModel, ...]:
    models = msgspec.convert(document, tuple[NicModel, ...])
    if len(models) > _MOST_MODELS:
        raise ValueError(f"more than {_MOST_MODELS} models are not read")
    for index, entry in enumerate(document):
        _check_columns(entry, index)
    return models


def _check_columns(entry: dict[str, Any], index: int) -> None:
    """Refuse unknown columns, because a misspelled one would have no effect."""
    if "vfsBy" in entry:
        raise ValueError(
            f"vfsBy is replaced by countBy (sysfs or parameter) and parameter (max_vfs or num_vfs) - at `$[{index}].vfsBy`"
        )
    unknown = next((str(column) for column in entry if column not in _COLUMNS), "")
    if unknown:
        raise ValueError(f"unknown column, known are {', '.join(sorted(_COLUMNS))} - at `$[{index}].{unknown[:64]}`")


def _forget() -> None:
    """Forget lookups, which may have cached an entry, or the absence of one."""
    for lookup in (read_models, known_names, model_of, models_of):
        lookup.cache_clear()


nic_files = DataFiles("NIC data", pathlib.Path(__file__).with_name("nics.yaml"), _parse, _forget)


@functools.cache
def read_models() -> tuple[NicModel, ...]:
    """Return all known models, the user's first."""
    return tuple(model for models in nic_files.read() for model in models)


@functools.cache
def known_names() -> frozenset[str]:
    """Return the names and aliases of all known models."""
    return frozenset(name for nic in read_models() for name in nic.names)


@functools.lru_cache(maxsize=256)
def model_of(vendor: str, device: str, driver: str = "") -> NicModel | None:
    """Return the model of a PF, or None if it is unknown.

    An entry that lists the PCI IDs wins over one for the driver. Without a driver, only the IDs count.
    """
    listed = next((nic for nic in read_models() if nic.vendor == vendor and device in nic.pf), None)
    if listed is not None or not driver:
        return listed
    others = (nic for nic in read_models() if not nic.pf and nic.driver == driver)
    return next((nic for nic in others if nic.vendor in ("", vendor)), None)


@functools.lru_cache(maxsize=256)
def models_of(name: str) -> tuple[NicModel, ...]:
    """Return the models that have a name or alias."""
    return tuple(nic for nic in read_models() if name in nic.names)
