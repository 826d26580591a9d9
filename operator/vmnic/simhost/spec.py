"""Describes a simulated host in YAML, and refuses descriptions of impossible worlds."""

from __future__ import annotations

import functools
import pathlib

import msgspec
import yaml

__all__ = ["Delays", "HostSpec", "ImpossibleHostError", "NicProfile", "PfSpec", "check_host", "parse_host", "profiles"]


class ImpossibleHostError(ValueError):
    """No real host could be like this; the message names the field."""


class NicProfile(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What a NIC model is like; fields as in `profiles.yaml`."""

    vendor: str
    device: str
    vf_device: str
    driver: str
    vf_driver: str
    max_vfs: int
    capability_vfs: int
    vf_offset: int
    vf_stride: int
    speed_mbps: int
    channels: int
    channels_with_vfs: int
    rate_limit: bool
    sysfs_vfs: bool = True
    """False: an old driver that makes VFs only by its parameter `max_vfs`, when it is loaded."""


class PfSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One physical function as the host boots."""

    address: str
    profile: str
    name: str
    alt_names: tuple[str, ...] = ()
    mac: str = "52:54:00:00:00:01"
    numa_node: int = -1
    vfs: int = 0
    """VFs that exist already when the agent first looks."""
    mtu: int = 1500
    up: bool = True
    cable: bool = True
    addresses: tuple[str, ...] = ()
    default_route: bool = False
    router: bool = False
    """A router on its network announces itself: while its link is up, the kernel makes an address and a route of that."""
    shares_iommu_group: bool = False
    """The port above it has no ACS, so the function and its VFs share one group with it."""
    no_vf_space: bool = False
    """The firmware left no room for the registers of its VFs."""
    cut_by_vfs: bool = False
    """Its link is lost while it has VFs: a switch port that shuts down, or a driver's fault."""


class Delays(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """How long the kernel takes, in seconds; only in a server."""

    vf_s: float = 0.0
    """To make or remove one VF, under the one lock of all PCI changes."""
    probe_s: float = 0.0
    """To bind a function to a driver, under the function's own lock."""
    link_s: float = 0.0
    """To change a link, under the one lock of all links."""

    @property
    def any(self) -> bool:
        """Whether anything takes time."""
        return bool(self.vf_s or self.probe_s or self.link_s)


class HostSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One host."""

    pfs: tuple[PfSpec, ...] = ()
    iommu: bool = True
    kernel: str = "6.12.0-sim"
    modules: tuple[str, ...] = ("vhost_net", "tun", "macvtap", "vfio_pci", "igb", "igbvf", "ixgbe", "ixgbevf", "i40e", "iavf")
    """Loaded at boot."""
    available_modules: tuple[str, ...] = ()
    """Can be loaded besides."""
    refused_modules: tuple[str, ...] = ()
    """Are there, but the kernel does not trust their signature (Secure Boot)."""
    delays: Delays = Delays()
    files: dict[str, str] = {}
    """Files of other programs by path, as below /etc, /run and /var."""


@functools.cache
def profiles() -> dict[str, NicProfile]:
    """Give the NIC profiles by name."""
    text = pathlib.Path(__file__).with_name("profiles.yaml").read_text()
    return msgspec.convert(yaml.safe_load(text), dict[str, NicProfile])


def parse_host(text: str) -> HostSpec:
    """Read a host's description.

    Raises:
        ImpossibleHostError: a field is wrong, or no real host could be like this.
    """
    try:
        spec = msgspec.convert(yaml.safe_load(text) or {}, HostSpec)
    except msgspec.ValidationError as error:
        raise ImpossibleHostError(str(error)) from error
    check_host(spec)
    return spec


def check_host(spec: HostSpec) -> None:
    """Refuse an impossible host.

    Raises:
        ImpossibleHostError: it names the function and the field.
    """
    for field in ("address", "name"):
        values = [getattr(pf, field) for pf in spec.pfs]
        if len(set(values)) < len(values):
            raise ImpossibleHostError(f"pfs: two functions have the same {field}")
    for pf in spec.pfs:
        profile = profiles().get(pf.profile)
        if profile is None:
            raise ImpossibleHostError(f"{pf.address}: profile {pf.profile!r} is none of {', '.join(sorted(profiles()))}")
        if not 0 <= pf.vfs <= profile.max_vfs:
            raise ImpossibleHostError(f"{pf.address}: vfs {pf.vfs}, but a {pf.profile} supports {profile.max_vfs}")
        if not pf.address.endswith(".0") and not pf.address.endswith(".1"):
            raise ImpossibleHostError(f"{pf.address}: a NIC's ports are its functions 0 and 1")
