"""What is known of NIC models; the knowledge is data (`nics.yaml`), never an `if`."""

from __future__ import annotations

import functools
import pathlib

import msgspec
import yaml

__all__ = ["NicModel", "model_of", "read_models"]


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


@functools.cache
def read_models() -> tuple[NicModel, ...]:
    """Give all models that vmnic knows."""
    text = pathlib.Path(__file__).with_name("nics.yaml").read_text()
    return msgspec.convert(yaml.safe_load(text), tuple[NicModel, ...])


def model_of(vendor: str, device: str) -> NicModel | None:
    """Find the model of a physical function by its PCI ids; None if it is not known."""
    return next((nic for nic in read_models() if nic.vendor == vendor and device in nic.pf), None)
