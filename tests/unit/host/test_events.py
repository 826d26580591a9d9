"""The kernel's messages byte for byte. The kernel tier receives them from a kernel."""

import contextlib

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from vmnic.host.events import HostEvent, KernelEvents, link_events, pci_events

UEVENT = b"bind@/devices/pci0000:00/0000:0b:10.0\0ACTION=bind\0SUBSYSTEM=%s\0PCI_SLOT_NAME=0000:0b:10.0\0SEQNUM=7\0"


def link_message(kind, name, parent=None):
    message = ifinfmsg()
    message["header"]["type"] = kind
    message["index"] = 7
    message["attrs"] = [("IFLA_MTU", 1500), ("IFLA_IFNAME", name), *([("IFLA_PARENT_DEV_NAME", parent)] if parent else [])]
    message.encode()
    return bytes(message.data)


@pytest.mark.parametrize(
    ("subsystem", "told"),
    [(b"pci", [HostEvent(what="bind", address="0000:0b:10.0")]), (b"net", []), (b"pci_express", [])],
)
def test_only_uevents_of_pci_functions_count(subsystem, told):
    assert list(pci_events(UEVENT % subsystem)) == told


def test_a_datagram_can_report_several_links():
    new, gone, other = link_message(16, "ens1f0", "0000:0b:00.0"), link_message(17, "tap3"), link_message(24, "route")
    assert list(link_events(new + gone + other)) == [
        HostEvent(what="newlink", link="ens1f0", address="0000:0b:00.0"),
        HostEvent(what="dellink", link="tap3"),
    ]


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 64, b"\x10\0\0\0\x10\0", b"\xff" * 40], ids=["nothing", "zeros", "a stub", "noise"]
)
def test_malformed_data_yields_no_events(data):
    assert (list(link_events(data)), list(pci_events(data))) == ([], [])


def test_listening_needs_no_privilege_and_ends():
    for _ in (1, 2):
        with contextlib.closing(KernelEvents()) as events:
            assert all(one.fileno() > 0 for one in events.sockets)
