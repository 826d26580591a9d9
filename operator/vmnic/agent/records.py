"""Who holds functions, as other programs on the host write it down: sriov-cni a file for each VF, libvirt one a domain."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..host.ops import ReadFile
from .reader import PCI_ADDRESS, Reader

__all__ = ["read_records"]

_CNI = "/var/lib/cni/sriov/pci"
_NAMESPACES = ("/run/netns", "/var/run/netns")
"""Two names of one directory; in a container only the first is mounted."""
_LIBVIRT = "/run/libvirt/qemu"
_LENT = "/run/libvirt/hostdevmgr"
"""Here libvirt notes how a VF was before it sets what a domain wants, and that is before the domain has its file."""
_LENT_VF = re.compile(r"(.+)_vf(\d+)")
_HOSTDEV = re.compile(r"<hostdev\b[^>]*type='pci'.*?</hostdev>|<interface\b[^>]*type='hostdev'.*?</interface>", re.DOTALL)
_ADDRESS = re.compile(
    r"<source>.*?<address[^>]*domain='0x([0-9a-f]+)' bus='0x([0-9a-f]+)' slot='0x([0-9a-f]+)' function='0x([0-7])'", re.DOTALL
)
"""libvirt writes its state files itself and always alike; a parser for XML would double the agent's memory."""


async def read_records(reader: Reader) -> dict[str, str]:
    """Give holders in words by PCI address.

    A record of sriov-cni outlives the node's crash; it counts while the network namespace that it names is there.
    """
    listed = await reader.listings([*_NAMESPACES, _CNI, _LENT, _LIBVIRT])
    there = {name for directory in _NAMESPACES for name in listed[directory]}
    spaces = {f"{directory}/{name}" for directory in _NAMESPACES for name in there}
    addresses = [name for name in listed[_CNI] if PCI_ADDRESS.match(name)]
    records = await reader.all([ReadFile(f"{_CNI}/{address}") for address in addresses])
    found = {
        address: f"sriov-cni ({_CNI}/{address})"
        for address, text in zip(addresses, records.values(), strict=True)
        if str(text or "").strip() in spaces
    }
    found |= await _lent(reader, listed[_LENT])
    for file in listed[_LIBVIRT]:
        if file.endswith(".xml"):
            text = await reader.optional_text(f"{_LIBVIRT}/{file}") or ""
            found |= dict.fromkeys(_devices(text), f"libvirt domain {file.removesuffix('.xml')}")
    return found


async def _lent(reader: Reader, names: Sequence[str]) -> dict[str, str]:
    """Give the VFs that libvirt has changed and will put back, each noted by its PF's link and its index."""
    notes = [note for note in map(_LENT_VF.fullmatch, names) if note is not None]
    addresses = await reader.link_names([f"/sys/class/net/{note[1]}/device/virtfn{note[2]}" for note in notes])
    return {address: f"libvirt ({_LENT}/{note[0]})" for address, note in zip(addresses, notes, strict=True) if address}


def _devices(text: str) -> list[str]:
    """Give the PCI addresses of the host's devices that a running domain has."""
    found = []
    for device in _HOSTDEV.findall(text):
        match = _ADDRESS.search(device)
        if match is not None:
            domain, bus, slot, function = (int(part, 16) for part in match.groups())
            found.append(f"{domain:04x}:{bus:02x}:{slot:02x}.{function}")
    return found
