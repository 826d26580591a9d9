"""PCI addresses of VFs, computed from the PF's First VF Offset and VF Stride (PCIe SR-IOV capability)."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from ..checked.devices import is_pci_address

__all__ = ["routing_id", "vf_address", "vf_addresses", "vf_indexes"]

_LARGEST_ID = 0xFFFF


@functools.lru_cache(maxsize=4096)
def routing_id(address: str) -> int:
    """Return the routing ID of a PCI address, which is bus, device and function as one number."""
    _, bus, rest = address.split(":")
    device, function = rest.split(".")
    return (int(bus, 16) << 8) + (int(device, 16) << 3) + int(function)


def vf_address(first: str, stride: int, index: int) -> str:
    """Return the PCI address of a VF, whose routing ID is that of the first VF plus `index` strides."""
    return _address(first.split(":", maxsplit=1)[0], routing_id(first) + index * stride)


def vf_addresses(first: str, stride: int, indexes: Iterable[int], listed: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the PCI addresses of VFs.

    An address beyond the last bus is left out. With a stride of 0 only VF 0 has an address.

    Args:
        first: Address of the first VF; empty if there is none.
        stride: Difference between the routing IDs of two consecutive VFs.
        indexes: Indexes of the VFs.
        listed: Addresses of all VFs by index if a stride does not give them, as of VFs in PCI domains of their own.
    """
    if listed:
        return tuple(listed[index] for index in indexes if 0 <= index < len(listed))
    if not is_pci_address(first):
        return ()
    head, start = first.split(":", maxsplit=1)[0], routing_id(first)
    # A status has no stride if the PF has one VF. Without the condition, every index would have the address of VF 0.
    numbers = (start + index * stride for index in indexes if stride > 0 or index == 0)
    return tuple(_address(head, number) for number in numbers if number <= _LARGEST_ID)


def vf_indexes(first: str, stride: int, addresses: Iterable[str], listed: Sequence[str] = ()) -> dict[str, int]:
    """Return the indexes of VFs by address, without addresses that belong to no VF.

    Args:
        first: Address of the first VF; empty if there is none.
        stride: Difference between the routing IDs of two consecutive VFs.
        addresses: PCI addresses.
        listed: Addresses of all VFs by index if a stride does not give them.
    """
    if listed:
        positions = {address: index for index, address in enumerate(listed)}
        return {one: positions[one] for one in addresses if one in positions}
    if not is_pci_address(first):
        return {}
    # Without a stride, a step beyond the last routing ID leaves VF 0 as the only match, and nothing is divided by 0.
    domain, start, step = first[:4], routing_id(first), max(stride, _LARGEST_ID + 1 if stride <= 0 else stride)
    distances = ((one, routing_id(one) - start) for one in addresses if one[:4] == domain)
    return {one: distance // step for one, distance in distances if distance >= 0 and distance % step == 0}


def _address(domain: str, number: int) -> str:
    return f"{domain}:{number >> 8:02x}:{(number >> 3) & 31:02x}.{number & 7}"
