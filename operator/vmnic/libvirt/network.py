"""Parser of the XML of libvirt's networks, which say what a NIC of the type `network` is."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lxml import etree

from ..checked.printable import cut
from ..policy.facts import Datapath
from ..policy.reasons import Reason
from .carried import TRUST
from .domain import DomainError

__all__ = [
    "LibvirtNetwork",
    "add_inherited",
    "find_fault",
    "inherited_parts",
    "network_of",
    "read_libvirt_network",
    "set_trust",
]

_MACVTAP_MODES = ("private", "vepa", "passthrough")
_INHERITED = ("vlan", "bandwidth", "port")
_SHOWN_CHARS = 64


@dataclass(frozen=True, slots=True)
class LibvirtNetwork:
    """A network that libvirt defines on a host."""

    name: str
    root: etree._Element

    @property
    def datapath(self) -> Datapath | None:
        """Return the datapath that it gives its NICs, or None if it connects tap devices to a bridge."""
        forward = self.root.find("forward")
        mode = forward.get("mode", "nat") if forward is not None else ""
        if mode == "hostdev":
            return Datapath.SRIOV
        # With the mode `bridge`, NICs use the bridge that the network names, or else macvtap on an interface of the host.
        is_macvtap = mode in _MACVTAP_MODES or (mode == "bridge" and self.root.find("bridge") is None)
        return Datapath.MACVTAP if is_macvtap else None

    @property
    def has_bandwidth(self) -> bool:
        """Return whether it limits the traffic of all its NICs together."""
        return any(limit.attrib for limit in self.root.iterfind("bandwidth/*"))

    def portgroup(self, name: str) -> etree._Element | None:
        """Return the portgroup of a name, or the default one for an empty name."""
        groups = self.root.iterfind("portgroup")
        return next((one for one in groups if (one.get("name") == name if name else one.get("default") == "yes")), None)


def read_libvirt_network(root: etree._Element) -> LibvirtNetwork:
    """Read the network of an element `network`.

    Raises:
        DomainError: it has no name.
    """
    name = (root.findtext("name") or "").strip()
    if not name:
        raise DomainError(f"line {root.sourceline}: <network> without a <name>: give what `virsh net-dumpxml` prints")
    return LibvirtNetwork(name, root)


def network_of(element: etree._Element, networks: Mapping[str, LibvirtNetwork]) -> LibvirtNetwork | None:
    """Return the network of an interface, or None if it is on none or the network is not given."""
    source = element.find("source")
    if element.get("type") != "network" or source is None:
        return None
    return networks.get(source.get("network", ""))


def find_fault(element: etree._Element, networks: Mapping[str, LibvirtNetwork]) -> tuple[Reason, str] | None:
    """Return why it is not known what an interface of the type `network` is, or None if it is known."""
    if element.tag != "interface" or element.get("type") != "network":
        return None
    source = element.find("source")
    name, group = (source.get("network", ""), source.get("portgroup", "")) if source is not None else ("", "")
    shown, network = cut(name, _SHOWN_CHARS), networks.get(name)
    if network is None:
        text = f"network {shown} is not given, and it says what the NIC is: add `virsh net-dumpxml --inactive {shown}`"
        return Reason.INPUT_UNREADABLE, text
    if group and network.portgroup(group) is None:
        text = f"network {shown} has no portgroup {cut(group, _SHOWN_CHARS)}: correct the NIC's source, or add the portgroup"
        return Reason.INPUT_UNREADABLE, text
    return None


def inherited_parts(element: etree._Element, network: LibvirtNetwork) -> Iterator[etree._Element]:
    """Yield copies of the elements that portgroup and network set for an interface without its own."""
    for place in _places(element, network):
        for tag in _INHERITED:
            part = place.find(tag)
            # The network's own bandwidth is that of all NICs together.
            is_shared = place is network.root and tag == "bandwidth"
            if part is not None and not is_shared and element.find(tag) is None:
                part = copy.deepcopy(part)
                part.tail = None
                yield part


def add_inherited(element: etree._Element, network: LibvirtNetwork) -> None:
    """Add to an interface all that its network and portgroup set for it."""
    for part in inherited_parts(element, network):
        element.append(part)
    mtu = network.root.find("mtu")
    if mtu is not None and element.find("mtu") is None:
        etree.SubElement(element, "mtu", {str(key): str(value) for key, value in mtu.attrib.items()})
    set_trust(element, network)


def set_trust(element: etree._Element, network: LibvirtNetwork) -> None:
    """Set whether the guest may change the filters of its link, as its portgroup or network says."""
    trust = next((one.get(TRUST, "") for one in (element, *_places(element, network)) if one.get(TRUST)), "")
    if trust:
        element.set(TRUST, trust)


def _places(element: etree._Element, network: LibvirtNetwork) -> Iterator[etree._Element]:
    """Yield the portgroup in use, if any, and the network. The first that sets something decides."""
    source = element.find("source")
    group = network.portgroup(source.get("portgroup", "") if source is not None else "")
    if group is not None:
        yield group
    yield network.root
