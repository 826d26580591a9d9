"""Links and VFs as the kernel reports them, decoded from the messages of pyroute2."""

import errno

import pytest

from vmnic.host.linux_links import LinuxLinks
from vmnic.host.ops import ReadLinks, ReadVfs, VfInfo

ONES = 0xFFFFFFFF
REPORTED = {
    "IFLA_VF_MAC": {"vf": 0, "mac": "02:00:00:00:00:01"},
    "IFLA_VF_VLAN": {"vf": 0, "vlan": 100, "qos": 3},
    "IFLA_VF_SPOOFCHK": {"vf": 0, "spoofchk": 1},
    "IFLA_VF_TRUST": {"vf": 0, "trust": 0},
    "IFLA_VF_LINK_STATE": {"vf": 0, "link_state": 2},
    "IFLA_VF_RATE": {"vf": 0, "min_tx_rate": 10, "max_tx_rate": 100},
}


class Message(dict):
    """A message of pyroute2, with its attributes by name."""

    def get_attr(self, name):
        return self.get(name)

    def get_attrs(self, name):
        return self.get(name, [])

    def get_nested(self, *names):
        return None


class Route:
    """A netlink socket with one link."""

    def __init__(self, **attributes):
        self.message = Message({"index": 7, "ifi_type": 1, "flags": 1, "IFLA_IFNAME": "ens1f0"} | attributes)
        self.masks = []

    def link(self, command, ext_mask, index=None):
        self.masks.append((command, ext_mask))
        return (self.message,)

    def get_addr(self):
        return ()

    def get_routes(self):
        return ()


@pytest.fixture
def links():
    return LinuxLinks()


def read_link(links, **attributes):
    links._netlink = Route(**attributes)
    return links.perform(ReadLinks())[0]


def read_vf(links, attributes):
    links._netlink = Route(IFLA_VFINFO_LIST=Message(IFLA_VF_INFO=[Message(attributes)]))
    return links.perform(ReadVfs("lo"))[0]


def test_all_attributes_of_a_vf_are_read(links):
    assert read_vf(links, REPORTED) == VfInfo(
        vf=0, mac="02:00:00:00:00:01", vlan=100, qos=3, spoof_check=True, trust=False, link_state="disable",
        min_tx_rate_mbit=10, max_tx_rate_mbit=100,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("attributes", "names"),
    [
        ({"IFLA_VF_SPOOFCHK": {"vf": 0, "spoofchk": ONES}}, {"spoof_check"}),
        ({"IFLA_VF_TRUST": {"vf": 0, "trust": ONES}}, {"trust"}),
        ({"IFLA_VF_TRUST": None}, {"trust"}),
        ({"IFLA_VF_RATE": None}, {"min_tx_rate_mbit", "max_tx_rate_mbit"}),
        ({"IFLA_VF_LINK_STATE": None}, {"link_state"}),
        ({"IFLA_VF_LINK_STATE": {"vf": 0, "link_state": 9}}, {"link_state"}),
        ({"IFLA_VF_VLAN": None}, {"vlan", "qos"}),
    ],
    ids=lambda part: ", ".join(sorted(part)),
)
def test_what_a_driver_does_not_report_is_unknown(links, attributes, names):
    found = read_vf(links, REPORTED | attributes)
    unknown = {name for name in VfInfo.__slots__ if getattr(found, name) is None} - {"vlan_protocol"}
    assert unknown == names


def test_vfs_are_read_without_statistics_and_links_without_vfs(links):
    read_vf(links, REPORTED)
    links.perform(ReadLinks())
    assert links._netlink.masks == [("get", 1 | 8), ("dump", 8)]


@pytest.mark.parametrize(("number", "word"), [(1, "ether"), (32, "infiniband"), (772, "772")])
def test_the_type_of_a_link_has_a_name(links, number, word):
    assert read_link(links, ifi_type=number).type == word


def test_what_the_kernel_does_not_tell_of_a_link_is_unknown(links):
    link = read_link(links)
    assert (link.mac, link.permanent_mac, link.mtu, link.carrier) == (None,) * 4
    assert (link.phys_port_name, link.phys_switch_id, link.promiscuity) == ("", "", 0)


def test_an_index_of_another_namespace_is_no_link_here(links):
    assert read_link(links, IFLA_LINK=2).lower == 2
    assert read_link(links, IFLA_LINK=2, IFLA_LINK_NETNSID=0).lower is None


def test_ports_and_addresses_of_a_link_are_read(links):
    link = read_link(
        links, IFLA_PHYS_PORT_NAME="pf0vf3", IFLA_PHYS_SWITCH_ID="b8:ce:f6", IFLA_PERM_ADDRESS="B8:CE:F6:00:00:01",
        IFLA_PROMISCUITY=1, IFLA_CARRIER=0,
    )  # fmt: skip
    assert (link.phys_port_name, link.phys_switch_id, link.permanent_mac) == ("pf0vf3", "b8cef6", "b8:ce:f6:00:00:01")
    assert (link.promiscuity, link.carrier) == (1, False)


def test_a_link_that_is_not_there_is_no_device(links):
    with pytest.raises(OSError, match="no link is called no-such-link") as refused:
        links.perform(ReadVfs("no-such-link"))
    assert refused.value.errno == errno.ENODEV
