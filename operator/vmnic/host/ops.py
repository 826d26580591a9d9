"""The operations on a node, as data.

Everything that the agent does to a host is one of these values, handed to `perform`. So a fault can be injected at the
n-th operation, writes can be counted, and an operation can travel over a socket to a worker or a simulated host.
Paths are the kernel's own (`/sys/bus/pci/devices/0000:0b:00.0/sriov_numvfs`); an adapter maps them below its root.

An operation that the kernel refuses raises `OSError` with the kernel's errno, in every adapter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

__all__ = [
    "Channels",
    "CheckGateway",
    "FileOp",
    "LinkInfo",
    "LinkOp",
    "ListDir",
    "LoadModule",
    "ModuleOp",
    "Op",
    "Port",
    "PutFile",
    "ReadChannels",
    "ReadFile",
    "ReadLink",
    "ReadLinks",
    "SetChannels",
    "SetLink",
    "SetVf",
    "UnloadModule",
    "Value",
    "VfInfo",
    "WriteFile",
    "is_write",
]


@dataclass(frozen=True, slots=True)
class ReadFile:
    """Read a small text file; gives its text without the final newline."""

    path: str


@dataclass(frozen=True, slots=True)
class WriteFile:
    """Write a text to an existing file with one write call, as sysfs expects."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class PutFile:
    """Make or replace a file as a whole; an empty text removes it, and an absent one is then no error."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class ListDir:
    """List a directory; gives the sorted names."""

    path: str


@dataclass(frozen=True, slots=True)
class ReadLink:
    """Read a symbolic link; gives its target as the kernel wrote it (often relative)."""

    path: str


@dataclass(frozen=True, slots=True)
class ReadLinks:
    """Dump the network links of the host's namespace with VF attributes, addresses and default routes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLink:
    """Change a link; `None` leaves a property alone."""

    name: str
    up: bool | None = None
    mtu: int | None = None
    """Bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetVf:
    """Set attributes of one VF through its PF in one netlink message, which the kernel does not apply atomically."""

    name: str
    """The PF's link."""
    vf: int
    """Index of the VF, from 0."""
    mac: str | None = None
    vlan: int | None = None
    qos: int | None = None
    """802.1p priority; goes with `vlan`."""
    vlan_protocol: Literal["802.1q", "802.1ad"] | None = None
    spoof_check: bool | None = None
    trust: bool | None = None
    link_state: Literal["auto", "enable", "disable"] | None = None
    min_tx_rate_mbit: int | None = None
    max_tx_rate_mbit: int | None = None


@dataclass(frozen=True, slots=True)
class CheckGateway:
    """Ask the default gateway for its link address; gives `reachable`, `unreachable`, or an empty text without a gateway."""

    self_enabled_links: tuple[str, ...] = ()
    """PCI addresses of functions that vmnic switched on: a default route that such a link has learnt does not count."""


@dataclass(frozen=True, slots=True)
class ReadChannels:
    """Read the queue channels of a link (ETHTOOL_GCHANNELS)."""

    name: str


@dataclass(frozen=True, slots=True)
class SetChannels:
    """Set the `combined` channels of a link (ETHTOOL_SCHANNELS)."""

    name: str
    combined: int


@dataclass(frozen=True, slots=True)
class LoadModule:
    """Load a kernel module with its dependencies; already loaded is no error."""

    name: str


@dataclass(frozen=True, slots=True)
class UnloadModule:
    """Unload a kernel module and what only it needs; not loaded is no error."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VfInfo:
    """A VF's attributes as its PF's driver reports them (IFLA_VFINFO_LIST)."""

    vf: int
    mac: str
    vlan: int
    qos: int
    spoof_check: bool
    trust: bool
    link_state: Literal["auto", "enable", "disable"] = "auto"
    min_tx_rate_mbit: int = 0
    max_tx_rate_mbit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkInfo:
    """One network link of the host's namespace."""

    index: int
    name: str
    alt_names: tuple[str, ...] = ()
    mac: str = ""
    mtu: int = 1500
    """Bytes."""
    up: bool = False
    """Administrative state (IFF_UP)."""
    carrier: bool = False
    kind: str = ""
    """Of a virtual link: `macvtap`, `bridge`, `vlan`, …; empty for a NIC."""
    master: int | None = None
    """Index of the upper device (bridge, bond) that owns this link."""
    lower: int | None = None
    """Index of the link that this one sits on (VLAN, macvtap: IFLA_LINK)."""
    pci_address: str | None = None
    """The parent device where it is a PCI function (IFLA_PARENT_DEV_NAME)."""
    addresses: tuple[str, ...] = ()
    """IP addresses with prefix length, link-local ones left out."""
    default_route: bool = False
    """Whether a default route leaves by this link."""
    learnt: tuple[str, ...] = ()
    """Addresses that the kernel made by itself from a router's announcements; they are not among `addresses`."""
    learnt_route: bool = False
    """Whether the kernel took a default route from such an announcement."""
    vfs: tuple[VfInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class Channels:
    """Queue channels of a link."""

    combined: int
    max_combined: int


FileOp: TypeAlias = ReadFile | WriteFile | PutFile | ListDir | ReadLink
LinkOp: TypeAlias = ReadLinks | CheckGateway | SetLink | SetVf | ReadChannels | SetChannels
ModuleOp: TypeAlias = LoadModule | UnloadModule
Op: TypeAlias = FileOp | LinkOp | ModuleOp
Value: TypeAlias = str | tuple[str, ...] | tuple[LinkInfo, ...] | Channels | None


class Port(Protocol):
    """What performs operations: an adapter, or a wrapper around one."""

    def perform(self, op: Op) -> Value:
        """Perform one operation and give what it read.

        Raises:
            OSError: the kernel refused; `errno` is the kernel's.
        """
        ...


def is_write(op: Op) -> bool:
    """Tell whether an operation changes the host."""
    return isinstance(op, WriteFile | PutFile | SetLink | SetVf | SetChannels | LoadModule | UnloadModule)
