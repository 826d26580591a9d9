"""Each datapath started by a real libvirt from the XML that vmnic creates. The checks read the system, not the XML.

The guest's processor offers SVM, so that libvirt starts its domains with KVM. Without KVM libvirt would not use vhost.
"""

import contextlib

import pytest

from vmnic.api.node_state import VfSettings
from vmnic.host.ops import ListDir, ReadLink, ReadLinks, ReadVfs, SetLink, WriteFile

from .domains import MAC, VLAN, domain
from .libvirtd import defined, libvirtd, virsh
from .node import DEVICES, virtual

IFF_MULTI_QUEUE = 0x100
"""IFF_MULTI_QUEUE of linux/if_tun.h."""


@pytest.fixture(scope="module")
def libvirt(online):
    """A node with libvirtd and a bridge."""
    online.guest.reset()
    with libvirtd(online):
        yield online
    online.guest.reset()


@pytest.fixture
def node(libvirt):
    libvirt.guest.reset()
    return libvirt


@pytest.fixture
def prepared(libvirt):
    """A node whose agent keeps two VFs on vfio-pci, with a VLAN."""
    libvirt.guest.reset()
    libvirt.fresh()
    libvirt.start_agent()
    libvirt.settle(virtual(libvirt.pfs[0], 2, settings=VfSettings(vlan=100, mac_prefix="02:11:22")))
    yield libvirt
    libvirt.clear()
    libvirt.stop_agent()


@contextlib.contextmanager
def started(node, datapath, **options):
    """Run a domain with a datapath and yield its QEMU's process id."""
    pf, whole = node.pfs[:2]
    with defined(node, datapath, domain(datapath, pf, node.link(pf), whole, **options)) as pid:
        yield pid


def qtree(node, name):
    return virsh(node, "qemu-monitor-command", name, "--hmp", "info qtree")[1]


def opened(node, pid, what):
    """Return how many descriptors of a process lead to files whose names have a prefix."""
    script = f"for f in /proc/{pid}/fd/*; do readlink $f; done"
    return sum(line.startswith(what) for line in node.guest.run("bash", "-c", script).splitlines())


def threads(node, pid):
    """Return how many vhost threads a process has."""
    text = node.guest.run("bash", "-c", f"cat /proc/{pid}/task/*/comm; ps -eo comm 2>/dev/null | grep '^vhost-{pid}$' || true")
    return text.count(f"vhost-{pid}")


def tap(node):
    """Return the tap device on the bridge."""
    (name,) = node.guest.perform(ListDir("/sys/class/net/br7/brif"))
    return name


def vf_info(node):
    name = next(link.name for link in node.guest.perform(ReadLinks()) if link.pci_address == node.pfs[0])
    return node.guest.perform(ReadVfs(name))[0]


class TestLibvirt:
    def test_emulated_is_an_e1000e_in_qemu_without_vhost(self, node):
        with started(node, "emulated") as pid:
            tree = qtree(node, "emulated")
            assert ("dev: e1000e" in tree, "dev: virtio-net" in tree) == (True, False)
            assert (opened(node, pid, "/dev/net/tun"), opened(node, pid, "/dev/vhost-net"), threads(node, pid)) == (1, 0, 0)

    def test_virtio_has_its_backend_in_qemu(self, node):
        with started(node, "virtio") as pid:
            assert "dev: virtio-net-pci" in qtree(node, "virtio")
            assert (opened(node, pid, "/dev/net/tun"), opened(node, pid, "/dev/vhost-net"), threads(node, pid)) == (1, 0, 0)

    def test_vhost_has_its_backend_in_the_kernel(self, node):
        with started(node, "vhost") as pid:
            assert "dev: virtio-net-pci" in qtree(node, "vhost")
            assert (opened(node, pid, "/dev/vhost-net"), threads(node, pid)) == (1, 1)

    def test_four_queues_are_four_tap_queues_and_four_vhost_threads(self, node):
        with started(node, "vhost", multiqueue=True) as pid:
            # The guest's driver enables them. Until then the tap counts only the queues that it was given.
            assert int(node.read(f"/sys/class/net/{tap(node)}/tun_flags"), 16) & IFF_MULTI_QUEUE
            assert (opened(node, pid, "/dev/net/tun"), opened(node, pid, "/dev/vhost-net"), threads(node, pid)) == (4, 4, 4)

    def test_macvtap_has_its_own_device_open_and_no_bridge(self, node):
        name = node.link(node.pfs[0])
        node.guest.perform(SetLink(name=name, up=True))
        with started(node, "macvtap") as pid:
            links = node.guest.perform(ReadLinks())
            lower = next(link.index for link in links if link.name == name)
            (upper,) = [link for link in links if link.kind == "macvtap"]
            assert (upper.lower, upper.mac) == (lower, MAC)
            assert opened(node, pid, f"/dev/tap{upper.index}") == 1
            assert node.guest.perform(ListDir("/sys/class/net/br7/brif")) == ()
        assert not [link for link in node.guest.perform(ReadLinks()) if link.kind == "macvtap"]

    def test_sriov_is_a_vf_whose_address_and_vlan_are_restored(self, node):
        pf = node.pfs[0]
        node.guest.perform(SetLink(name=node.link(pf), up=True))
        node.guest.perform(WriteFile(f"{DEVICES}/{pf}/sriov_numvfs", "2"))
        vf = node.vfs(pf)[0]
        before, group = vf_info(node), node.guest.perform(ReadLink(f"{DEVICES}/{vf}/iommu_group")).rsplit("/", 1)[-1]
        with started(node, "sriov") as pid:
            assert (vf_info(node).mac, vf_info(node).vlan) == (MAC, VLAN)
            assert (node.driver(vf), opened(node, pid, f"/dev/vfio/{group}")) == ("vfio-pci", 1)
            assert node.read(f"{DEVICES}/{vf}/enable") == "1"
            assert "dev: vfio-pci" in qtree(node, "sriov")
        assert (vf_info(node).mac, vf_info(node).vlan, node.driver(vf)) == (before.mac, before.vlan, "igbvf")

    def test_a_prepared_vf_belongs_to_a_domain_while_it_runs(self, prepared):
        node, (vf, _) = prepared, prepared.vfs(prepared.pfs[0])
        before, runs = vf_info(node), node.runs()
        with started(node, "sriov"):
            node.wait_for(
                "its holder is told", lambda: [held.by for held in node.pf(node.pfs[0]).held] == ["libvirt domain sriov"]
            )
            # libvirt records it before it sets the attributes, so the agent knows the holder from then on.
            assert node.guest.perform(ListDir("/run/libvirt/hostdevmgr")) == (f"{node.link(node.pfs[0])}_vf0",)
            node.look_again()
            assert (vf_info(node).mac, vf_info(node).vlan, node.runs()) == (MAC, VLAN, runs)
            assert (node.driver(vf), node.read(f"{DEVICES}/{vf}/enable")) == ("vfio-pci", "1")
        assert (node.driver(vf), vf_info(node)) == ("vfio-pci", before)
        node.look_again()
        assert (node.runs(), node.is_ready()) == (runs, True)

    def test_passthrough_is_the_whole_pf_which_returns_afterwards(self, node):
        pf = node.pfs[1]
        name = node.link(pf)
        group = node.guest.perform(ReadLink(f"{DEVICES}/{pf}/iommu_group")).rsplit("/", 1)[-1]
        with started(node, "passthrough") as pid:
            assert (node.driver(pf), opened(node, pid, f"/dev/vfio/{group}")) == ("vfio-pci", 1)
            assert name not in {link.name for link in node.guest.perform(ReadLinks())}
        assert (node.driver(pf), node.link(pf) != "") == ("igb", True)
