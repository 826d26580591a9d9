"""The agent with only the rights of its manifest, in a runc container under AppArmor rules that deny /sys."""

import pytest

from vmnic.api.node_state import VfSettings
from vmnic.api.reasons import PfReason
from vmnic.host.ops import ReadFile

from .box import PROFILE, Box, agent_pod, bind, load_profile
from .node import DEVICES, virtual

MODULES = ("vhost_net", "tun", "macvtap", "vfio_pci")
RECORDS = """
mkdir -p /run/libvirt/hostdevmgr /var/lib/cni/sriov/pci && touch /run/libvirt/hostdevmgr/{link}_vf3
ip netns add tenant && printf /var/run/netns/tenant > /var/lib/cni/sriov/pci/{vf}
"""
"""The records that libvirt and sriov-cni write for VFs in use."""
FORGOTTEN = "ip netns delete tenant && rm -r /run/libvirt/hostdevmgr /var/lib/cni/sriov/pci"
OWNERS = """
mkdir -p /etc/sriov-operator/pci /etc/NetworkManager/system-connections && echo '{{}}' > /etc/sriov-operator/pci/{operator}
printf '[connection]\\ninterface-name={link}\\n[sriov]\\ntotal-vfs=2\\n' > /etc/NetworkManager/system-connections/it.nmconnection
"""
"""The records that sriov-network-operator and NetworkManager write for their PFs."""
NET_ADMIN = "0000000000001000"


@pytest.fixture
def node(online):
    online.guest.reset()
    online.fresh()
    # The journal's path in the manifest is mounted from the directory that the test can read.
    online.guest.run("bash", "-c", "mkdir -p /var/lib/vmnic && mount --bind /keep/state /var/lib/vmnic")
    online.guest.run("modprobe", "-r", "-a", "vhost_net", "macvtap", "tun", "vfio_pci", "vfio_iommu_type1")
    load_profile(online)
    yield online
    online.guest.run("rm", "-rf", "/etc/sriov-operator", "/etc/NetworkManager/system-connections/it.nmconnection")
    online.guest.run("umount", "/var/lib/vmnic")
    online.guest.run("modprobe", "-a", *MODULES, "vfio_iommu_type1")
    online.guest.reset()


def box(node, name, part, number=0):
    pod = agent_pod()
    return Box(node, name, pod[part][number], pod["volumes"])


def problems(node):
    return [node.pf(address).problem for address in node.pfs[2:]]


class TestContainer:
    def test_the_agent_needs_only_the_rights_of_its_manifest(self, node):
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
        node.guest.run("bash", "-c", RECORDS.format(link=node.link(first), vf=node.vfs(first)[5]))
        node.wait_for(
            "holders are told", lambda: [one.by.split()[0] for one in node.pf(first).held] == ["libvirt", "sriov-cni"]
        )
        node.guest.run("bash", "-c", FORGOTTEN)
        node.wait_for("there are none", lambda: not node.pf(first).held)
        node.settle(virtual(first, release="Reset"), virtual(second, release="Reset"))
        assert (node.count(first), node.count(second)) == (0, 0)
        third, fourth = node.pfs[2:]
        node.guest.run("bash", "-c", OWNERS.format(operator=third, link=node.link(fourth)))
        node.api.ask(virtual(third), virtual(fourth))
        foreign = [PfReason.FOREIGN_OWNER] * 2
        node.wait_for("they are left alone", lambda: [problem and problem.reason for problem in problems(node)] == foreign)
        assert ["sriov-network-operator" in problems(node)[0].message, "NetworkManager" in problems(node)[1].message] == [
            True
        ] * 2
        assert (node.count(third), node.count(fourth)) == (0, 0)
        node.guest.run("runc", "kill", "agent", "TERM")
        assert node.guest.control({"wait": pid}) == 0

    def test_the_rules_deny_sys_but_allow_its_mount_below_host(self, node):
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
