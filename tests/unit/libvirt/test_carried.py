"""A change of a domain's NIC loses no element of its interface silently."""

import pytest
from lxml import etree

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
    ("<source network='lan' portgroup='staff'/>", "portgroup", ["macvtap", "sriov", "passthrough"], []),
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
