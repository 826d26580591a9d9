"""Holders of PFs and VFs that other programs on the host record in files.

sriov-cni has a file for each VF, libvirt one for each domain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..host.ops import ListDir, Op, ReadFile, ReadLink
from .errno_hints import errno_name
from .sysfs import PCI_ADDRESS, SysfsReader, is_absent

__all__ = ["Records", "read_records"]

_CNI = "/var/lib/cni/sriov/pci"
_NAMESPACES = ("/run/netns", "/var/run/netns")
"""Two names of one directory. In a container only the first is mounted."""
_LIBVIRT = "/run/libvirt/qemu"
_LENT = "/run/libvirt/hostdevmgr"
"""libvirt records here how a VF was before it applies a domain's settings, which is before the domain has its own file."""
_LENT_VF = re.compile(r"(.+)_vf([0-9]+)", re.ASCII)
_BATCH = 32
_TAG = re.compile(r"<(/?)(hostdev|interface|source|address)\b([^<>]*)>")
_ADDRESS = re.compile(
    r"domain='0x([0-9a-f]{1,4})' bus='0x([0-9a-f]{1,2})' slot='0x([01]?[0-9a-f])' function='0x([0-7])'", re.ASCII
)
"""libvirt writes its state files itself and always in the same form. An XML parser would double the agent's memory."""


@dataclass(slots=True)
class Records:
    """What the records of other programs contain."""

    holders: dict[str, str] = field(default_factory=dict)
    """Holders as text, by PCI address."""
    unknown: str = ""
    """The first record that could not be read, with the reason. Holders may be missing then. Empty if all were read."""


async def read_records(reader: SysfsReader) -> Records:
    """Read all records.

    A record that cannot be read is named in `unknown`, and the others still count. A record of sriov-cni survives a crash of
    the node, so it counts only while the network namespace that it names exists.
    """
    records = Records()
    directories = [*_NAMESPACES, _CNI, _LENT, _LIBVIRT]
    listed = dict(zip(directories, await _attempt(reader, [ListDir(one) for one in directories], records), strict=True))
    names = {directory: tuple(map(str, found)) if isinstance(found, tuple) else () for directory, found in listed.items()}
    # A record may use the name that is not mounted here, so each namespace counts under both names.
    spaces = {f"{directory}/{name}" for directory in _NAMESPACES for other in _NAMESPACES for name in names[other]}
    addresses = [name for name in names[_CNI] if PCI_ADDRESS.match(name)]
    texts = await _attempt(reader, [ReadFile(f"{_CNI}/{address}") for address in addresses], records)
    for address, text in zip(addresses, texts, strict=True):
        if str(text or "").strip() in spaces:
            records.holders[address] = f"sriov-cni ({_CNI}/{address})"
    await _read_lent(reader, names[_LENT], records)
    files = [name for name in names[_LIBVIRT] if name.endswith(".xml")]
    for file, text in zip(
        files, await _attempt(reader, [ReadFile(f"{_LIBVIRT}/{one}") for one in files], records), strict=True
    ):
        records.holders |= dict.fromkeys(_devices(str(text or "")), f"libvirt domain {file.removesuffix('.xml')}")
    return records


async def _attempt(reader: SysfsReader, ops: Sequence[Op], records: Records) -> list[object]:
    """Perform reads. An absent file or a failed read gives None, and a failure is recorded in `unknown`."""
    found: list[object] = []
    for start in range(0, len(ops), _BATCH):
        batch = ops[start : start + _BATCH]
        for op, answer in zip(batch, await reader.attempt(batch), strict=True):
            found.append(None if isinstance(answer, OSError) else answer)
            if isinstance(answer, OSError) and not is_absent(answer):
                records.unknown = records.unknown or f"{getattr(op, 'path', op)} cannot be read ({errno_name(answer)})"
    return found


async def _read_lent(reader: SysfsReader, names: Sequence[str], records: Records) -> None:
    """Add the VFs that libvirt has changed and will restore, each recorded by its PF's link and its index."""
    notes = [note for note in map(_LENT_VF.fullmatch, names) if note is not None]
    links = await _attempt(reader, [ReadLink(f"/sys/class/net/{note[1]}/device/virtfn{note[2]}") for note in notes], records)
    for note, link in zip(notes, links, strict=True):
        address = str(link or "").rsplit("/", 1)[-1]
        if address:
            records.holders[address] = f"libvirt ({_LENT}/{note[0]})"


def _devices(text: str) -> Iterator[str]:
    """Yield the PCI addresses of the host devices of a running domain.

    The text is scanned once, even if it is malformed.
    """
    device, in_source = "", False
    for tag in _TAG.finditer(text):
        closes, name, attributes = tag.groups()
        if closes:
            device = "" if name == device else device
            in_source = in_source and name != "source"
        elif name in ("hostdev", "interface"):
            device = name if f"type='{_KINDS[name]}'" in attributes else ""
        elif name == "source":
            in_source = bool(device)
        # An address outside of <source> is the one that the guest sees.
        elif in_source and (match := _ADDRESS.search(attributes)) is not None:
            domain, bus, slot, function = (int(part, 16) for part in match.groups())
            yield f"{domain:04x}:{bus:02x}:{slot:02x}.{function}"
            in_source = False


_KINDS = {"hostdev": "pci", "interface": "hostdev"}
