"""Validation of the originals in a record.

A tenant may write the record, and vmnic writes the originals back to the spec. Therefore only KubeVirt's fields of an
interface and a network are accepted, with KubeVirt's types, and only for the NIC of the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from .vm import Interface, Network

__all__ = ["INTERFACE_SETTINGS", "MAX_RECORD_BYTES", "check_original", "find_unrecordable"]

MAX_RECORD_BYTES = 32 * 1024
"""Longest record that is read or written. A NIC takes about 300 bytes."""
_OVERHEAD_BYTES = 512
"""Maximum size of a NIC's record without the entries of its interface and network."""
INTERFACE_SETTINGS = frozenset(
    {"macAddress", "pciAddress", "bootOrder", "acpiIndex", "dhcpOptions", "ports", "portRanges", "state", "tag"}
)
"""Fields of an interface apart from its name, its model and its binding."""

_Number = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
_Text = Annotated[str, msgspec.Meta(max_length=1024)]
_LABEL = "[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?"
_Reference = Annotated[str, msgspec.Meta(pattern=f"^(?:{_LABEL}/)?{_LABEL}$", max_length=507)]


_Model = _Text | None


class _Strict(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """Base of structs that reject unknown fields."""


class _Empty(_Strict, frozen=True):
    """One of KubeVirt's own bindings, which have no fields."""


class _Plugin(_Strict, frozen=True):
    name: _Text = ""


class _Port(_Strict, frozen=True):
    port: _Number
    name: _Text = ""
    protocol: _Text = ""


class _DhcpOption(_Strict, frozen=True):
    option: _Number
    value: _Text


class _Dhcp(_Strict, frozen=True):
    boot_file_name: _Text = ""
    tftp_server_name: _Text = ""
    ntp_servers: tuple[_Text, ...] = ()
    private_options: tuple[_DhcpOption, ...] = ()


class _Interface(_Strict, frozen=True, kw_only=True):
    """An entry of `domain.devices.interfaces`, with KubeVirt's fields."""

    name: _Text
    model: _Text | None = None
    mac_address: _Text | None = None
    masquerade: _Empty | None = None
    bridge: _Empty | None = None
    sriov: _Empty | None = None
    passt_binding: _Empty | None = None
    slirp: _Empty | None = None
    macvtap: _Empty | None = None
    passt: _Empty | None = None
    binding: _Plugin | None = None
    pci_address: _Text | None = None
    boot_order: _Number | None = None
    acpi_index: _Number | None = None
    dhcp_options: _Dhcp | None = None
    ports: tuple[_Port, ...] | None = None
    port_ranges: tuple[dict[str, _Number | _Text], ...] | None = None
    state: _Text | None = None
    tag: _Text | None = None

    def __post_init__(self) -> None:
        bindings = (
            *(self.masquerade, self.bridge, self.sriov, self.passt_binding),
            *(self.slirp, self.macvtap, self.passt, self.binding),
        )
        if sum(one is not None for one in bindings) > 1:
            raise ValueError("an interface has one binding")


class _Pod(_Strict, frozen=True):
    vm_network_cidr: _Text = msgspec.field(default="", name="vmNetworkCIDR")
    vm_ipv6_network_cidr: _Text = msgspec.field(default="", name="vmIPv6NetworkCIDR")


class _Multus(_Strict, frozen=True):
    network_name: _Reference
    default: bool = False


class _Network(_Strict, frozen=True, kw_only=True):
    """An entry of `networks`, with KubeVirt's fields."""

    name: _Text
    pod: _Pod | None = None
    multus: _Multus | None = None
    resource_claim: dict[str, _Text] | None = None

    def __post_init__(self) -> None:
        if sum(one is not None for one in (self.pod, self.multus, self.resource_claim)) != 1:
            raise ValueError("a network has one source")


def check_original(name: str, was: dict[str, Any]) -> None:
    """Check the original of a NIC in a record.

    It may be empty, the model alone, or the interface with its network.

    Raises:
        ValueError: it has another form; the message names the field.
    """
    if extra := was.keys() - {"model", "interface", "network"}:
        raise ValueError(f"Object contains unknown field `{min(extra)}`")
    if "model" in was and len(was) > 1:
        raise ValueError("`model` stands alone")
    _convert(was.get("model"), _Model, "model")
    if "interface" not in was and "network" in was:
        raise ValueError("`network` needs `interface`")
    for field, kind in (("interface", _Interface), ("network", _Network)):
        # An interface without a network has an empty one.
        if (entry := was.get(field, {})) != {} or (field == "interface" and field in was):
            _convert(entry, kind, field)
            if entry["name"] != name:
                raise ValueError(f"{field}.name is not the NIC's name")


def find_unrecordable(interfaces: Sequence[Interface], networks: Sequence[Network]) -> str:
    """Return which part of a VM's NICs a record could not keep, if any.

    Without a record that can be read again, a change could not be undone.
    """
    entries = [("interface", _Interface, one) for one in interfaces] + [("network", _Network, one) for one in networks]
    for field, kind, one in entries:
        try:
            msgspec.convert(msgspec.to_builtins(one), kind)
        except ValueError as error:
            return f"{field} {one.name} has fields that vmnic cannot restore: {error}"[:300]
    # The sum is for all NICs, changed or not, so that no later change exceeds the limit.
    size = len(msgspec.json.encode((interfaces, networks))) + _OVERHEAD_BYTES * len(interfaces)
    if size > MAX_RECORD_BYTES:
        return f"its NICs take {size} bytes to record, and at most {MAX_RECORD_BYTES} are kept: shorten their ports"
    return ""


def _convert(value: Any, kind: Any, field: str) -> None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{field}: {error}") from None
