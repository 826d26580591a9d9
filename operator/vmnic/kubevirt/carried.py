"""Properties of KubeVirt's interfaces and of CNI configurations, and which datapaths keep them.

Each field of KubeVirt's schema and each key of the common CNI plugins is in exactly one table, and tests walk the schemas.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from ..checked.printable import cut, printable
from ..policy.facts import Datapath, NicSetting
from .vm import Interface

__all__ = [
    "CNI_HANDLED",
    "CNI_PROPERTIES",
    "CNI_VOUCHED",
    "INTERFACE_HANDLED",
    "INTERFACE_SETTINGS",
    "network_properties",
    "nic_settings",
]

_MACVTAP, _SRIOV, _WHOLE = Datapath.MACVTAP, Datapath.SRIOV, Datapath.PASSTHROUGH

INTERFACE_HANDLED = frozenset(
    {"name", "model", "bridge", "masquerade", "sriov", "slirp", "macvtap", "passt", "passtBinding", "binding"}
)
"""Fields of an interface that are the datapath itself."""
INTERFACE_SETTINGS: Mapping[str, NicSetting] = {
    one.name: one
    for one in (
        # KubeVirt passes a whole NIC as a host device, which has only a name, a resource and a tag.
        NicSetting(name="macAddress", told_on=frozenset({_WHOLE})),
        NicSetting(name="tag"),
        NicSetting(name="bootOrder", told_on=frozenset({_WHOLE})),
        NicSetting(name="pciAddress", told_on=frozenset({_WHOLE})),
        # Of a VF KubeVirt sets only PCI address and boot order (pkg/virt-launcher/.../device/hostdevice/sriov, 1.8).
        NicSetting(name="acpiIndex", told_on=frozenset({_SRIOV, _WHOLE})),
        # Ports select what masquerade forwards, and other bindings ignore them.
        NicSetting(name="ports", told_on=frozenset({_MACVTAP, _SRIOV, _WHOLE})),
        NicSetting(name="portRanges", told_on=frozenset({_MACVTAP, _SRIOV, _WHOLE})),
        # KubeVirt's DHCP server serves only bridge and masquerade.
        NicSetting(name="dhcpOptions", lost_on=frozenset({_MACVTAP, _SRIOV, _WHOLE})),
        # A host device has no link state, so its link would be up.
        NicSetting(name="state", lost_on=frozenset({_SRIOV, _WHOLE})),
    )
}
"""Settings of an interface. A datapath that is in none of the two sets carries them."""
_FIRST_BOOT = NicSetting(name="bootOrder", lost_on=frozenset({_WHOLE}))


def _is_on(value: Any) -> bool:
    return value not in (None, False, "", "off", "disable", 0, [], {})


def _is_not_auto(value: Any) -> bool:
    return _is_on(value) and value != "auto"


CNI_PROPERTIES: Mapping[str, Callable[[Any], bool]] = {
    "macspoofchk": _is_on,
    "spoofchk": _is_on,
    "trust": _is_on,
    "vlanTrunk": _is_on,
    "trunk": _is_on,
    "portIsolation": _is_on,
    "bandwidth": _is_on,
    "min_tx_rate": _is_on,
    "max_tx_rate": _is_on,
    "link_state": _is_not_auto,
    "isGateway": _is_on,
    "isDefaultGateway": _is_on,
    "forceAddress": _is_on,
    "ipMasq": _is_on,
    "promiscMode": _is_on,
    "hairpinMode": _is_on,
    "enabledad": _is_on,
    "disableContainerInterface": _is_on,
}
"""Keys of CNI plugins that protect or limit a NIC, each with the test that tells a set value from the default."""
CNI_HANDLED = frozenset(
    {
        # Identity and plumbing of the configuration itself.
        *(
            "cniVersion",
            "cniVersions",
            "name",
            "type",
            "plugins",
            "disableCheck",
            "disableGC",
            "loadOnlyInlinedPlugins",
            "args",
        ),
        *(
            "prevResult",
            "runtimeConfig",
            "capabilities",
            "dns",
            "logLevel",
            "logFile",
            "deviceID",
            "delegate",
            "netAttachDefName",
        ),
        # Checked by reasons of their own.
        *("mtu", "ipam"),
        # The source of the layer-2 network, which the label vmnic.dev/segment vouches for.
        *("bridge", "vlan", "vlanQoS", "vlanProto", "preserveDefaultVlan", "master", "mode", "linkInContainer", "topology"),
        *("physicalNetworkName", "vlanID", "resourceName", "device", "hwaddr", "kernelpath", "pciBusID", "dpdkMode"),
        # Details of how a plugin works that no guest sees.
        *("ipMasqBackend", "mac", "socket_file", "configuration_path", "interface_type", "ofport_request"),
        *("link_state_check_retries", "link_state_check_interval", "promisc", "optimize"),
    }
)
"""Keys of CNI plugins that are no properties of a NIC."""
CNI_VOUCHED = ("vlan", "vlanQoS", "vlanProto")
"""Keys that the segment, or the policy that names a pool of whole NICs, vouches for. A whole NIC leaves them to the switch."""
_NAME_BYTES = 63
_MEANINGLESS_CHAINED = frozenset({"portmap", "sbr", "vrf"})
"""Chained plugins that change the pod's own routes and ports, which a VM does not use."""


def nic_settings(interface: Interface, *, boots_first: bool, unknown: Iterable[str] = ()) -> Mapping[str, NicSetting]:
    """Return the settings of an interface that differ from their default.

    Args:
        interface: Entry of `domain.devices.interfaces`.
        boots_first: Whether the VM boots from this NIC first.
        unknown: Fields of a newer KubeVirt. A whole NIC replaces the entry, and with it these.
    """
    present = msgspec.to_builtins(interface)
    found = {name: setting for name, setting in INTERFACE_SETTINGS.items() if present.get(name) not in (None, "", [], {})}
    if present.get("state") in ("up", "absent"):
        del found["state"]
    if boots_first and "bootOrder" in found:
        found["bootOrder"] = _FIRST_BOOT
    return found | {name: NicSetting(name=name, lost_on=frozenset({_WHOLE})) for name in map(_shown, unknown)}


def network_properties(plugin: Mapping[str, Any], chained: list[dict[str, Any]]) -> dict[str, str]:
    """Return what a CNI configuration protects or limits, by name, as canonical JSON.

    A key or a chained plugin that is in no table counts as a property, because nothing shows that it may be lost.
    """
    found = {}
    for key, value in plugin.items():
        if key in CNI_HANDLED:
            continue
        if CNI_PROPERTIES.get(key, _is_on)(value):
            found[_shown(key)] = json.dumps(value, sort_keys=True)
    for one in chained:
        kind = one["type"]
        if kind in _MEANINGLESS_CHAINED:
            continue
        settings = {key: value for key, value in one.items() if key not in ("type", "capabilities", "name")}
        # A bandwidth plugin without rates, or with rates of 0, limits nothing by itself.
        if kind != "bandwidth" or any(map(_is_on, settings.values())):
            found[_shown(kind)] = json.dumps(settings, sort_keys=True)
    return found


def _shown(name: str) -> str:
    """Return a foreign name as messages show it. A longer or unprintable one cannot be accepted."""
    return cut(printable(name), _NAME_BYTES)
