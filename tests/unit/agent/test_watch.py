"""What the kernel tells of its NICs, byte for byte; the kernel tier hears it from a kernel."""

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from vmnic.agent.watch import HostEvents, changed_link, is_pci_event

UEVENT = b"change@/devices/pci0000:00/0000:0b:00.0\0ACTION=change\0SUBSYSTEM=%s\0PCI_SLOT_NAME=0000:0b:00.0\0"


def link_message(kind, name):
    message = ifinfmsg()
    message["header"]["type"] = kind
    message["index"] = 7
    message["attrs"] = [("IFLA_MTU", 1500), ("IFLA_IFNAME", name)]
    message.encode()
    return bytes(message.data)


@pytest.mark.parametrize(("subsystem", "matters"), [(b"pci", True), (b"net", False), (b"pci_express", False)])
def test_only_events_of_pci_functions_matter(subsystem, matters):
    assert is_pci_event(UEVENT % subsystem) is matters


def test_a_datagram_names_the_links_that_changed():
    new, gone, other = link_message(16, "ens1f0"), link_message(17, "tap3"), link_message(24, "route")
    assert changed_link(new + gone + other) == {"ens1f0", "tap3"}


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 64, b"\x10\0\0\0\x10\0", b"\xff" * 40], ids=["nothing", "zeros", "a stub", "noise"]
)
def test_datagrams_that_make_no_sense_name_no_link(data):
    assert changed_link(data) == set()


async def test_listening_needs_no_right_and_ends():
    events = HostEvents(set, lambda: None)
    events.open()
    events.close()
    events.open()
    events.close()
