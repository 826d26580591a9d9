"""A change of a domain's NIC loses no element of its interface silently."""

import pathlib

import pytest
from lxml import etree

from tests.unit.libvirt.schema import INSTALLED, schema_names
from tests.unit.libvirt.test_domains import decided, wanting
from vmnic.policy.guest_view import guest_view, uncarried_settings

TARGETS = ["emulated", "vhost", "macvtap", "sriov", "passthrough"]
VIRTIO = ["sriov", "passthrough", "emulated"]
TRUNK = "<vlan><tag id='7'/><tag id='8'/></vlan>"
NATIVE = "<vlan><tag id='7' nativeMode='tagged'/></vlan>"
LIMIT = "<bandwidth><inbound average='1000'/></bandwidth>"

CASES = [
    ("<filterref filter='clean-traffic'/>", "filterref", ["macvtap", "sriov", "passthrough"], []),
    (LIMIT, "bandwidth", ["sriov", "passthrough"], []),
    ("<bandwidth/>", "bandwidth", [], []),
    ("<bandwidth><outbound/></bandwidth>", "bandwidth", [], []),
    (TRUNK, "vlan", ["macvtap", "sriov", "passthrough"], []),
    (NATIVE, "vlan", ["macvtap", "sriov", "passthrough"], []),
    ("<vlan><tag id='7'/></vlan>", "vlan", ["macvtap"], ["passthrough"]),
    ("<vlan/>", "vlan", [], []),
    ("<port isolated='yes'/>", "port", ["macvtap", "sriov", "passthrough"], []),
    ("<port isolated='no'/>", "port", [], []),
    ("<link state='down'/>", "link", ["sriov", "passthrough"], []),
    ("<link state='up'/>", "link", [], []),
    ("<address type='ccw' cssid='0xfe'/>", "address", VIRTIO, []),
    ("<address type='virtio-mmio'/>", "address", VIRTIO, []),
    ("<address type='spapr-vio' reg='0x1000'/>", "address", [*VIRTIO, "macvtap", "vhost"], []),
    ("<address type='pci' bus='0x01'/>", "address", [], []),
    ("<mac address='52:54:00:00:00:01'/>", "mac", [], ["passthrough"]),
    ("<boot order='1'/>", "boot", [], []),
]


OS = "<metadata><os xmlns='http://libosinfo.org/xmlns/libvirt/domain/1.0' id='http://debian.org/debian/13'/></metadata>"


def change(children, datapath, **spec):
    """Decide and rewrite a domain whose NIC has these children."""
    # A NIC that is virtio already would not change to vhost.
    model = "e1000e" if datapath == "vhost" else "virtio"
    source = "" if "<source" in children else "<source bridge='br0'/>"
    nic = f"<interface type='bridge'>{source}<model type='{model}'/>{children}</interface>"
    text = f"<domain>{OS}<name>d</name><devices>{nic}</devices></domain>"
    return decided(text, wanting(datapath, liveMigration="NotNeeded", **spec))


@pytest.mark.parametrize("datapath", TARGETS)
@pytest.mark.parametrize(("children", "name", "lost_on", "told_on"), CASES, ids=lambda value: str(value)[:40])
def test_each_element_is_carried_reported_or_excludes(children, name, lost_on, told_on, datapath):
    found, _ = change(children, datapath)
    nic = found.nics[0]
    assert (nic.reason == "PropertyNotCarried") == (datapath in lost_on)
    assert (name in uncarried_settings(nic)) == (datapath in told_on)
    if datapath in lost_on:
        accepted, after = change(children, datapath, accept=[f"PropertyNotCarried/{name}"])
        assert accepted.nics[0].reason is None
        assert etree.fromstring(after).find(f"devices/*/{name}") is None


@pytest.mark.parametrize(
    ("children", "expected"),
    [("<address type='pci' bus='0x01' slot='0x00'/>", "Same"), ("", "MayChange")],
    ids=["slot", "none"],
)
@pytest.mark.parametrize("datapath", ["sriov", "passthrough"])
def test_a_function_keeps_the_slot_that_the_domain_names(children, expected, datapath):
    found, _ = change(children, datapath)
    assert guest_view(found, found.nics[0]).interface_name == expected


NAMES = (pathlib.Path(__file__).parent / "interface-schema.txt").read_text().split()
SOURCES = ("source", "target", "alias", "backend", "virtualport")
"""Children that belong to the source, for which the segment vouches."""
DATAPATH = ("@type", "@managed", "model", "model@type", "driver", "driver@name", "driver@queues")
"""What the datapath itself consists of."""
SAMPLES = {
    "link@state": "down",
    "port@isolated": "yes",
    "@trustGuestRxFilters": "yes",
    "mac@address": "52:54:00:00:00:01",
    "mtu@size": "1400",
}

NEEDED = {"vlan@trunk": "vlan/tag@id", "bandwidth@classID": "bandwidth/inbound@average"}
"""What else an attribute needs to mean something."""


def interface_with(path):
    """Return an interface that has an element or attribute of the schema."""
    nic = etree.fromstring("<interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>")
    for one in filter(None, (path, NEEDED.get(path))):
        place, _, attribute = one.partition("@")
        at = nic
        for name in filter(None, place.split("/")):
            found = at.find(name)
            at = found if found is not None else etree.SubElement(at, name)
        if attribute:
            at.set(attribute, SAMPLES.get(one, "7"))
    return nic


def has(nic, path):
    place, _, attribute = path.partition("@")
    found = nic if not place else nic.find(place)
    return found is not None and (not attribute or found.get(attribute) is not None)


def is_judged(path):
    # An element that the schema gives attributes or children means nothing without them.
    is_bare = any(name.startswith((f"{path}@", f"{path}/")) for name in NAMES)
    return path.partition("@")[0].split("/")[0] not in SOURCES and path not in DATAPATH and not is_bare


@pytest.mark.parametrize("datapath", TARGETS)
def test_no_name_of_the_schema_is_lost_silently(datapath):
    silent = []
    for path in filter(is_judged, NAMES):
        nic = interface_with(path)
        if datapath == "vhost":
            nic.find("model").set("type", "e1000e")
        text = f"<domain>{OS}<name>d</name><devices>{etree.tostring(nic, encoding='unicode')}</devices></domain>"
        found, after = decided(text, wanting(datapath, liveMigration="NotNeeded"))
        decision = found.nics[0]
        if decision.verdict == "Blocked":
            assert decision.reason in ("PropertyNotCarried", "GuestMtuChanges", "FailoverPair")
            continue
        child = path.partition("@")[0].split("/")[0] or path[1:]
        told = child in uncarried_settings(decision)
        if not told and not has(etree.fromstring(after).find("devices/*"), path):
            silent.append(path)
    assert silent == []


def test_the_list_of_names_is_that_of_the_schema(tmp_path):
    lines = [
        "<grammar xmlns='http://relaxng.org/ns/structure/1.0'><define name='interface'><element name='interface'>",
        "<optional><attribute name='managed'/></optional><ref name='link'/></element></define>",
        "<define name='link'><element name='link'><attribute name='state'/><ref name='link'/></element></define></grammar>",
    ]
    schema = tmp_path / "a.rng"
    schema.write_text("".join(lines))
    schemas = [schema, *([INSTALLED] if INSTALLED.exists() else [])]
    assert [schema_names(one) - set(NAMES) for one in schemas] == [set()] * len(schemas)
    assert schema_names(schema) == {"@managed", "link", "link@state"}
