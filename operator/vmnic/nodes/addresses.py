"""PCI addresses of VFs, reckoned from their function's (PCIe SR-IOV capability: first VF offset, VF stride)."""

from __future__ import annotations

__all__ = ["routing_id", "vf_address"]


def routing_id(address: str) -> int:
    """Give bus, device and function as one number."""
    _, bus, rest = address.split(":")
    device, function = rest.split(".")
    return (int(bus, 16) << 8) + (int(device, 16) << 3) + int(function)


def vf_address(first: str, stride: int, index: int) -> str:
    """Give the PCI address of a VF: the routing id grows by the stride from the first VF's on."""
    number = routing_id(first) + index * stride
    return f"{first.split(':', maxsplit=1)[0]}:{number >> 8:02x}:{(number >> 3) & 31:02x}.{number & 7}"
