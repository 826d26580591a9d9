"""Bounds on the VFs of a function, from the kernel and from the NIC data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias, TypeVar

from ..api.node_state import PfSpec, PfStatus
from .nics import NicModel, model_of
from .observed import ObservedPf

__all__ = ["NicFunction", "count_other_ports", "data_of", "other_ports", "possible_vfs"]


NicFunction: TypeAlias = PfStatus | ObservedPf
F = TypeVar("F", bound=NicFunction)


def data_of(pf: NicFunction) -> NicModel | None:
    """Return the NIC data of a PF."""
    return model_of(pf.vendor, pf.device, pf.driver)


def other_ports(pf: NicFunction, pfs: Iterable[F]) -> list[F]:
    """Return the other PFs of the same device, which differ from it in their PCI function."""
    device = pf.pci_address.rpartition(".")[0]
    return [
        one
        for one in pfs
        if one.pci_address != pf.pci_address and one.pci_address.rpartition(".")[0] == device and one.vendor == pf.vendor
    ]


def possible_vfs(pf: NicFunction, pfs: Iterable[NicFunction]) -> int:
    """Return how many VFs a PF may have if the ports of its device share equally.

    Args:
        pf: The PF.
        pfs: All PFs of the node.
    """
    model = data_of(pf)
    if model is None or model.max_vfs is None:
        return pf.total_vfs
    ports = 1 + len(other_ports(pf, pfs)) if model.max_vfs_per == "Device" else 1
    return min(pf.total_vfs, model.max_vfs // ports)


def count_other_ports(pf: NicFunction, pfs: Iterable[NicFunction], wanted: Mapping[str, PfSpec]) -> int:
    """Count the VFs that other ports of a device take from what all may have together.

    A port before this one counts with the VFs that it asks for, one after it only with those that it has already. So one of
    two ports that ask for too many gets its VFs.
    """
    return sum(_taken(port, wanted.get(port.pci_address), pf) for port in other_ports(pf, pfs))


def _taken(port: NicFunction, spec: PfSpec | None, pf: NicFunction) -> int:
    if spec is None or spec.release or spec.management == "Adopt":
        return port.num_vfs
    return spec.num_vfs if port.pci_address < pf.pci_address else min(spec.num_vfs, port.num_vfs)
