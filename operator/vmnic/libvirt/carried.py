"""Elements of a libvirt interface that a change of datapath may lose."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lxml import etree

from ..policy.facts import Datapath, NicSetting

__all__ = ["OF_LINK", "OF_TAP", "SHARED_BANDWIDTH", "TRUST", "interface_settings", "is_trunk", "lost_address"]

TRUST = "trustGuestRxFilters"
"""Attribute of an interface that lets the guest change MAC address and filters of its macvtap link."""
OF_LINK = ("ip", "route", "portForward", "backenddomain")
"""Children that libvirt refuses for macvtap and host devices."""
OF_TAP = ("tune", "coalesce", "guest", "script", "downscript")
"""Children that libvirt applies to a tap device of the host. macvtap and host devices lose them, and the plan tells so."""

_MACVTAP, _SRIOV, _WHOLE = Datapath.MACVTAP, Datapath.SRIOV, Datapath.PASSTHROUGH
_DEVICES = frozenset({_SRIOV, _WHOLE})
_ALL = frozenset(Datapath)
SHARED_BANDWIDTH = NicSetting(name="bandwidth", lost_on=_DEVICES | {_MACVTAP})
"""Limit of the traffic of all NICs of a network together, which only the network's bridge applies."""
_DRIVER_OF_DATAPATH = frozenset({"name", "queues"})
"""Attributes of `<driver>` that a datapath consists of."""
_LOST_ADDRESSES: Mapping[str, frozenset[Datapath]] = {
    "pci": frozenset(),
    # Virtio devices may have these, and host devices and emulated models may not.
    "ccw": _DEVICES | {Datapath.EMULATED},
    "virtio-mmio": _DEVICES | {Datapath.EMULATED},
}
"""Datapaths that an address of each type excludes. Any other type belongs to the present model."""


def interface_settings(element: etree._Element) -> Mapping[str, NicSetting]:
    """Return what an interface has besides its datapath, by name, if it differs from the default."""
    found = [one for read in _READERS if (one := read(element)) is not None]
    # libvirt refuses what sets addresses, forwards ports or names a backend on these datapaths.
    found += [NicSetting(name=name, lost_on=_DEVICES | {_MACVTAP}) for name in OF_LINK if element.find(name) is not None]
    found += [NicSetting(name=name, told_on=_DEVICES | {_MACVTAP}) for name in OF_TAP if element.find(name) is not None]
    return {one.name: one for one in found}


def is_trunk(element: etree._Element) -> bool:
    """Return whether an interface carries several VLANs, which libvirt gives to Open vSwitch only."""
    vlan = element.find("vlan")
    if vlan is None:
        return False
    tags = vlan.findall("tag")
    return vlan.get("trunk") == "yes" or len(tags) > 1 or any(tag.get("nativeMode") for tag in tags)


def lost_address(element: etree._Element, datapath: Datapath) -> bool:
    """Return whether a datapath cannot have the address that the interface has in the guest."""
    setting = _address(element)
    return setting is not None and datapath in setting.lost_on


def _filter(element: etree._Element) -> NicSetting | None:
    # libvirt applies filters to tap devices of the types network, bridge and ethernet only.
    return None if element.find("filterref") is None else NicSetting(name="filterref", lost_on=_DEVICES | {_MACVTAP})


def _bandwidth(element: etree._Element) -> NicSetting | None:
    limits = element.iterfind("bandwidth/*")
    return NicSetting(name="bandwidth", lost_on=_DEVICES) if any(limit.attrib for limit in limits) else None


def _vlan(element: etree._Element) -> NicSetting | None:
    if element.find("vlan/tag") is None:
        return None
    # A VF has one VLAN, and macvtap none. For a whole NIC the switch has to add it.
    if is_trunk(element):
        return NicSetting(name="vlan", lost_on=_DEVICES | {_MACVTAP})
    return NicSetting(name="vlan", lost_on=frozenset({_MACVTAP}), told_on=frozenset({_WHOLE}))


def _isolated(element: etree._Element) -> NicSetting | None:
    port = element.find("port")
    is_on = port is not None and port.get("isolated") == "yes"
    return NicSetting(name="port", lost_on=_DEVICES | {_MACVTAP}) if is_on else None


def _link(element: etree._Element) -> NicSetting | None:
    link = element.find("link")
    return NicSetting(name="link", lost_on=_DEVICES) if link is not None and link.get("state") == "down" else None


def _address(element: etree._Element) -> NicSetting | None:
    address = element.find("address")
    if address is None:
        return None
    lost = _LOST_ADDRESSES.get(address.get("type", ""), _ALL)
    return NicSetting(name="address", lost_on=lost) if lost else None


def _mac(element: etree._Element) -> NicSetting | None:
    return None if element.find("mac") is None else NicSetting(name="mac", told_on=frozenset({_WHOLE}))


def _driver(element: etree._Element) -> NicSetting | None:
    driver = element.find("driver")
    if driver is None or not (len(driver) or set(driver.attrib) - _DRIVER_OF_DATAPATH):
        return None
    # Rings, offloads and the like are settings of virtio.
    return NicSetting(name="driver", told_on=_DEVICES | {Datapath.EMULATED})


def _rom(element: etree._Element) -> NicSetting | None:
    rom = element.find("rom")
    # The file holds firmware for the present model. Whether the device shows a ROM at all is carried.
    if rom is None or not rom.get("file"):
        return None
    return NicSetting(name="rom", told_on=_DEVICES | {Datapath.EMULATED})


def _trust(element: etree._Element) -> NicSetting | None:
    return NicSetting(name=TRUST, told_on=_DEVICES) if element.get(TRUST) == "yes" else None


_READERS: tuple[Callable[[etree._Element], NicSetting | None], ...] = (
    *(_filter, _bandwidth, _vlan, _isolated, _link, _address, _mac, _driver, _rom, _trust),
)
