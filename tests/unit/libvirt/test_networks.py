"""A NIC on a network of libvirt is what that network says."""

import pytest
from lxml import etree

from tests.unit.libvirt.test_carried import LIMIT, OS
from tests.unit.libvirt.test_domains import decided, wanting
from vmnic.cli.objects import MalformedObjectError, Objects
from vmnic.libvirt.domain import read_domain
from vmnic.libvirt.gather import gather_domain
from vmnic.libvirt.network import read_libvirt_network
from vmnic.policy.guest_view import guest_view, uncarried_settings

BRIDGE = "<forward mode='bridge'/><bridge name='br0'/>"
TAG = "<vlan><tag id='130'/></vlan>"
OTHER_TAG = "<vlan><tag id='7'/></vlan>"
TRUNK = "<vlan trunk='yes'><tag id='7'/><tag id='8'/></vlan>"


def network(children):
    return {"lan": read_libvirt_network(etree.fromstring(f"<network><name>lan</name>{children}</network>"))}


def domain(children="", source=""):
    nic = f"<interface type='network'><source network='lan' {source}/><model type='virtio'/>{children}</interface>"
    return f"<domain>{OS}<name>d</name><devices>{nic}</devices></domain>"


def change(networks, datapath, text=None, **spec):
    found, after = decided(text or domain(), wanting(datapath, liveMigration="NotNeeded", **spec), networks=networks)
    return found, etree.fromstring(after).find("devices/*")


@pytest.mark.parametrize(
    ("children", "datapath"),
    [
        ("", "vhost"),
        ("<forward/>", "vhost"),
        ("<forward mode='nat'/>", "vhost"),
        ("<forward mode='route'/>", "vhost"),
        ("<forward mode='open'/>", "vhost"),
        (BRIDGE, "vhost"),
        ("<forward mode='bridge'><interface dev='ens1f0'/></forward>", "macvtap"),
        ("<forward mode='bridge' dev='ens1f0'/>", "macvtap"),
        ("<forward mode='private'><interface dev='ens1f0'/></forward>", "macvtap"),
        ("<forward mode='vepa'><interface dev='ens1f0'/></forward>", "macvtap"),
        ("<forward mode='passthrough'><interface dev='ens1f0'/></forward>", "macvtap"),
        ("<forward mode='hostdev' managed='yes'><pf dev='ens1f0'/></forward>", "sriov"),
    ],
)
def test_the_forward_mode_is_the_datapath(children, datapath):
    (nic,) = gather_domain(read_domain(domain()), networks=network(children)).nics
    assert nic.present.datapath == datapath


@pytest.mark.parametrize("datapath", ["emulated", "virtio", "vhost", "macvtap", "sriov", "passthrough"])
@pytest.mark.parametrize(
    ("networks", "source", "words"),
    [({}, "", "network lan is not given"), (network(BRIDGE), "portgroup='staff'", "network lan has no portgroup staff")],
    ids=["network", "portgroup"],
)
def test_a_nic_on_an_unknown_network_stays(networks, source, words, datapath):
    text = domain(source=source)
    found, after = decided(text, wanting(datapath), networks=networks)
    (nic,) = found.nics
    assert (nic.verdict, nic.reason, after) == ("Blocked", "InputUnreadable", text)
    assert words in nic.message


@pytest.mark.parametrize(("datapath", "expected"), [("sriov", "Compliant"), ("vhost", "Blocked"), ("emulated", "Blocked")])
def test_a_vf_that_a_network_gives_stays(datapath, expected):
    found, after = change(network("<forward mode='hostdev'><pf dev='ens1f0'/></forward>"), datapath)
    assert (found.nics[0].verdict, after.get("type")) == (expected, "network")


CASES = [
    (BRIDGE, "", [], None),
    (BRIDGE + TAG, "", ["macvtap"], "130"),
    (BRIDGE + TRUNK, "", ["macvtap", "sriov", "passthrough"], None),
    (BRIDGE + f"<portgroup name='a' default='yes'>{TAG}</portgroup>", "", ["macvtap"], "130"),
    (BRIDGE + f"<portgroup name='a'>{TAG}</portgroup>", "", [], None),
    (BRIDGE + OTHER_TAG + f"<portgroup name='a'>{TAG}</portgroup>", "portgroup='a'", ["macvtap"], "130"),
    (BRIDGE + f"<portgroup name='a'>{LIMIT}</portgroup>", "portgroup='a'", ["sriov", "passthrough"], None),
    (BRIDGE + LIMIT, "", ["macvtap", "sriov", "passthrough"], None),
    (BRIDGE + "<port isolated='yes'/>", "", ["macvtap", "sriov", "passthrough"], None),
]


@pytest.mark.parametrize("datapath", ["emulated", "macvtap", "sriov", "passthrough"])
@pytest.mark.parametrize(("children", "source", "lost_on", "tag"), CASES)
def test_what_a_network_sets_belongs_to_its_nics(children, source, lost_on, tag, datapath):
    found, nic = change(network(children), datapath, domain(source=source))
    assert (found.nics[0].reason == "PropertyNotCarried") == (datapath in lost_on)
    written = nic.find("vlan/tag")
    assert (None if written is None else written.get("id")) == (
        tag if datapath == "sriov" and not found.nics[0].reason else None
    )
    if datapath == "passthrough" and tag:
        assert "vlan" in uncarried_settings(found.nics[0])


def test_the_nics_own_vlan_has_precedence():
    _, nic = change(network(BRIDGE + TAG), "sriov", domain(OTHER_TAG))
    assert [tag.get("id") for tag in nic.findall("vlan/tag")] == ["7"]


def test_a_limit_of_the_portgroup_moves_with_the_nic():
    networks = network(BRIDGE + f"<portgroup name='a' default='yes' trustGuestRxFilters='yes'>{LIMIT}</portgroup>")
    _, nic = change(networks, "macvtap")
    assert (nic.find("bandwidth/inbound").get("average"), nic.get("trustGuestRxFilters")) == ("1000", "yes")


@pytest.mark.parametrize(("mtu", "reason"), [("9000", "GuestMtuChanges"), ("1500", None)])
def test_the_mtu_of_a_network_is_the_guests(mtu, reason):
    found, _ = change(network(f"{BRIDGE}<mtu size='{mtu}'/>"), "sriov")
    assert (found.nics[0].reason, guest_view(found, found.nics[0]).mtu[0]) == (reason, int(mtu))


def test_networks_are_read_beside_domains():
    objects = Objects()
    objects.add_xml(domain())
    objects.add_xml("<network><name>lan</name></network>")
    assert (list(objects.domains), list(objects.libvirt_networks)) == ([("", "d")], ["lan"])
    with pytest.raises(MalformedObjectError, match="given twice"):
        objects.add_xml("<network><name>lan</name></network>")
    with pytest.raises(MalformedObjectError, match="without a <name>"):
        objects.add_xml("<network/>")
