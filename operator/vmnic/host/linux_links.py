"""The Linux adapter for network links.

It uses rtnetlink and ethtool through pyroute2, which is imported at first use. Two pitfalls of pyroute2: `vf=` changes the
caller's dict, and the struct of the VLAN list is two bytes short.
"""

from __future__ import annotations

import errno
import pathlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..checked.devices import is_pci_address
from .gateway import LEARNT_ADDRESS, LINK_SCOPE, check_gateway
from .ops import (
    Channels,
    CheckGateway,
    LinkInfo,
    Op,
    ReadChannels,
    ReadEswitchMode,
    ReadLinks,
    ReadUnicast,
    ReadVfs,
    SetChannels,
    SetLink,
    SetVf,
    Value,
    VfInfo,
)
from .raw_netlink import read_eswitch_mode, read_unicast_filter
from .routes import default_hops

__all__ = ["LinuxLinks", "pci_function_of"]

_IFF_UP = 1
_WITH_VFS = 1
"""RTEXT_FILTER_VF: the reply includes VF attributes."""
_WITHOUT_STATISTICS = 8
"""RTEXT_FILTER_SKIP_STATS: the attributes of a VF do not include its statistics, which take most of the room."""
_TYPES = {1: "ether", 32: "infiniband"}
"""ARPHRD_* of linux/if_arp.h."""
_NOT_REPORTED = 0xFFFFFFFF
"""The kernel fills a flag of a VF with ones, and the driver overwrites it if it has the attribute (rtnl_fill_vfinfo)."""
_LINK_STATE = {"auto": 0, "enable": 1, "disable": 2}
_LINK_STATES = {number: name for name, number in _LINK_STATE.items()}
_ETHERTYPE = {"802.1q": 0x8100, "802.1ad": 0x88A8}
_PROTOCOLS = {number: name for name, number in _ETHERTYPE.items()}


class LinuxLinks:
    """Reads and sets links of this process's network namespace."""

    def __init__(self) -> None:
        self._netlink: Any = None

    def perform(self, op: Op) -> Value:
        """Perform an operation on links.

        Raises:
            OSError: The kernel refused, with ENODEV for an unknown link.
        """
        from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - slow to import

        try:
            return self._perform(op)
        except NetlinkError as error:
            raise OSError(error.code, f"{op}: {error.args[1] if len(error.args) > 1 else error}") from error

    def _perform(self, op: Op) -> Value:
        match op:
            case ReadLinks():
                return self._read()
            case ReadVfs(name):
                return self._read_vfs(name)
            case ReadUnicast(name):
                return read_unicast_filter(_index(name))
            case ReadEswitchMode(pci_address):
                return read_eswitch_mode(pci_address)
            case CheckGateway(self_enabled_links):
                return check_gateway(self._route(), self_enabled_links)
            case SetLink(name=name, up=up, mtu=mtu):
                wanted: dict[str, Any] = {} if up is None else {"state": "up" if up else "down"}
                wanted |= {} if mtu is None else {"mtu": mtu}
                self._route().link("set", index=_index(name), **wanted)
                return None
            case SetVf():
                self._route().link("set", index=_index(op.name), vf=_vf_attributes(op))
                return None
            case ReadChannels(name):
                return _read_channels(name)
            case SetChannels(name, combined):
                _set_channels(name, combined)
                return None
        raise OSError(errno.ENOSYS, f"no operation on links: {op}")

    def _route(self) -> Any:
        if self._netlink is None:
            from pyroute2 import IPRoute  # noqa: PLC0415 - slow to import

            # Each child opens its own socket after the fork. A shared one would mix up answers to two children.
            self._netlink = IPRoute()
        return self._netlink

    def _read(self) -> tuple[LinkInfo, ...]:
        route = self._route()
        uses = _Uses()
        for message in route.get_addr():
            if message["scope"] != LINK_SCOPE:
                kept = uses.learnt if message.get_attr("IFA_PROTO") == LEARNT_ADDRESS else uses.addresses
                kept.setdefault(message["index"], []).append(f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}")
        for hop in default_hops(route):
            (uses.learnt_routes if hop.learnt else uses.routes).add(hop.link)
        return tuple(_link(message, uses) for message in route.link("dump", ext_mask=_WITHOUT_STATISTICS))

    def _read_vfs(self, name: str) -> tuple[VfInfo, ...]:
        index = _index(name)
        (message,) = self._route().link("get", index=index, ext_mask=_WITH_VFS | _WITHOUT_STATISTICS)
        return _vfs(message)


def _index(name: str) -> int:
    """Return the index of a link by its name.

    pyroute2 would read a dump of all links for it.
    """
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise OSError(errno.ENODEV, f"no link is called {name}") from error


@dataclass
class _Uses:
    """What links are used for, by link index."""

    addresses: dict[int, list[str]] = field(default_factory=dict)
    learnt: dict[int, list[str]] = field(default_factory=dict)
    routes: set[int] = field(default_factory=set)
    learnt_routes: set[int] = field(default_factory=set)


def _link(message: Any, uses: _Uses) -> LinkInfo:
    names = message.get_attr("IFLA_PROP_LIST")
    kind = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
    # Every pod has a veth pair. The index of its end in the pod's namespace may be that of a NIC here.
    # The parent of a virtio link is `virtio0` on the virtio bus, which is no PCI address.
    carrier = message.get_attr("IFLA_CARRIER")
    on_pci = message.get_attr("IFLA_PARENT_DEV_BUS_NAME") == "pci"
    return LinkInfo(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        alt_names=tuple(names.get_attrs("IFLA_ALT_IFNAME")) if names else (),
        type=_TYPES.get(message["ifi_type"], str(message["ifi_type"])),
        mac=message.get_attr("IFLA_ADDRESS"),
        permanent_mac=_mac(message.get_attr("IFLA_PERM_ADDRESS")),
        mtu=message.get_attr("IFLA_MTU"),
        up=bool(message["flags"] & _IFF_UP),
        carrier=bool(carrier) if carrier is not None else None,
        promiscuity=message.get_attr("IFLA_PROMISCUITY") or 0,
        phys_port_name=message.get_attr("IFLA_PHYS_PORT_NAME") or "",
        phys_switch_id=(message.get_attr("IFLA_PHYS_SWITCH_ID") or "").replace(":", ""),
        kind=kind or "",
        master=message.get_attr("IFLA_MASTER"),
        lower=message.get_attr("IFLA_LINK") if message.get_attr("IFLA_LINK_NETNSID") is None else None,
        pci_address=message.get_attr("IFLA_PARENT_DEV_NAME") if on_pci else _virtio_parent(message),
        addresses=tuple(uses.addresses.get(message["index"], ())),
        default_route=message["index"] in uses.routes,
        learnt=tuple(uses.learnt.get(message["index"], ())),
        learnt_route=message["index"] in uses.learnt_routes,
    )


def _mac(text: str | None) -> str | None:
    """Return an address of the NIC, which pyroute2 gives as hexadecimal digits with colons."""
    return text.lower() if text else None


def _virtio_parent(message: Any) -> str | None:
    """Return the address of the PCI function of a virtio link, or None if it has none."""
    bus, name = message.get_attr("IFLA_PARENT_DEV_BUS_NAME"), message.get_attr("IFLA_PARENT_DEV_NAME")
    return pci_function_of(pathlib.Path("/sys/bus/virtio/devices") / name) if bus == "virtio" and name else None


def pci_function_of(device: pathlib.Path) -> str | None:
    """Return the address of the PCI function that a device belongs to, or None if it belongs to none."""
    parent = device.resolve().parent.name
    return parent if is_pci_address(parent) else None


def _vfs(message: Any) -> tuple[VfInfo, ...]:
    listed = message.get_attr("IFLA_VFINFO_LIST")
    if not listed:
        return ()
    return tuple(_vf(info) for info in listed.get_attrs("IFLA_VF_INFO"))


def _vf(info: Any) -> VfInfo:
    vlan = info.get_attr("IFLA_VF_VLAN")
    tags = info.get_attr("IFLA_VF_VLAN_LIST")
    tag = tags.get_attr("IFLA_VF_VLAN_INFO") if tags else None
    state = info.get_attr("IFLA_VF_LINK_STATE")
    rate = info.get_attr("IFLA_VF_RATE")
    return VfInfo(
        vf=info.get_attr("IFLA_VF_MAC")["vf"],
        mac=info.get_attr("IFLA_VF_MAC")["mac"],
        vlan=vlan["vlan"] if vlan else None,
        qos=vlan["qos"] if vlan else None,
        vlan_protocol=_PROTOCOLS.get(tag["proto"]) if tag else None,  # type: ignore[arg-type]
        spoof_check=_flag(info.get_attr("IFLA_VF_SPOOFCHK"), "spoofchk"),
        trust=_flag(info.get_attr("IFLA_VF_TRUST"), "trust"),
        link_state=_LINK_STATES.get(state["link_state"]) if state else None,  # type: ignore[arg-type]
        min_tx_rate_mbit=rate["min_tx_rate"] if rate else None,
        max_tx_rate_mbit=rate["max_tx_rate"] if rate else None,
    )


def _flag(attribute: Any, name: str) -> bool | None:
    """Return a flag of a VF, or None if the driver or the kernel does not report it."""
    if attribute is None or attribute[name] == _NOT_REPORTED:
        return None
    return bool(attribute[name])


def _vf_attributes(op: SetVf) -> dict[str, Any]:
    """Build a VF's attributes in the form that pyroute2 takes."""
    made: dict[str, Any] = {"vf": op.vf}
    if op.mac is not None:
        made["mac"] = op.mac
    if op.vlan is not None and op.vlan_protocol is None:
        # IFLA_VF_VLAN has no protocol. pyroute2 sends it for a dict, and IFLA_VF_VLAN_LIST with the protocol for a list.
        made["vlan"] = {"vlan": op.vlan, "qos": op.qos or 0}
    elif op.vlan is not None:
        made["vlan"] = [_vlan_with_protocol(op)]
    if op.spoof_check is not None:
        made["spoofchk"] = int(op.spoof_check)
    if op.trust is not None:
        made["trust"] = int(op.trust)
    if op.link_state is not None:
        made["link_state"] = _LINK_STATE[op.link_state]
    if op.min_tx_rate_mbit is not None or op.max_tx_rate_mbit is not None:
        # IFLA_VF_RATE always has both rates, and 0 means no limit.
        made["rate"] = {"min_tx_rate": op.min_tx_rate_mbit or 0, "max_tx_rate": op.max_tx_rate_mbit or 0}
    return made


def _vlan_with_protocol(op: SetVf) -> dict[str, Any]:
    """Build a VLAN entry with its protocol.

    The kernel's struct ifla_vf_vlan_info has 16 bytes, pyroute2's has 14, so it is padded once.
    """
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfbase  # noqa: PLC0415 - slow to import

    info = ifinfbase.vflist.vfinfo.vf_vlist.ivvi
    if ("pad", "H") not in info.fields:
        info.fields = (*info.fields, ("pad", "H"))
    protocol = _ETHERTYPE[op.vlan_protocol or "802.1q"]
    return {"vf": op.vf, "vlan": op.vlan, "qos": op.qos or 0, "proto": protocol, "pad": 0}


def _read_channels(name: str) -> Channels:
    found = _ethtool(name, lambda program: program.get_channels())
    return Channels(combined=found.combined_count, max_combined=found.max_combined)


def _set_channels(name: str, combined: int) -> None:
    def change(program: Any) -> None:
        # ETHTOOL_SCHANNELS sets rx, tx and other channels too, so they keep the values that were read.
        channels = program.get_channels()
        channels.combined_count = combined
        program.set_channels(channels)

    _ethtool(name, change)


def _ethtool(name: str, call: Callable[[Any], Any]) -> Any:
    """Run an ethtool ioctl, and raise the kernel's errno instead of pyroute2's own exceptions."""
    from pyroute2.ethtool.ioctl import IoctlEthtool, NoSuchDevice, NotSupportedError  # noqa: PLC0415 - slow to import

    program = IoctlEthtool(name)
    try:
        return call(program)
    except NotSupportedError as error:
        raise OSError(errno.EOPNOTSUPP, f"{name} has no channels to set") from error
    except NoSuchDevice as error:
        raise OSError(errno.ENODEV, f"no link is called {name}") from error
    finally:
        program.close()
