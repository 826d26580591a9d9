"""Who holds functions, as other programs on the host write it down: sriov-cni a file for each VF, libvirt one a domain."""

from __future__ import annotations

import re

from ..host.ops import ReadFile
from .reader import PCI_ADDRESS, Reader

__all__ = ["read_records"]

_CNI = "/var/lib/cni/sriov/pci"
_NAMESPACES = ("/run/netns", "/var/run/netns")
"""Two names of one directory; in a container only the first is mounted."""
_LIBVIRT = "/run/libvirt/qemu"
_HOSTDEV = re.compile(r"<hostdev\b[^>]*type='pci'.*?</hostdev>|<interface\b[^>]*type='hostdev'.*?</interface>", re.DOTALL)
_ADDRESS = re.compile(
    r"<source>.*?<address[^>]*domain='0x([0-9a-f]+)' bus='0x([0-9a-f]+)' slot='0x([0-9a-f]+)' function='0x([0-7])'", re.DOTALL
)
"""libvirt writes its state files itself and always alike; a parser for XML would double the agent's memory."""


async def read_records(reader: Reader) -> dict[str, str]:
    """Give holders in words by PCI address.

    A record of sriov-cni outlives the node's crash; it counts while the network namespace that it names is there.
    """
    listed = await reader.listings([*_NAMESPACES, _CNI, _LIBVIRT])
    there = {name for directory in _NAMESPACES for name in listed[directory]}
    spaces = {f"{directory}/{name}" for directory in _NAMESPACES for name in there}
    addresses = [name for name in listed[_CNI] if PCI_ADDRESS.match(name)]
    records = await reader.all([ReadFile(f"{_CNI}/{address}") for address in addresses])
    found = {
        address: f"sriov-cni ({_CNI}/{address})"
        for address, text in zip(addresses, records.values(), strict=True)
        if str(text or "").strip() in spaces
    }
    for file in listed[_LIBVIRT]:
        if file.endswith(".xml"):
            text = await reader.optional_text(f"{_LIBVIRT}/{file}") or ""
            found |= dict.fromkeys(_devices(text), f"libvirt domain {file.removesuffix('.xml')}")
    return found


def _devices(text: str) -> list[str]:
    """Give the PCI addresses of the host's devices that a running domain has."""
    found = []
    for device in _HOSTDEV.findall(text):
        match = _ADDRESS.search(device)
        if match is not None:
            domain, bus, slot, function = (int(part, 16) for part in match.groups())
            found.append(f"{domain:04x}:{bus:02x}:{slot:02x}.{function}")
    return found
