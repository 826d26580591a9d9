"""New XML of a domain from a decision.

Content that vmnic does not know is kept. Content that the new datapath cannot have is removed. The child elements that libvirt
refuses for an interface type come from its documentation (formatdomain, "Network interfaces").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from lxml import etree

from ..policy.facts import Datapath
from ..policy.guest_view import uncarried_settings
from ..policy.reasons import Reason
from ..policy.types import Action, NicDecision, Verdict, VmDecision
from .carried import OF_LINK, OF_TAP, TRUST, is_trunk, lost_address
from .domain import ALIAS, Domain
from .functions import FreeFunctions
from .gather import named_addresses
from .network import LibvirtNetwork, inherited_parts, network_of, set_trust

__all__ = ["grant_functions", "rewrite_domain"]

_TAP_ONLY = (*OF_LINK, *OF_TAP, "target", "mtu", "filterref", "backend", "virtualport", "port")
"""Children that apply to a tap device behind a bridge."""
_NIC_ONLY = (*_TAP_ONLY, "model", "driver", "bandwidth", "link", "source")
"""Children that apply to an emulated or virtio NIC."""
_LEAVING = (Datapath.MACVTAP, Datapath.SRIOV, Datapath.PASSTHROUGH)
"""Datapaths whose NICs are on no network of libvirt."""


def rewrite_domain(
    domain: Domain, decision: VmDecision, functions: FreeFunctions, networks: Mapping[str, LibvirtNetwork] | None = None
) -> str:
    """Return the new XML of a domain.

    It is the old XML if no NIC is to be patched.

    Args:
        domain: The present domain. It is not changed.
        decision: Decision about the domain.
        functions: Free VFs and whole NICs.
        networks: libvirt's networks by name. What they set for a NIC that leaves its network is written into its XML.
    """
    patched = {nic.nic.name: nic for nic in decision.nics if nic.action is Action.PATCH}
    if not patched:
        return domain.text
    made = domain.copied()
    taken = {resource: list(some) for resource, some in functions.granted.get(domain.name, {}).items()}
    # All names are read first, because they depend on tags and aliases, which a change replaces.
    for name, element in list(made.nics()):
        nic = patched.get(name)
        network = network_of(element, networks or {})
        if nic is not None and network is not None and nic.wanted.datapath in _LEAVING:
            for part in inherited_parts(element, network):
                _insert(element, part, after=("mac", "source", "vlan"))
            set_trust(element, network)
        if nic is not None:
            _rewrite(name, element, nic, taken, functions.vlans)
    return domain.declaration + etree.tostring(made.tree, encoding="unicode").rstrip("\n") + "\n"


def grant_functions(domain: Domain, decision: VmDecision, functions: FreeFunctions, host: str = "") -> VmDecision:
    """Take the functions that a domain's NICs are to get.

    Args:
        domain: The domain.
        decision: Decision about it.
        functions: Free VFs and whole NICs.
        host: The node that it is on; empty if that is not known.

    Returns:
        The decision, in which these NICs are blocked if no node has their functions.
    """
    moved = [nic for nic in decision.nics if nic.action is Action.PATCH and nic.wanted.datapath.needs_device]
    if not moved:
        return decision
    taken = functions.take(Counter(nic.wanted.resource for nic in moved), named_addresses(domain), host)
    if taken is not None:
        functions.granted[domain.name] = taken
        return decision
    wanted = ", ".join(sorted({nic.wanted.resource for nic in moved}))
    where = f"node {host} does not have" if host else "no given node has"
    count = f"{len(moved)} free {'function' if len(moved) == 1 else 'functions'}"
    text = f"{where} {count} of {wanted} with a known address"
    message = f"{text}: add `kubectl get nicst -o yaml`, or free a device"
    blocked = {
        nic.nic.name: replace(
            nic,
            verdict=Verdict.BLOCKED,
            action=None,
            wanted=nic.nic.present,
            network=None,
            reason=Reason.CANNOT_BE_WRITTEN,
            message=message,
        )
        for nic in moved
    }
    return replace(decision, nics=tuple(blocked.get(nic.nic.name, nic) for nic in decision.nics))


def _rewrite(
    name: str, element: etree._Element, nic: NicDecision, taken: dict[str, list[str]], vlans: Mapping[str, int]
) -> None:
    if nic.wanted.datapath is not nic.nic.present.datapath and lost_address(element, nic.wanted.datapath):
        _drop(element, ("address",))
    if "rom" in uncarried_settings(nic):
        _child(element, "rom").attrib.pop("file", "")
    match nic.wanted.datapath:
        case Datapath.SRIOV | Datapath.PASSTHROUGH:
            address = taken[nic.wanted.resource].pop(0)
            _as_function(name, element, address, whole=nic.wanted.datapath is Datapath.PASSTHROUGH)
            vlan = vlans.get(nic.wanted.resource)
            # libvirt sets the VF's VLAN at the start of the domain, to none if the XML names none.
            if nic.wanted.datapath is Datapath.SRIOV and vlan and element.find("vlan/tag") is None:
                _drop(element, ("vlan",))
                part = etree.Element("vlan")
                etree.SubElement(part, "tag", id=str(vlan))
                _insert(element, part, after=("mac", "source"))
        case Datapath.MACVTAP:
            _as_macvtap(element, nic)
        case _:
            _as_nic(element, nic)


def _as_nic(element: etree._Element, nic: NicDecision) -> None:
    """Set model and backend of an emulated, virtio or vhost NIC."""
    wanted = nic.wanted
    _child(element, "model").set("type", wanted.model or "virtio")
    if wanted.datapath is Datapath.EMULATED:
        # All attributes of <driver> apply to virtio only.
        _drop(element, ("driver",))
        return
    driver = _child(element, "driver")
    driver.set("name", "qemu" if wanted.datapath is Datapath.VIRTIO else "vhost")
    _set_queues(driver, wanted.queues if wanted.datapath is Datapath.VHOST else 1)


def _as_macvtap(element: etree._Element, nic: NicDecision) -> None:
    if nic.network is not None:
        element.set("type", "direct")
        # Only a VF's interface may have it.
        element.attrib.pop("managed", "")
        _drop(element, (*_TAP_ONLY, "vlan", "source"))
        source = etree.Element("source", dev=nic.network.name, mode="bridge")
        _insert(element, source, after=("mac",))
    _child(element, "model").set("type", nic.wanted.model or "virtio")
    driver = _child(element, "driver")
    driver.set("name", "vhost")
    _set_queues(driver, nic.wanted.queues)


def _as_function(name: str, element: etree._Element, address: str, *, whole: bool) -> None:
    """Turn a NIC into a VF with its MAC address and VLAN, or into a whole function without them."""
    _drop(element, _NIC_ONLY)
    element.attrib.pop(TRUST, "")
    if whole:
        _drop(element, ("mac", "vlan", "alias", "virtualport"))
        element.tag = "hostdev"
        # Attributes with a namespace belong to other programs and stay.
        for key in [key for key in element.attrib if not str(key).startswith("{")]:
            del element.attrib[key]
        # With `managed` libvirt gives the function to vfio-pci at the start, and back to its driver at the end.
        element.attrib.update({"mode": "subsystem", "type": "pci", "managed": "yes"})
        _insert(element, etree.Element("alias", name=f"{ALIAS}{name}"), after=())
    else:
        if is_trunk(element):
            _drop(element, ("vlan",))
        element.set("type", "hostdev")
        element.set("managed", "yes")
    source = etree.Element("source")
    domain, bus, rest = address.split(":")
    slot, function = rest.split(".")
    parts = {"domain": f"0x{domain}", "bus": f"0x{bus}", "slot": f"0x{slot}", "function": f"0x{function}"}
    # In libvirt's format the source of an interface names the type of its address, and that of a hostdev does not.
    etree.SubElement(source, "address", {"type": "pci", **parts} if not whole else parts)
    _insert(element, source, after=("mac",))


def _set_queues(driver: etree._Element, queues: int) -> None:
    if queues > 1:
        driver.set("queues", str(queues))
    else:
        driver.attrib.pop("queues", "")


def _child(element: etree._Element, tag: str) -> etree._Element:
    found = element.find(tag)
    if found is None:
        found = etree.Element(tag)
        _insert(element, found, after=("mac", "source", "target", "model"))
    return found


def _insert(element: etree._Element, child: etree._Element, *, after: tuple[str, ...]) -> None:
    """Insert a child after the last of some others, indented as its neighbours."""
    places = [index for index, other in enumerate(element) if other.tag in after]
    place = places[-1] + 1 if places else 0
    child.tail = _blank(element[place - 1].tail if place else element.text)
    if place and place == len(element) and _blank(element[place - 1].tail) is not None:
        # The last child's tail is the indent of the parent's end tag. The child before the new one is no longer the last.
        element[place - 1].tail = _blank(element.text)
    element.insert(place, child)


def _blank(text: str | None) -> str | None:
    """Return indentation, or None for other text, which must not be repeated."""
    return text if text is None or not text.strip() else None


def _drop(element: etree._Element, tags: tuple[str, ...]) -> None:
    for child in [child for child in element if child.tag in tags]:
        before = child.getprevious()
        tail = child.tail or ""
        # The last child's tail is the indent of the end tag. It and other text are kept.
        is_kept = child.getnext() is None or tail.strip()
        if is_kept and before is not None:
            before.tail = tail if not (before.tail or "").strip() else f"{before.tail}{tail}"
        elif is_kept:
            element.text = tail if not (element.text or "").strip() else f"{element.text}{tail}"
        element.remove(child)
