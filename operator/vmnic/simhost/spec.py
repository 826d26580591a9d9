"""Descriptions of simulated hosts in YAML, without impossible ones."""

from __future__ import annotations

import functools
import pathlib
from typing import Literal

import msgspec
import yaml

from ..checked.devices import is_pci_address

__all__ = [
    "Delays",
    "DeviceSpec",
    "HostSpec",
    "ImpossibleHostError",
    "IommuGroupSpec",
    "NicProfile",
    "PfSpec",
    "PortSpec",
    "check_host",
    "parse_host",
    "profiles",
]


class ImpossibleHostError(ValueError):
    """No real host could match the description. The message names the field."""


class NicProfile(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Properties of a NIC model, with the fields of `profiles.yaml`."""

    vendor: str
    device: str
    driver: str
    speed_mbps: int
    channels: int
    """Number of `combined` channels; 0 if the driver cannot set them."""
    vf_device: str = ""
    vf_driver: str = ""
    max_vfs: int = 0
    capability_vfs: int = 0
    """0 for a NIC without SR-IOV."""
    vf_offset: int = 0
    vf_stride: int = 0
    port_offset: int = 0
    """Added to `vf_offset` for each function before this one."""
    channels_with_vfs: int = 0
    rate_limit: bool = False
    sysfs_vfs: bool = True
    """False for an old driver, which creates VFs only by its parameter when it is loaded."""
    parameter: str = ""
    """The driver's parameter that creates VFs when it is loaded; empty if it has none."""
    pci_class: str = msgspec.field(default="020000", name="class")


class PortSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A further link of a PF, which is another port of the NIC or a representor that belongs to no VF."""

    name: str
    mac: str = "52:54:00:00:00:02"
    phys_port_name: str = ""
    addresses: tuple[str, ...] = ()


class PfSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One PF as the host boots."""

    address: str
    profile: str
    name: str
    alt_names: tuple[str, ...] = ()
    mac: str = "52:54:00:00:00:01"
    numa_node: int = -1
    vfs: int = 0
    """Number of VFs that exist before the agent starts."""
    vf_driver: str = ""
    """Driver of these VFs; empty if none is bound."""
    mtu: int = 1500
    up: bool = True
    cable: bool = True
    addresses: tuple[str, ...] = ()
    default_route: bool = False
    router: bool = False
    """Whether a router on its network sends advertisements. While the link is up, the kernel adds an address and a route from
    them.
    """
    shares_iommu_group: bool = False
    """Whether the port above it has no ACS, so that the PF and its VFs share that port's IOMMU group."""
    sriov_off: bool = False
    """Whether the NIC's firmware has switched SR-IOV off."""
    no_vf_space: bool = False
    """Whether the firmware left no address space for the registers of its VFs."""
    link_type: str = "ether"
    phys_port_name: str = ""
    eswitch: Literal["", "legacy", "switchdev"] = ""
    """Mode of its e-switch; empty if its driver has none. In switchdev mode every VF has a representor."""
    ports: tuple[PortSpec, ...] = ()
    representors: tuple[str, ...] = ()
    """Names of the representors of its first VFs; the others have names of the model."""
    reports_flags: bool = True
    """Whether its driver knows trust and spoof check. Otherwise it reports neither and refuses both."""
    vf_domain: int | None = None
    """PCI domain of its first VF; each further VF is in the next domain. Left out if VFs are in the PF's domain."""
    cut_by_vfs: bool = False
    """Whether it loses its link while it has VFs, because of a switch port that shuts down or a driver's fault."""


class DeviceSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A PCI function that is no NIC, such as a bridge or a sound card."""

    address: str
    vendor: str = "8086"
    device: str = "a340"
    pci_class: str = msgspec.field(default="060400", name="class")
    driver: str = ""
    """Driver that is bound at boot; empty if none is."""


class IommuGroupSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """PCI functions in one IOMMU group. A function in none of these groups has its own."""

    id: int | None = None
    """Number of the group; absent for the next free one."""
    devices: tuple[str, ...]
    """PCI addresses. VFs join the group of their PF if a bridge is in it, because the bridge has no ACS then."""
    reserved_regions: tuple[str, ...] = ("fee00000-feefffff msi",)
    """Regions as START-END TYPE, in hexadecimal and with the kernel's word for the type."""


class Delays(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Times that the kernel takes, in seconds, used only in a server."""

    vf_s: float = 0.0
    """Time to create or remove one VF, under the lock of all PCI changes."""
    probe_s: float = 0.0
    """Time to bind a function to a driver, under the function's own lock."""
    link_s: float = 0.0
    """Time to change a link, under the lock of all links."""

    @property
    def any(self) -> bool:
        """Return whether any operation takes time."""
        return bool(self.vf_s or self.probe_s or self.link_s)


class HostSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One host."""

    pfs: tuple[PfSpec, ...] = ()
    devices: tuple[DeviceSpec, ...] = ()
    """PCI functions that are no NICs."""
    iommu: bool = True
    iommu_groups: tuple[IommuGroupSpec, ...] = ()
    """IOMMU groups with several functions, or with reserved regions of their own."""
    kernel: str = "6.12.0-sim"
    boot_id: str = ""
    """Boot ID until the first reboot; empty for a random one."""
    modules: tuple[str, ...] = (
        *("vhost_net", "tun", "macvtap", "vfio_pci", "igb", "igbvf", "ixgbe", "ixgbevf", "i40e", "iavf"),
        *("ice", "mlx4_core", "mlx5_core", "e1000e", "r8169"),
    )
    """Modules that are loaded at boot."""
    built_in_modules: tuple[str, ...] = ()
    """Modules that are part of the kernel itself."""
    available_modules: tuple[str, ...] = ()
    """Modules that can be loaded besides."""
    refused_modules: tuple[str, ...] = ()
    """Modules that exist, but whose signature the kernel does not trust (Secure Boot)."""
    delays: Delays = Delays()
    files: dict[str, str] = {}
    """Files of other programs by path, below /etc, /run or /var."""
    profiles: dict[str, NicProfile] = {}
    """Further NIC profiles by name."""
    vf_groups: dict[str, int] = {}
    """IOMMU groups of VFs, by PCI address; others get the next free one, or that of their PF."""

    def profile_of(self, pf: PfSpec) -> NicProfile | None:
        """Return the profile of a PF, or None if there is none of this name."""
        return self.profiles.get(pf.profile) or profiles().get(pf.profile)


@functools.cache
def profiles() -> dict[str, NicProfile]:
    """Return the NIC profiles by name."""
    text = pathlib.Path(__file__).with_name("profiles.yaml").read_text()
    return msgspec.convert(yaml.safe_load(text), dict[str, NicProfile])


def parse_host(text: str) -> HostSpec:
    """Parse a host's description.

    Raises:
        ImpossibleHostError: A field is wrong, or no real host could match.
    """
    try:
        spec = msgspec.convert(yaml.safe_load(text) or {}, HostSpec)
    except msgspec.ValidationError as error:
        raise ImpossibleHostError(str(error)) from error
    check_host(spec)
    return spec


def check_host(spec: HostSpec) -> None:
    """Check that a real host could match the description.

    Raises:
        ImpossibleHostError: The message names the function and the field.
    """
    for field in ("address", "name"):
        values = [getattr(pf, field) for pf in spec.pfs]
        values += [port.name for pf in spec.pfs for port in pf.ports if field == "name"]
        if len(set(values)) < len(values):
            raise ImpossibleHostError(f"pfs: two functions have the same {field}")
    known = [*(pf.address for pf in spec.pfs), *(device.address for device in spec.devices)]
    if len(set(known)) < len(known):
        raise ImpossibleHostError("devices: two functions have the same address")
    grouped = [address for group in spec.iommu_groups for address in group.devices]
    if set(grouped) - set(known):
        raise ImpossibleHostError(f"iommuGroups: {min(set(grouped) - set(known))} is among neither pfs nor devices")
    if len(set(grouped)) < len(grouped):
        raise ImpossibleHostError("iommuGroups: a function is in one group only")
    for pf in spec.pfs:
        profile = spec.profile_of(pf)
        if profile is None:
            raise ImpossibleHostError(f"{pf.address}: profile {pf.profile!r} is none of {', '.join(sorted(profiles()))}")
        most = 0 if pf.sriov_off else profile.max_vfs
        if not 0 <= pf.vfs <= most:
            raise ImpossibleHostError(f"{pf.address}: vfs {pf.vfs}, but a {pf.profile} supports {most}")
        if not is_pci_address(pf.address):
            raise ImpossibleHostError(f"{pf.address}: an address has the form 0000:0b:00.0, with function 0 to 7")
    _check_vf_addresses(spec)


def _check_vf_addresses(spec: HostSpec) -> None:
    """Check that no two functions could have VFs with the same routing ID.

    Raises:
        ImpossibleHostError: The message names both functions.
    """
    taken: dict[tuple[str, int], str] = {}
    for pf in spec.pfs:
        profile = spec.profile_of(pf)
        if profile is None:
            continue
        domain, bus, rest = pf.address.split(":")
        device, function = rest.split(".")
        first = (int(bus, 16) << 8) + (int(device, 16) << 3) + int(function)
        first += profile.vf_offset + int(function) * profile.port_offset
        for index in range(0 if pf.sriov_off else profile.capability_vfs):
            place = (domain, first + index * profile.vf_stride)
            other = taken.setdefault(place, pf.address)
            if other != pf.address:
                raise ImpossibleHostError(f"{pf.address}: a {pf.profile} there would have VFs in the place of those of {other}")
