"""The operations on a node, as data.

Everything that the agent does to a host is one of these values, passed to `perform`. So a fault can be injected at the n-th
operation, writes can be counted, and an operation can be sent over a socket to a worker or a simulated host. Paths are the
kernel's own (`/sys/bus/pci/devices/0000:0b:00.0/sriov_numvfs`). An adapter maps them below its root.

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
    "ReadEswitchMode",
    "ReadFile",
    "ReadLink",
    "ReadLinks",
    "ReadUnicast",
    "ReadVfs",
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
    """Read a small text file and return its text without the final newline."""

    path: str


@dataclass(frozen=True, slots=True)
class WriteFile:
    """Write a text to an existing file with one write call, as sysfs expects."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class PutFile:
    """Create or replace a whole file.

    An empty text removes the file. If it does not exist, that is no error.
    """

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class ListDir:
    """List a directory and return the sorted names."""

    path: str


@dataclass(frozen=True, slots=True)
class ReadLink:
    """Read a symbolic link and return its target as the kernel wrote it (often relative)."""

    path: str


@dataclass(frozen=True, slots=True)
class ReadLinks:
    """Dump the network links of the host's namespace with addresses and default routes."""


@dataclass(frozen=True, slots=True)
class ReadVfs:
    """Read the attributes of the VFs of one PF.

    They are not part of the dump of links: the kernel refuses a whole dump if the VFs of one link do not fit (EMSGSIZE).
    """

    name: str
    """Name of the PF's link."""


@dataclass(frozen=True, slots=True)
class ReadUnicast:
    """Read the unicast filter of a link, which is a list of MAC addresses.

    It contains the addresses of macvlan and macvtap links on top of the link, also of those in other network namespaces.
    """

    name: str


@dataclass(frozen=True, slots=True)
class ReadEswitchMode:
    """Read the mode of a PF's e-switch from devlink, for example `legacy` or `switchdev`.

    EOPNOTSUPP and ENODEV mean that the function has no e-switch.
    """

    pci_address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLink:
    """Change a link. `None` leaves a property as it is."""

    name: str
    up: bool | None = None
    mtu: int | None = None
    """Bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetVf:
    """Set attributes of one VF through its PF.

    All are sent in one netlink message, which the kernel does not apply atomically.
    """

    name: str
    """Name of the PF's link."""
    vf: int
    """Index of the VF, from 0."""
    mac: str | None = None
    vlan: int | None = None
    qos: int | None = None
    """802.1p priority, which requires `vlan`."""
    vlan_protocol: Literal["802.1q", "802.1ad"] | None = None
    spoof_check: bool | None = None
    trust: bool | None = None
    link_state: Literal["auto", "enable", "disable"] | None = None
    min_tx_rate_mbit: int | None = None
    max_tx_rate_mbit: int | None = None


@dataclass(frozen=True, slots=True)
class CheckGateway:
    """Resolve the link address of the default gateway.

    Returns `reachable`, `unreachable`, or an empty string without a gateway.
    """

    self_enabled_links: tuple[str, ...] = ()
    """PCI addresses of PFs that vmnic enabled. A default route that such a link learned does not count."""


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
    """Load a kernel module with its dependencies. If it is loaded already, that is no error."""

    name: str


@dataclass(frozen=True, slots=True)
class UnloadModule:
    """Unload a kernel module and the modules that only it needs. If it is not loaded, that is no error."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VfInfo:
    """A VF's attributes as its PF's driver reports them (IFLA_VFINFO_LIST).

    None stands for an attribute that the driver or the kernel does not report.
    """

    vf: int
    mac: str | None = None
    vlan: int | None = None
    qos: int | None = None
    vlan_protocol: Literal["802.1q", "802.1ad"] | None = None
    spoof_check: bool | None = None
    trust: bool | None = None
    link_state: Literal["auto", "enable", "disable"] | None = None
    min_tx_rate_mbit: int | None = None
    max_tx_rate_mbit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkInfo:
    """One network link of the host's namespace.

    None stands for a value that is unknown, and an empty text for one that the link does not have.
    """

    index: int
    name: str
    alt_names: tuple[str, ...] = ()
    type: str | None = None
    """Hardware type: `ether`, `infiniband`, or another ARPHRD_* of linux/if_arp.h as a decimal number."""
    mac: str | None = None
    permanent_mac: str | None = None
    """The NIC's own address (IFLA_PERM_ADDRESS), which stays when another address is set."""
    mtu: int | None = None
    """Bytes."""
    up: bool | None = None
    """Administrative state (IFF_UP)."""
    carrier: bool | None = None
    promiscuity: int = 0
    """Number of users that made the link promiscuous, among them bridges and macvlan links in passthru mode."""
    phys_port_name: str = ""
    """Name of the port of the NIC, for example `p0`, or `pf0vf3` for the representor of a VF."""
    phys_switch_id: str = ""
    """ID of the switch in the NIC to which the port belongs, in hexadecimal digits."""
    dev_port: int | None = None
    """Number of the port among those of its function, where the kernel tells it; sysfs tells it in `dev_port`."""
    kind: str = ""
    """Kind of a virtual link (`macvtap`, `bridge`, `vlan`, …). Empty for a NIC."""
    master: int | None = None
    """Index of the upper device (bridge, bond) that owns this link."""
    lower: int | None = None
    """Index of the link below this one (VLAN, macvtap: IFLA_LINK)."""
    pci_address: str | None = None
    """Address of the parent device if it is a PCI function (IFLA_PARENT_DEV_NAME)."""
    addresses: tuple[str, ...] = ()
    """IP addresses with prefix length, except link-local ones."""
    default_route: bool = False
    """Whether a default route uses this link."""
    learnt: tuple[str, ...] = ()
    """Addresses that the kernel configured from router advertisements. They are not among `addresses`."""
    learnt_route: bool = False
    """Whether the kernel learned a default route from a router advertisement."""

    @property
    def own_mac(self) -> str:
        """Return its permanent address, or the present one where the kernel tells no other.

        It is empty if both are unknown.
        """
        return self.permanent_mac or self.mac or ""


@dataclass(frozen=True, slots=True)
class Channels:
    """Queue channels of a link."""

    combined: int
    max_combined: int


# CheckGateway makes the kernel probe a neighbour entry, but it changes no configuration, so it is a read.
ReadOp: TypeAlias = (
    ReadFile | ListDir | ReadLink | ReadLinks | ReadVfs | ReadUnicast | ReadEswitchMode | CheckGateway | ReadChannels
)
WriteOp: TypeAlias = WriteFile | PutFile | SetLink | SetVf | SetChannels | LoadModule | UnloadModule
"""An operation that changes the host."""
Op: TypeAlias = ReadOp | WriteOp
"""Every operation. The wire format and the ports follow from this union."""
FileOp: TypeAlias = ReadFile | WriteFile | PutFile | ListDir | ReadLink
ModuleOp: TypeAlias = LoadModule | UnloadModule
LinkOp: TypeAlias = (
    ReadLinks | ReadVfs | ReadUnicast | ReadEswitchMode | CheckGateway | SetLink | SetVf | ReadChannels | SetChannels
)
Value: TypeAlias = str | tuple[str, ...] | tuple[LinkInfo, ...] | tuple[VfInfo, ...] | Channels | None


class Port(Protocol):
    """Performs operations, as an adapter or as a wrapper around one."""

    def perform(self, op: Op) -> Value:
        """Perform one operation and return what it read.

        Raises:
            OSError: The kernel refused. `errno` is the kernel's.
        """
        ...


def is_write(op: Op) -> bool:
    """Return whether an operation changes the host."""
    return isinstance(op, WriteOp)
