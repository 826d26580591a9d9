"""What is known of NIC models; the knowledge is data (`nics.yaml`), never an `if`."""

from __future__ import annotations

import functools
import pathlib

import msgspec.yaml

__all__ = ["NicDataError", "NicModel", "add_models", "model_of", "read_models"]


class NicDataError(Exception):
    """A user's NIC data cannot be used; the message names the file and the field."""


class NicModel(msgspec.Struct, frozen=True, rename="camel"):
    """One NIC model; fields as in `nics.yaml`."""

    model: str
    vendor: str
    pf: tuple[str, ...]
    vf: tuple[str, ...]
    driver: str
    vf_driver: str
    max_vfs: int
    vf_guests: tuple[str, ...]
    """Guest systems that have a driver for the VF."""
    vfs_by: str = "sysfs"
    """`sysfs`: `sriov_numvfs`. `module`: only the driver's parameter `max_vfs`, when it is loaded."""


_OWN = pathlib.Path(__file__).with_name("nics.yaml")
_files = [_OWN]


def add_models(path: pathlib.Path) -> None:
    """Let a file of the user's speak first; of entries for the same ids the first one counts.

    Raises:
        NicDataError: the file cannot be read, or is not of the shape of `nics.yaml`.
    """
    try:
        _read(path)
    except (OSError, msgspec.DecodeError) as error:
        raise NicDataError(f"NIC data {path}: {error}: write it like vmnic's own nics.yaml") from error
    _files[:] = [path, _OWN]
    read_models.cache_clear()
    model_of.cache_clear()


@functools.cache
def read_models() -> tuple[NicModel, ...]:
    """Give all models that vmnic knows."""
    return tuple(model for path in _files for model in _read(path))


def _read(path: pathlib.Path) -> tuple[NicModel, ...]:
    return msgspec.yaml.decode(path.read_bytes(), type=tuple[NicModel, ...])


@functools.lru_cache(maxsize=256)
def model_of(vendor: str, device: str) -> NicModel | None:
    """Find the model of a physical function by its PCI ids; None if it is not known."""
    return next((nic for nic in read_models() if nic.vendor == vendor and device in nic.pf), None)
