"""The agent as it ships, on a real kernel, from a NodeNicState to drivers, attributes and counts of real VFs."""

import signal
import time

import pytest

from vmnic.api.node_state import VfGroup, VfSettings
from vmnic.host.ops import CheckGateway, ReadChannels, ReadLinks, ReadVfs, SetLink, SetVf, WriteFile
from vmnic.nodes.planning.actions import admin_mac

from .node import DEVICES, virtual

DRIVERS = "/sys/bus/pci/drivers"
MODULES = ("vhost_net", "tun", "macvtap")
SETTINGS = VfSettings(vlan=100, vlan_qos=3, trust=True, spoof_check=False, mac_prefix="02:11:22", max_tx_rate_mbps=100)
NAMED = VfSettings(mac_prefix="02:11:22")


@pytest.fixture(scope="module")
def running_node(online):
    online.start_agent()
    yield online
    online.stop_agent()


@pytest.fixture
def node(running_node):
    yield running_node
    running_node.clear()


def info(node, pf):
    return next(link for link in node.guest.perform(ReadLinks()) if link.pci_address == pf)


def vf_infos(node, pf):
    return node.guest.perform(ReadVfs(info(node, pf).name))


def addresses(node, pf, indexes):
    """Return the MAC addresses that VFs get from the pool's prefix."""
    return [admin_mac("02:11:22", info(node, pf).mac, index) for index in indexes]


def vf_macs(node, pf):
    """Return the MAC addresses of the links of a PF's VFs."""
    return [info(node, vf).mac for vf in node.vfs(pf) if node.driver(vf) == "igbvf"]


class TestAgent:
    def test_seven_vfs_on_two_nics_with_attributes_mtu_and_queues(self, node):
        first, second = node.pfs[:2]
        assert info(node, first).up is False
        node.settle(virtual(first, settings=SETTINGS, mtu=9000, queues=2), virtual(second), modules=MODULES)
        assert node.drivers(first) == node.drivers(second) == ["vfio-pci"] * 7
        link = info(node, first)
        assert (link.mtu, link.up, node.guest.perform(ReadChannels(link.name)).combined) == (9000, True, 2)
        assert {(vf.vlan, vf.qos, vf.trust, vf.spoof_check) for vf in vf_infos(node, first)} == {(100, 3, True, False)}
        assert {vf.max_tx_rate_mbit for vf in vf_infos(node, first)} == {100}
        assert [vf.mac for vf in vf_infos(node, first)] == addresses(node, first, range(7))
        assert node.read(f"{DEVICES}/{first}/sriov_drivers_autoprobe") == "0"
        assert set(MODULES) <= set(node.api.state().status.host.modules)
        assert vf_infos(node, node.pfs[2]) == ()

    def test_an_idle_agent_writes_neither_to_the_host_nor_to_the_api(self, node):
        node.settle(virtual(node.pfs[0], 2))
        writes, runs = node.api.writes, node.runs()
        node.look_again()
        assert (node.api.writes, node.runs()) == (writes, runs)

    def test_vfs_shrink_grow_and_change_to_the_kernel_driver(self, node):
        pf = node.pfs[0]
        for count, driver, bound in ((3, "vfio-pci", "vfio-pci"), (5, "vfio-pci", "vfio-pci"), (5, "kernel", "igbvf")):
            node.settle(virtual(pf, count, driver=driver))
            assert node.drivers(pf) == [bound] * count
        before = vf_macs(node, pf)
        node.settle(virtual(pf, 5, driver="kernel", settings=NAMED))
        assert vf_macs(node, pf) == [vf.mac for vf in vf_infos(node, pf)] == addresses(node, pf, range(5))
        assert not set(before) & set(vf_macs(node, pf))

    def test_two_pools_share_a_pf(self, node):
        pf = node.pfs[0]
        groups = (
            VfGroup(pool="fast", resource="vmnic.dev/fast", range="0-2", settings=VfSettings(vlan=7)),
            VfGroup(pool="plain", resource="vmnic.dev/plain", range="3-4", driver="kernel", settings=NAMED),
        )
        node.settle(virtual(pf, 5, groups=groups))
        assert node.drivers(pf) == ["vfio-pci"] * 3 + ["igbvf"] * 2
        assert [vf.vlan for vf in vf_infos(node, pf)] == [7, 7, 7, 0, 0]
        assert vf_macs(node, pf) == [vf.mac for vf in vf_infos(node, pf)[3:]] == addresses(node, pf, range(3, 5))

    def test_adopted_vfs_keep_their_number(self, node):
        pf = node.pfs[0]
        for name, text in (("sriov_drivers_autoprobe", "0"), ("sriov_numvfs", "4")):
            node.guest.perform(WriteFile(f"{DEVICES}/{pf}/{name}", text))
        node.settle(virtual(pf, 4, management="Adopt"))
        assert (node.drivers(pf), node.count(pf)) == (["vfio-pci"] * 4, 4)
        node.settle(virtual(pf, 4, management="Adopt", release="Reset"))
        assert node.count(pf) == 4

    @pytest.mark.parametrize(("release", "count", "mtu"), [("Reset", 0, 1500), ("Retain", 2, 9000)])
    def test_a_released_pf_is_reset_or_retained_as_asked(self, node, release, count, mtu):
        pf = node.pfs[0]
        wish = virtual(pf, 2, mtu=9000)
        node.settle(wish)
        node.settle(virtual(pf, 2, mtu=9000, release=release))
        node.wait_for("it is released", lambda: not node.pf(pf).owned)
        assert (node.count(pf), info(node, pf).mtu) == (count, mtu)

    def test_a_whole_nic_changes_to_vfio_and_back(self, node):
        pf = node.pfs[0]
        group = VfGroup(pool="whole", resource="vmnic.dev/whole")
        node.settle(virtual(pf, 0, function="Physical", groups=(group,)))
        assert node.driver(pf) == "vfio-pci"
        node.settle(virtual(pf, 0, function="Physical", groups=(group,), release="Reset"))
        node.wait_for("it is the kernel's again", lambda: node.driver(pf) == "igb")

    def test_a_link_that_learns_from_a_router_can_be_changed_again(self, node):
        pf = node.pfs[-1]
        node.settle(virtual(pf, 2))
        node.wait_for("the kernel has learnt a route", lambda: info(node, pf).learnt_route)
        node.settle(virtual(pf, 3))
        assert node.drivers(pf) == ["vfio-pci"] * 3
        assert node.pf(pf).apply.state == "Applied"

    def test_a_router_known_only_from_its_advertisement_is_probed(self, node):
        pf, name = node.pfs[-1], node.link(node.pfs[-1])
        node.guest.perform(SetLink(name=name, up=True))
        node.wait_for("the kernel has learnt a route", lambda: info(node, pf).learnt_route)
        node.guest.run("ip", "-6", "route", "flush", "default", "dev", "out0")
        node.guest.run("ip", "-6", "neigh", "flush", "dev", name)
        assert node.guest.perform(CheckGateway()) == "reachable"
        assert node.guest.perform(CheckGateway((pf,))) == ""

    def test_a_multipath_default_route_counts_for_each_of_its_links(self, node):
        hops = []
        for pf in node.pfs[:2]:
            node.guest.perform(SetLink(name=node.link(pf), up=True))
            hops += ["nexthop", "via", "inet6", "fe80::1", "dev", node.link(pf)]
        node.guest.run("ip", "route", "add", "default", "metric", "500", *hops)
        assert [info(node, pf).default_route for pf in node.pfs[:2]] == [True, True]
        for pf in node.pfs[:2]:
            node.guest.perform(SetLink(name=node.link(pf), up=False))
        assert [info(node, pf).default_route for pf in node.pfs[:2]] == [False, False]

    def test_drift_is_reverted_and_a_held_vf_is_left_alone(self, node):
        pf = node.pfs[0]
        node.settle(virtual(pf, 2))
        vfs = node.vfs(pf)
        node.guest.perform(WriteFile("/sys/bus/pci/drivers/vfio-pci/unbind", vfs[1]))
        node.wait_for("it is bound again", lambda: node.driver(vfs[1]) == "vfio-pci")
        node.guest.control({"hold": vfs[0]})
        node.api.ask(virtual(pf, 3))
        node.wait_for("it says who is in the way", lambda: node.conditions().get("Blocked") == ("True", "WaitingForVMs"))
        assert node.vfs(pf) == vfs
        node.guest.control({"release": vfs[0]})
        node.wait_ready()
        assert node.count(pf) == 3

    def test_a_killed_agent_converges_and_then_writes_nothing(self, node):
        pf = node.pfs[0]
        node.api.ask(virtual(pf, 7))
        node.wait_for("VFs are there", lambda: node.is_running(pf) and node.count(pf) == 7)
        node.stop_agent(signal.SIGKILL)
        assert not node.is_ready()
        node.start_agent()
        node.wait_ready()
        assert node.drivers(pf) == ["vfio-pci"] * 7
        runs = node.runs()
        node.look_again()
        assert node.runs() == runs

    def test_a_manual_change_is_detected_by_kernel_events(self, node, record_property):
        pf, wish = node.pfs[0], virtual(node.pfs[0], 2, settings=SETTINGS)
        node.settle(wish)
        node.stop_agent()
        node.start_agent(VMNIC_OBSERVE_INTERVAL_S="600")
        node.settle(wish)
        vf, name, took = node.vfs(pf)[1], node.link(pf), []
        by_hand = (
            (lambda: node.guest.perform(SetVf(name=name, vf=1, vlan=7)), lambda: vf_infos(node, pf)[1].vlan == 100),
            (lambda: node.guest.perform(WriteFile(f"{DRIVERS}/vfio-pci/unbind", vf)), lambda: node.driver(vf) == "vfio-pci"),
        )
        for change, is_back in by_hand:
            ended, began = node.log().count(": Applied "), time.monotonic()
            change()
            node.wait_for("it is put back", lambda ended=ended: node.log().count(": Applied ") > ended, 60)
            took.append(f"{time.monotonic() - began:.1f} s")
            assert is_back()
        node.guest.control({"rename_link": {"link": name, "name": "fast7"}})
        node.wait_for("the link's new name is told", lambda: node.pf(pf).name == "fast7", 60)
        record_property(
            "told", f"changes by hand, put back by an agent that looks by itself every 600 s: after {', '.join(took)}"
        )
