"""What a Linux guest sees of the NIC that vmnic gave its domain, and frames that it exchanges with the outside.

Each guest boots on a domain that vmnic planned and a real libvirt started. Beyond the PF is a user network, whose gateway
answers pings.
"""

import contextlib

import pytest

from vmnic.api.node_state import VfGroup, VfSettings
from vmnic.host.ops import ReadLinks, ReadVfs, SetLink

from .domains import MAC, plan_domain
from .inner import Inner, system_xml
from .lab import prepare
from .libvirtd import defined, libvirtd
from .node import virtual

VLAN = 100
SETTINGS = VfSettings(vlan=VLAN, mac_prefix="02:11:22")


@pytest.fixture(scope="module")
def libvirt(host_of_guests):
    """A node whose first PF is a port of the bridge."""
    node = host_of_guests
    node.guest.reset()
    with libvirtd(node):
        yield node
    node.guest.reset()


@pytest.fixture
def node(libvirt):
    libvirt.guest.reset()
    return libvirt


@pytest.fixture
def bridged(node):
    """The node with a PF as a port of the bridge."""
    link = node.link(node.pfs[0])
    node.guest.run("ip", "link", "set", link, "up", "mtu", "9000", "master", "br7")
    yield node
    node.guest.run("ip", "link", "set", link, "nomaster")


@contextlib.contextmanager
def guest_of(node, datapath, *, memory=192, vcpus=1, **options):
    """Boot a domain with a datapath, and yield the plan and the guest."""
    pf, whole = node.pfs[:2]
    system = tuple(text.replace("NAME", datapath) for text in system_xml(prepare()))
    planned = plan_domain(datapath, pf, node.link(pf), whole, memory=memory, vcpus=vcpus, system=system, **options)
    with defined(node, datapath, planned.xml):
        inner = Inner(node, datapath)
        inner.wait_until_up()
        yield planned, inner


def joined(inner, address="10.0.3.9/24"):
    """Return the guest's only NIC, set up with an address."""
    (nic,) = inner.nics().values()
    inner.bring_up(nic.name, address)
    return nic


@pytest.fixture
def pooled(libvirt):
    """A node whose agent keeps a VF for VMs and one with a kernel driver, both in the pool's VLAN, below a PF with MTU 9000."""
    node = libvirt
    node.guest.reset()
    node.fresh()
    node.start_agent()
    groups = (
        VfGroup(pool="fast", resource="vmnic.dev/fast", range="0", settings=SETTINGS),
        VfGroup(pool="plain", resource="vmnic.dev/plain", range="1", driver="kernel", settings=SETTINGS),
    )
    node.settle(virtual(node.pfs[0], 2, mtu=9000, groups=groups))
    yield node
    # A VF with its link in a namespace is in use.
    node.guest.control({"bring_links_back": None})
    node.clear()
    node.stop_agent()


class TestGuests:
    @pytest.mark.parametrize(
        ("datapath", "driver"), [("emulated", "e1000e"), ("virtio", "virtio_net"), ("vhost", "virtio_net")]
    )
    def test_a_guest_behind_the_bridge_reaches_the_gateway(self, bridged, datapath, driver):
        with guest_of(bridged, datapath) as (_, inner):
            nic = joined(inner)
            assert (nic.driver, nic.mac, nic.mtu, nic.queues) == (
                driver,
                MAC,
                1500,
                1 if driver == "virtio_net" else nic.queues,
            )
            assert inner.reaches("10.0.3.2")

    def test_four_queues_are_in_use_and_fewer_can_be_set(self, bridged):
        with guest_of(bridged, "vhost", multiqueue=True, memory=820, vcpus=4) as (planned, inner):
            nic = joined(inner)
            assert (nic.queues, planned.view.queues) == (4, (1, 4))
            assert "2" in inner.run(f"ethtool -L {nic.name} combined 2; ethtool -l {nic.name} | tail -1")
            assert "Invalid" in inner.run(f"ethtool -L {nic.name} combined 5 2>&1")
            assert inner.reaches("10.0.3.2")

    def test_the_mtu_is_the_one_that_the_plan_foretold(self, bridged):
        with guest_of(bridged, "vhost", extra="<mtu size='8901'/>") as (planned, inner):
            nic = joined(inner)
            assert (planned.view.mtu[1], nic.mtu) == (8901, 8901)
            assert inner.reaches("10.0.3.2", size=1400)

    def test_macvtap_reaches_the_gateway_without_the_bridge(self, node):
        node.guest.perform(SetLink(name=node.link(node.pfs[0]), up=True))
        with guest_of(node, "macvtap") as (_, inner):
            assert joined(inner).driver == "virtio_net"
            assert inner.reaches("10.0.3.2")

    def test_a_whole_nic_is_driven_by_the_guest_itself(self, node):
        with guest_of(node, "passthrough") as (_, inner):
            nic = joined(inner, "10.0.4.9/24")
            assert (nic.driver, nic.mac) == ("igb", "52:54:00:00:02:00")
            assert inner.reaches("10.0.4.2")
        assert node.driver(node.pfs[1]) == "igb"

    def test_a_vf_has_the_pools_vlan_and_its_own_mtu(self, pooled):
        node = pooled
        join_neighbour(node)
        with guest_of(node, "sriov", extra=f"<vlan><tag id='{VLAN}'/></vlan>") as (_, inner):
            nic = joined(inner, "192.0.2.1/24")
            assert (nic.driver, nic.mac, nic.mtu) == ("igbvf", MAC, 1500)
            assert vf_info(node).vlan == VLAN
            assert inner.reaches("192.0.2.2")
            inner.run(f"/sbin/ip address flush dev {nic.name}; /sbin/ip address add 10.0.3.9/24 dev {nic.name}")
            assert not inner.reaches("10.0.3.2"), "a frame left its VLAN"


def join_neighbour(node):
    """Give the second VF an address, in a network namespace of its own."""
    (link,) = (one.name for one in node.guest.perform(ReadLinks()) if one.pci_address == node.vfs(node.pfs[0])[1])
    namespace = node.guest.control({"move_link": link})
    node.guest.run("ip", "-n", namespace, "address", "add", "192.0.2.2/24", "dev", link)
    node.guest.run("ip", "-n", namespace, "link", "set", link, "up")


def vf_info(node):
    (link,) = (one.name for one in node.guest.perform(ReadLinks()) if one.pci_address == node.pfs[0])
    return node.guest.perform(ReadVfs(link))[0]
