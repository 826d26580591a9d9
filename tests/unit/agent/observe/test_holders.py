"""Everything that may hold a VF or own a PF. None of them ever loses it to a plan."""

import errno
from dataclasses import replace

import pytest

from tests.builders.agent import Node, RecordingDevices, desired
from tests.builders.host import PF, pf, sim_host
from vmnic.agent.kubelet.podresources import HoldersUnknownError, KubeletHolders
from vmnic.api.node_state import ApplyState
from vmnic.api.reasons import PfReason
from vmnic.host.ops import ReadFile, ReadLinks
from vmnic.nodes.observed import ObservedPf, ObservedVf, holders_by_address

VF = "0000:0b:10.2"
DOMAIN = f"""<domstatus state='running'><domain type='kvm'><name>web</name><devices>
  <interface type='hostdev' managed='yes'><mac address='52:54:00:00:00:01'/>
    <source><address type='pci' domain='0x0000' bus='0x{VF[5:7]}' slot='0x{VF[8:10]}' function='0x{VF[-1]}'/></source>
    <address type='pci' domain='0x0000' bus='0x00' slot='0x05' function='0x0'/></interface>
</devices></domain></domstatus>"""


def by_vfio(node):
    node.sim.control({"hold": VF})


def by_pod(node):
    node.holders.names[VF] = "pod tenants/launcher"


def by_iommu_group(node):
    node.holders.names[node.sim.group_of(VF)] = "pod tenants/launcher"


def by_sriov_cni(node):
    node.sim.control({"put_file": {"path": "/var/run/netns/a", "text": "net"}})
    node.sim.control({"put_file": {"path": f"/var/lib/cni/sriov/pci/{VF}", "text": "/var/run/netns/a"}})


def by_stale_record(node):
    node.sim.control({"put_file": {"path": f"/var/lib/cni/sriov/pci/{VF}", "text": "/var/run/netns/gone"}})


def by_libvirt(node):
    node.sim.control({"put_file": {"path": "/run/libvirt/qemu/web.xml", "text": DOMAIN}})


def by_libvirt_that_has_not_started_it(node):
    node.sim.control({"put_file": {"path": "/run/libvirt/hostdevmgr/ens11_vf1", "text": "{}"}})


def by_namespace(node):
    node.sim.control({"move_link": "ens11v1"})


HOLDERS = {
    "an open VFIO device": (by_vfio, "vfio-pci", "an unknown process"),
    "a pod": (by_pod, "vfio-pci", "pod tenants/launcher"),
    "a pod whose plugin names IOMMU groups": (by_iommu_group, "vfio-pci", "pod tenants/launcher"),
    "sriov-cni": (by_sriov_cni, "kernel", "sriov-cni"),
    "a libvirt domain": (by_libvirt, "vfio-pci", "libvirt domain web"),
    "a libvirt domain that starts": (by_libvirt_that_has_not_started_it, "vfio-pci", "libvirt (/run/libvirt/hostdevmgr"),
    "another network namespace": (by_namespace, "kernel", "an unknown process"),
}


@pytest.mark.parametrize(("take", "driver", "named"), HOLDERS.values(), ids=HOLDERS)
async def test_a_holder_of_a_vf_is_named_and_keeps_it(tmp_path, take, driver, named):
    node = Node(sim_host(), tmp_path)
    await node.grant_and_run(desired(driver=driver))
    take(node)
    del node.port.log[:]
    status = await node.grant_and_run(desired(num_vfs=3, driver=driver))
    assert status.plan.disruptive
    assert any(words.startswith(named) and f"holds {VF}" in words for words in status.plan.blocked_by)
    assert (node.port.writes, status.num_vfs) == ([], 7)


@pytest.mark.parametrize("take", [by_vfio, by_sriov_cni, by_libvirt], ids=["VFIO", "sriov-cni", "libvirt"])
async def test_a_holder_that_comes_after_the_claim_keeps_its_vf(tmp_path, take):
    node = Node(sim_host(), tmp_path)
    await node.grant_and_run(desired())
    node.fence.when_closed = lambda: take(node)
    del node.port.log[:]
    status = await node.grant_and_run(desired(num_vfs=3))
    assert (status.apply.state, status.num_vfs, node.port.writes) == (ApplyState.REFUSED, 7, [])
    assert f"holds {VF}" in status.apply.message
    assert node.fence.closed == set()


async def test_a_pod_that_holds_an_iommu_group_keeps_a_whole_nic(tmp_path):
    node = Node(sim_host(), tmp_path)
    await node.grant_and_run(desired(num_vfs=0, function="Physical"))
    node.holders.names[node.sim.group_of(PF)] = "pod tenants/launcher"
    status = await node.grant_and_run(desired(num_vfs=3))
    assert status.plan.blocked_by == (f"pod tenants/launcher holds {PF}",)
    assert (status.driver, status.num_vfs) == ("vfio-pci", 0)


def test_the_holder_of_an_iommu_group_holds_its_vfs_but_no_pf():
    vfs = tuple(ObservedVf(index=index, pci_address=f"0000:0b:10.{index}", group=group) for index, group in enumerate("779"))
    pfs = [ObservedPf(pci_address=PF, driver="igb", group="7", vfs=vfs)]
    told = {"7": "pod a/a", "0000:0b:10.2": "pod b/b", "8": "pod c/c"}
    assert holders_by_address(pfs, told) == {
        "0000:0b:10.0": "pod a/a", "0000:0b:10.1": "pod a/a", "0000:0b:10.2": "pod b/b", "8": "pod c/c",
    }  # fmt: skip


@pytest.mark.parametrize("left", ["kubelet.sock", "kubelet_internal_checkpoint"])
async def test_a_kubelet_without_its_socket_has_unknown_holders(tmp_path, left):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / left).touch()
    with pytest.raises(HoldersUnknownError):
        await KubeletHolders(tmp_path / "kubelet.sock", tmp_path / "plugins").read()


@pytest.mark.parametrize("made", [True, False], ids=["directories that were made for mounts", "no directories"])
async def test_no_holders_without_a_kubelet(tmp_path, made):
    for name in ("plugins", "pods") if made else ():
        (tmp_path / name).mkdir()
    assert await KubeletHolders(tmp_path / "pods" / "kubelet.sock", tmp_path / "plugins").read() == {}


async def test_a_record_of_a_deleted_pod_is_ignored(tmp_path):
    node = Node(sim_host(), tmp_path)
    await node.grant_and_run(desired())
    by_stale_record(node)
    assert (await node.grant_and_run(desired(num_vfs=3))).num_vfs == 3


async def test_a_pod_is_named_instead_of_its_record(tmp_path):
    node = Node(sim_host(), tmp_path)
    await node.grant_and_run(desired())
    by_sriov_cni(node)
    by_pod(node)
    assert (await node.run_pass()).held[0].by == "pod tenants/launcher"


async def test_a_vf_in_use_by_the_host_is_held(tmp_path):
    node = Node(sim_host(), tmp_path)
    await node.grant_and_run(desired(driver="kernel"))
    node.sim.control({"add_upper": {"name": "br0", "kind": "bridge", "lower": "ens11v2", "is_master": True}})
    status = await node.grant_and_run(desired(num_vfs=3, driver="kernel"))
    assert status.plan.blocked_by == ("the host (place in br0) holds 0000:0b:10.4",)
    assert status.num_vfs == 7


OWNERS = {
    "sriov-network-operator": (f"/etc/sriov-operator/pci/{PF}", '{"numVfs": 4}'),
    "NetworkManager": (
        "/etc/NetworkManager/system-connections/uplink.nmconnection",
        "[connection]\nid=uplink\ninterface-name=ens11\n\n[sriov]\ntotal-vfs=4\n",
    ),
    "nmstate": (
        "/run/NetworkManager/system-connections/ens11.nmconnection",
        "[connection]\nid=ens11\ninterface-name=ens11\n\n[sriov]\nvf.0=\n\n[user]\nnmstate.interface.description=x\n",
    ),
}


@pytest.mark.parametrize(("path", "text"), OWNERS.values(), ids=OWNERS)
async def test_a_pf_of_another_program_is_left_alone_and_reported(tmp_path, path, text):
    node = Node(sim_host(files={path: text}), tmp_path)
    node.api.ask(desired())
    status = await node.run_pass()
    assert (status.problem.reason, status.plan, node.port.writes) == (PfReason.FOREIGN_OWNER, None, [])
    assert path in status.problem.message


PROFILE = "/etc/NetworkManager/system-connections/x.nmconnection"
APPLYING = {
    "any link's": "",
    "its address": "[ethernet]\nmac-address=52:54:00:00:0B:01\n",
    "its address, and another one to give it": "[802-3-ethernet]\nmac-address=52:54:00:00:0b:01\ncloned-mac-address=random\n",
    "all addresses but another one": "[ethernet]\nmac-address-denylist=52:54:00:00:0c:01;\n",
    "a pattern": "[match]\ninterface-name=eth*;ens1?;\n",
    "a pattern that names another link": "[match]\ninterface-name=!ens12;\n",
    "mandatory patterns": "[match]\ninterface-name=&ens*;&!*99;\n",
    "an optional pattern that names another link": "[match]\ninterface-name=|eth0;|!ens12;\n",
    "a pattern that only fnmatch(3) can read": "[match]\ninterface-name=ens[[:digit:]]1;\n",
    "its path": f"[match]\npath=pci-{PF};\n",
    "its path by a pattern, indented": "  [match]\n  path=pci-0000:0b:*;\n",
    "its path with the way to its bus": f"[match]\npath=&platform-3f000000.pcie-pci-{PF};\n",
    "its path, apart from another bus": "[match]\npath=!platform-3f000000.pcie-pci-*;\n",
    "its driver": "[match]\ndriver=igb;\n",
    "what the kernel was started with": "[match]\nkernel-command-line=vfs;\n",
}


@pytest.mark.parametrize("conditions", APPLYING.values(), ids=APPLYING)
async def test_a_profile_with_vfs_owns_every_pf_it_may_apply_to(tmp_path, conditions):
    node = Node(sim_host(files={PROFILE: f"[connection]\nid=x\n{conditions}[sriov]\ntotal-vfs=4\n"}), tmp_path)
    node.api.ask(desired())
    assert (await node.run_pass()).problem.reason is PfReason.FOREIGN_OWNER


async def test_a_profile_for_another_mac_applies_if_the_mac_is_unknown(tmp_path):
    text = "[ethernet]\nmac-address=52:54:00:00:0c:01\n[sriov]\ntotal-vfs=4\n"
    node = Node(sim_host(files={PROFILE: text}), tmp_path)
    node.api.ask(desired())
    assert (await node.run_pass()).problem is None
    assigned = ReadFile("/sys/class/net/ens11/addr_assign_type")
    perform = node.port.perform

    def without_permanent_address(op):
        if isinstance(op, ReadLinks):
            return tuple(replace(link, permanent_mac=None) for link in perform(op))
        return "3" if op == assigned else perform(op)

    node.port.perform = without_permanent_address
    assert (await node.run_pass()).problem.reason is PfReason.FOREIGN_OWNER


HARMLESS = {
    "another link's profile": "[connection]\ninterface-name=ens99\n[sriov]\ntotal-vfs=4\n",
    "a profile without VFs": "[connection]\ninterface-name=ens11\n",
    "another address": "[ethernet]\nmac-address=52:54:00:00:0C:01\n[sriov]\ntotal-vfs=4\n",
    "all addresses but its own": "[ethernet]\nmac-address-blacklist=52:54:00:00:0B:01;\n[sriov]\ntotal-vfs=4\n",
    "a pattern for others": "[match]\ninterface-name=eth*;ens12;\n[sriov]\ntotal-vfs=4\n",
    "all links but it": "[match]\ninterface-name=!ens11;ens*;\n[sriov]\ntotal-vfs=4\n",
    "a mandatory pattern for others": "[match]\ninterface-name=ens11;&eth*;\n[sriov]\ntotal-vfs=4\n",
    "another path": "[match]\npath=pci-0000:0c:00.0;\n[sriov]\ntotal-vfs=4\n",
    "all paths but its own": f"[match]\npath=!pci-{PF};\n[sriov]\ntotal-vfs=4\n",
    "another driver": "[match]\ndriver=mlx5_core;\n[sriov]\ntotal-vfs=4\n",
    "its address under another name": (
        "[connection]\ninterface-name=ens99\n[ethernet]\nmac-address=52:54:00:00:0B:01\n[sriov]\ntotal-vfs=4\n"
    ),
}


@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS)
async def test_a_profile_without_vfs_of_the_pf_is_no_owner(tmp_path, text):
    node = Node(sim_host(files={PROFILE: text}), tmp_path)
    assert (await node.grant_and_run(desired())).num_vfs == 7


UNREADABLE = {
    "a directory": OSError(errno.EISDIR, "Is a directory"),
    "another user's": OSError(errno.EACCES, "Permission denied"),
    "a loop of links": OSError(errno.ELOOP, "Too many levels"),
    "a broken disk": OSError(errno.EIO, "Input/output error"),
    "too large": "x" * 70_000,
    "not UTF-8": "[sriov]\n\ufffd=1\n",
    "a NUL": "[sriov]\n\0\n",
    "noise": "what is this",
    "a key before any section": "id=x\n[connection]\ninterface-name=ens99\n",
}


def with_profile(node, answer):
    """Let the kernel answer a read of the profile with the given value."""
    perform = node.port.perform

    def answering(op):
        if op == ReadFile(PROFILE):
            if isinstance(answer, OSError):
                raise answer
            return answer
        return perform(op)

    node.port.perform = answering


@pytest.mark.parametrize("answer", UNREADABLE.values(), ids=UNREADABLE)
async def test_an_unreadable_profile_stops_only_new_changes(tmp_path, answer):
    node = Node(sim_host(files={PROFILE: "[connection]\n"}), tmp_path)
    node.devices = RecordingDevices()
    node.restart_agent()
    await node.grant_and_run(desired())
    with_profile(node, answer)
    kept = await node.run_pass()
    assert (kept.problem, kept.num_vfs, node.devices.faults) == (None, 7, {PF: ""})
    node.api.ask(desired(num_vfs=3))
    status = await node.run_pass()
    assert (status.problem.reason, status.plan, node.devices.faults) == (PfReason.FOREIGN_OWNER, None, {PF: ""})
    assert PROFILE in status.problem.message


async def test_a_granted_spec_is_restored_with_an_unreadable_profile(tmp_path):
    node = Node(sim_host(files={PROFILE: "[connection]\n"}), tmp_path)
    await node.grant_and_run(desired())
    node.sim.control({"reboot": None})
    with_profile(node, UNREADABLE["a directory"])
    assert (await node.run_pass()).num_vfs == 7


@pytest.mark.parametrize("text", ["\ufeff[sriov]\ntotal-vfs=4\n", "[connection]\nINTERFACE-NAME=other\n[sriov]\ntotal-vfs=4\n"])
async def test_a_profile_is_parsed_as_networkmanager_does(tmp_path, text):
    node = Node(sim_host(files={PROFILE: text}), tmp_path)
    node.api.ask(desired())
    assert (await node.run_pass()).problem.reason is PfReason.FOREIGN_OWNER


async def test_an_allowed_change_of_a_host_used_pf_is_disruptive(tmp_path):
    node = Node(sim_host(pf(addresses=("192.0.2.1/24",))), tmp_path)
    node.api.ask(desired(allow_host_used=True))
    status = await node.run_pass()
    assert (status.plan.disruptive, status.host_use) == (True, ("address 192.0.2.1/24",))
