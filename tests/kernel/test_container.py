"""The agent with the rights of its manifest and no others: a container by runc, under AppArmor rules that deny /sys."""

import pytest

from vmnic.host.ops import ReadFile
from vmnic.nodes.state import VfSettings

from .box import PROFILE, Box, agent_pod, bind, load_profile
from .node import DEVICES, virtual

MODULES = ("vhost_net", "tun", "macvtap", "vfio_pci")
LENT = "/run/libvirt/hostdevmgr"
"""Where libvirt notes the VFs that it has changed."""
NET_ADMIN = "0000000000001000"


@pytest.fixture
def node(online):
    online.guest.reset()
    online.fresh()
    # The manifest's place for the journal is the one that this side can read.
    online.guest.run("bash", "-c", "mkdir -p /var/lib/vmnic && mount --bind /keep/state /var/lib/vmnic")
    online.guest.run("modprobe", "-r", "-a", "vhost_net", "macvtap", "tun", "vfio_pci", "vfio_iommu_type1")
    load_profile(online)
    yield online
    online.guest.run("umount", "/var/lib/vmnic")
    online.guest.run("modprobe", "-a", *MODULES, "vfio_iommu_type1")
    online.guest.reset()


def box(node, name, part, number=0):
    pod = agent_pod()
    return Box(node, name, pod[part][number], pod["volumes"])


class TestContainer:
    def test_the_agent_needs_no_more_than_its_manifest_gives(self, node):
        assert box(node, "modules", "initContainers").run() == (0, "")
        assert all(node.guest.try_run("test", "-d", f"/sys/module/{name}")[0] == 0 for name in MODULES)
        agent = box(node, "agent", "containers")
        pid = agent.start()
        first, second = node.pfs[:2]
        settings = VfSettings(vlan=100, trust=True)
        node.settle(virtual(first, settings=settings, mtu=9000, queues=2), virtual(second), modules=MODULES)
        assert node.drivers(first) == node.drivers(second) == ["vfio-pci"] * 7
        inside = node.guest.run("bash", "-c", "runc state agent | sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p'").strip()
        status = dict(line.split(":\t", 1) for line in node.read(f"/proc/{inside}/status").splitlines() if ":\t" in line)
        assert (status["CapEff"], status["CapBnd"], status["NoNewPrivs"], status["Seccomp"]) == (NET_ADMIN, NET_ADMIN, "1", "2")
        assert node.guest.perform(ReadFile(f"/proc/{inside}/attr/current")) == f"{PROFILE} (enforce)"
        node.guest.run("bash", "-c", f"mkdir -p {LENT} && touch {LENT}/{node.link(first)}_vf3")
        node.wait_for(
            "libvirt is told as a holder", lambda: [held.by.split()[0] for held in node.pf(first).held] == ["libvirt"]
        )
        node.guest.run("rm", "-r", LENT)
        node.settle(virtual(first, release="Reset"), virtual(second, release="Reset"))
        assert (node.count(first), node.count(second)) == (0, 0)
        node.guest.run("runc", "kill", "agent", "TERM")
        assert node.guest.control({"wait": pid}) == 0

    def test_the_rules_deny_sys_even_where_it_is_mounted_and_let_its_other_place_be(self, node):
        probe = box(node, "probe", "containers")
        probe.mounts += [bind(path, path, "rw") for path in ("/sys/bus/pci", "/sys/devices")]
        path = f"{DEVICES}/{node.pfs[0]}/sriov_numvfs"
        script = f"echo 2 > {path}; echo 2 > /host{path} && echo done; touch /here; cat {path}"
        probe.args = ["/bin/bash", "-c", script]
        code, text = probe.run()
        assert code == 0
        refused, done, read_only, count = text.splitlines()
        assert (refused.rsplit(": ", 1)[1], done, count) == ("Permission denied", "done", "2")
        assert read_only.endswith("Read-only file system")
