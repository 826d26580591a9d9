"""Hosts as they are, on a real kernel.

NICs without SR-IOV, IOMMU groups with a bridge, further links of a PF, uses in other network namespaces, and records of the
host.
"""

import asyncio
import contextlib

import msgspec
import pytest

from vmnic.api.node_state import VfGroup
from vmnic.host.client import LocalHost
from vmnic.host.ops import ListDir, ReadChannels, ReadLinks, ReadVfs, WriteFile
from vmnic.inspection.host_snapshot import read_snapshot
from vmnic.nodes.observed import render_pf_status
from vmnic.records.document import parse_record
from vmnic.records.recorded_host import RecordedHost

from .node import DEVICES, PROGRAM, virtual

WHOLE = VfGroup(pool="whole", resource="vmnic.dev/whole")


@pytest.fixture(scope="module")
def running_node(online):
    online.guest.reset()
    online.fresh()
    online.start_agent()
    yield online
    online.stop_agent()


@pytest.fixture
def node(running_node):
    yield running_node
    running_node.clear()


def of_driver(node, driver):
    """Return the only function with a driver."""
    (address,) = (name for name in node.guest.perform(ListDir(f"/sys/bus/pci/drivers/{driver}")) if name.startswith("0000:"))
    return address


def link_of(node, pf):
    return next(link.name for link in node.guest.perform(ReadLinks()) if link.pci_address == pf)


@contextlib.contextmanager
def more_links(node, pf, **options):
    """Give a PF further links."""
    words = " ".join(f"{key}={value}" for key, value in options.items())
    node.guest.run("sh", "-c", f"insmod /lib/modules/$(uname -r)/extra/more_links.ko link={link_of(node, pf)} {words}")
    try:
        yield
    finally:
        node.guest.run("rmmod", "more_links")


class TestHosts:
    @pytest.mark.parametrize("driver", ["e1000e", "e1000"])
    def test_a_nic_without_sriov_is_given_to_vms_whole(self, node, driver):
        address = of_driver(node, driver)
        node.wait_for("it is listed", lambda: node.pf(address) is not None)
        assert node.pf(address).total_vfs == 0
        wish = virtual(address, 0, function="Physical", groups=(WHOLE,))
        node.settle(wish)
        assert node.driver(address) == "vfio-pci"
        # A group with an unbound bridge is viable: the kernel lets a process open the device.
        node.guest.control({"hold": address})
        node.wait_for("it is held", lambda: [one.vf for one in node.pf(address).held] == [address])
        node.guest.control({"release": address})
        node.settle(msgspec.structs.replace(wish, release="Reset"))
        node.wait_for("it is the kernel's again", lambda: node.driver(address) == driver)

    def test_a_second_port_stops_changes_of_links_only(self, node):
        pf = node.pfs[0]
        with more_links(node, pf, ports=1):
            node.api.ask(virtual(pf, 2, mtu=9000))
            node.wait_for("it says why", lambda: str(getattr(node.pf(pf).problem, "reason", "")) == "SeveralPorts")
            node.settle(virtual(pf, 2))
            assert node.drivers(pf) == ["vfio-pci"] * 2

    def test_a_representor_in_a_bridge_holds_its_vf(self, node):
        pf = node.pfs[0]
        node.settle(virtual(pf, 2))
        with more_links(node, pf, representors=2):
            node.guest.control({"add_upper": {"name": "br8", "kind": "bridge", "lower": "rep0", "is_master": True}})
            vf = node.vfs(pf)[0]
            node.wait_for("its VF is held", lambda: [one.vf for one in node.pf(pf).held] == [vf])
            assert node.pf(pf).name == link_of(node, pf)
            node.guest.run("ip", "link", "delete", "br8")
        node.wait_for("its VF is free", lambda: not node.pf(pf).held)

    def test_unreported_attributes_are_unknown_and_refusals_are_told(self, node):
        pf = node.pfs[0]
        node.guest.perform(WriteFile(f"{DEVICES}/{pf}/sriov_numvfs", "2"))
        with more_links(node, pf, representors=1):
            assert {(vf.spoof_check, vf.trust) for vf in node.guest.perform(ReadVfs("rep0"))} == {(None, None)}
            assert {vf.trust for vf in node.guest.perform(ReadVfs(link_of(node, pf)))} == {False}
            node.guest.run("sh", "-c", "echo 1 > /sys/module/more_links/parameters/refuse")
            with pytest.raises(OSError, match="Input/output"):
                node.guest.perform(ReadChannels("rep0"))

    @pytest.mark.parametrize("kind", ["macvlan", "macvtap"])
    def test_a_link_of_a_pod_above_the_pf_makes_changes_disruptive(self, node, kind):
        pf = node.pfs[0]
        node.settle(virtual(pf, 2))
        node.guest.control({"add_upper": {"name": "pod7", "kind": kind, "lower": link_of(node, pf), "mode": "bridge"}})
        namespace = node.guest.control({"move_link": "pod7"})
        node.guest.run("ip", "-n", namespace, "link", "set", "pod7", "up")
        node.api.ask(virtual(pf, 3))
        node.wait_for(
            "it says what is in the way", lambda: "unicast address" in str(getattr(node.pf(pf).plan, "blocked_by", ""))
        )
        assert node.count(pf) == 2
        node.guest.control({"bring_links_back": None})
        node.wait_ready()
        assert node.count(pf) == 3

    def test_a_record_of_the_node_gives_the_same_status(self, node):
        node.settle(virtual(node.pfs[0], 3), virtual(node.pfs[1], 2, mtu=9000))
        vf = node.vfs(node.pfs[0])[1]
        node.guest.control({"hold": vf})
        node.wait_for("it is held", lambda: [one.vf for one in node.pf(node.pfs[0]).held] == [vf])
        node.guest.run(PROGRAM, "host", "record", "-o", "/keep/record.yaml", env={"VMNIC_NODE": "n1"})
        record = parse_record((node.machine.keep / "record.yaml").read_text(), "record.yaml")
        snapshot = asyncio.run(read_snapshot(LocalHost(RecordedHost(record)), leave_out=()))
        played = {pf.pci_address: status_of(pf) for pf in snapshot.pfs}
        plain = {"owned": False, "attempt": 0, "plan": None, "problem": None, "apply": None}
        assert played == {pf.pci_address: msgspec.structs.replace(pf, **plain) for pf in node.api.state().status.pfs}
        assert snapshot.host.kernel == node.api.state().status.host.kernel


def status_of(pf):
    return render_pf_status(pf, holders={}, owned=False, attempt=0, plan=None, problem=None, apply=None)
