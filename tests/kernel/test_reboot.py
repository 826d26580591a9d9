"""Module options and udev rules across a real reboot of the machine, and drivers that are reloaded for options."""

import signal

import pytest

from vmnic.host.ops import SetLink

from .conftest import node_on
from .machine import Machine
from .node import virtual

OLD = """
- {model: 82576-old, vendor: "8086", pf: ["10c9"], vf: ["10ca"], driver: igb, vfDriver: igbvf, maxVfs: 7, vfGuests: [linux], parameter: max_vfs, countBy: parameter}
"""
"""The same NIC, treated as one whose driver creates VFs only at load time."""


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    machine = Machine(directory=tmp_path_factory.mktemp("reboot"), nics=2, online=True)
    with node_on(machine, "modprobe.d") as node:
        yield node


def optional(pf, count, **changes):
    return virtual(pf, count, persistence="ModuleOptions", **changes)


def options(node):
    path = node.machine.keep / "modprobe.d" / "vmnic-igb.conf"
    return path.read_text() if path.exists() else ""


class TestReboot:
    def test_after_a_reboot_the_vfs_exist_before_the_agent_starts(self, node):
        first, second = node.pfs
        node.start_agent()
        node.settle(optional(first, 7), optional(second, 7))
        assert options(node) == "options igb max_vfs=7\n"
        assert "reload the driver igb" not in node.log()
        node.stop_agent()
        node.guest.reboot()
        assert (node.count(first), node.count(second)) == (7, 7)
        assert node.drivers(first) == ["igbvf"] * 7
        node.start_agent()
        boot = node.read("/proc/sys/kernel/random/boot_id")
        node.wait_for("it has seen the new boot", lambda: node.api.state().status.boot_id == boot and node.is_ready())
        assert node.drivers(first) == node.drivers(second) == ["vfio-pci"] * 7
        node.settle(optional(first, 7, release="Reset"), optional(second, 7, release="Reset"))
        assert (options(node), node.count(first), node.count(second)) == ("", 0, 0)
        node.stop_agent()

    def test_an_old_driver_is_reloaded_unless_a_port_is_in_use(self, node):
        first, second = node.pfs
        node.fresh()
        node.guest.reset()
        (node.machine.keep / "nics.yaml").write_text(OLD)
        node.start_agent(VMNIC_NIC_DATA="/keep/nics.yaml")
        node.settle(optional(first, 3), optional(second, 3))
        assert (options(node), node.count(first), node.count(second)) == ("options igb max_vfs=3\n", 3, 3)
        assert "reload the driver igb" in node.log()
        held = node.vfs(second)[0]
        node.guest.control({"hold": held})
        node.api.ask(optional(first, 5), optional(second, 5))
        node.wait_for("it says why not", lambda: "DriverInUse" in str(node.pf(first).problem))
        assert (node.count(first), node.count(second)) == (3, 3)
        node.guest.control({"release": held})
        node.wait_ready()
        assert (node.count(first), node.count(second)) == (5, 5)
        name = node.link(second)
        node.guest.perform(SetLink(name=name, up=True))
        node.guest.control({"assign_address": {"link": name, "address": "192.0.2.7/24"}})
        node.api.ask(optional(first, 2), optional(second, 2))
        node.wait_for("it says why not", lambda: node.pf(first).problem is not None)
        node.look_again()
        assert (node.count(first), node.count(second), node.pf(first).problem.reason) == (5, 5, "DriverInUse")
        node.stop_agent(signal.SIGTERM)


@pytest.fixture(scope="module")
def udev_node(tmp_path_factory):
    machine = Machine(directory=tmp_path_factory.mktemp("udev"), nics=2, online=True)
    with node_on(machine, "rules.d") as node:
        yield node


class TestUdev:
    def test_after_a_reboot_udev_creates_the_vfs_without_the_agent(self, udev_node):
        node, first = udev_node, udev_node.pfs[0]
        rules = node.machine.keep / "rules.d"
        node.start_agent()
        node.settle(virtual(first, 7, persistence="Udev"))
        (rule,) = rules.iterdir()
        assert rule.name == "70-vmnic-fast.rules"
        node.stop_agent()
        node.guest.reboot()
        assert (node.count(first), node.drivers(first)) == (7, [""] * 7)
        node.start_agent()
        boot = node.read("/proc/sys/kernel/random/boot_id")
        node.wait_for("it has seen the new boot", lambda: node.api.state().status.boot_id == boot and node.is_ready())
        assert node.drivers(first) == ["vfio-pci"] * 7
        assert "create 7 VFs" not in node.log().partition(boot)[2]
        node.settle(virtual(first, 7, persistence="Udev", release="Reset"))
        assert (list(rules.iterdir()), node.count(first)) == ([], 0)
        node.stop_agent()
