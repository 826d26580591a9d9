"""IOMMU groups from the host to the device that a VM gets."""

import errno

import pytest

from tests.builders.agent import Node, desired
from tests.builders.host import OTHER_PF, PF, pf, sim_host
from tests.builders.node import pf_spec
from tests.harness.faults import Fault, When
from vmnic.agent.kubelet.plugin import DevicePlugin
from vmnic.api.reasons import PfReason
from vmnic.host.ops import ReadFile
from vmnic.simhost.spec import DeviceSpec, ImpossibleHostError, IommuGroupSpec, parse_host

PORT = "0000:00:1c.0"
DUMMY = "0000:00:1c.1"
SOUND = "0000:00:1f.3"


def grouped(*devices, regions=(), **changes):
    group = IommuGroupSpec(id=34, devices=(PF, *(one.address for one in devices)), reserved_regions=regions)
    others = tuple(one for one in devices if isinstance(one, DeviceSpec))
    pfs = (pf(), *(one for one in devices if not isinstance(one, DeviceSpec)))
    return sim_host(*pfs, devices=others, iommu_groups=(group,), **changes)


def whole(address=PF, pool="fast", **changes):
    return pf_spec(address, function="Physical", num_vfs=0, pool=pool, **changes)


async def test_a_nic_in_a_group_with_bridges_is_passed_through(tmp_path):
    bridges = (DeviceSpec(address=PORT, driver="pcieport"), DeviceSpec(address=DUMMY, pci_class="060000"))
    node = Node(grouped(*bridges), tmp_path)
    status = await node.grant_and_run(whole())
    assert (status.driver, status.problem, status.iommu_group) == ("vfio-pci", None, 34)
    node.sim.control({"hold": PF})


async def test_vfs_below_a_port_without_acs_are_refused(tmp_path):
    node = Node(grouped(DeviceSpec(address=PORT, driver="pcieport")), tmp_path)
    node.api.ask(desired())
    problem = (await node.run_pass()).problem
    assert (problem.reason, "the function itself" in problem.message) == (PfReason.IOMMU_GROUP_SHARED, True)


async def test_a_member_with_a_driver_is_named_until_it_is_unbound(tmp_path):
    node = Node(grouped(DeviceSpec(address=SOUND, pci_class="040300", driver="snd_hda_intel")), tmp_path)
    node.api.ask(whole())
    problem = (await node.run_pass()).problem
    assert (problem.reason, f"{SOUND} on snd_hda_intel" in problem.message) == (PfReason.IOMMU_GROUP_SHARED, True)
    node.sim.control({"bind_device": {"address": SOUND, "driver": ""}})
    assert (await node.run_pass()).problem is None


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        ("7b800000-7b8fffff direct", PfReason.RESERVED_MEMORY_REGION),
        ("7b800000-7b8fffff direct-relaxable", None),
        ("7b800000-7b8fffff reserved", None),
        ("fee00000-feefffff msi", None),
    ],
)
async def test_only_a_direct_region_keeps_a_nic_from_vms(tmp_path, region, reason):
    node = Node(grouped(regions=(region,)), tmp_path)
    node.api.ask(whole())
    problem = (await node.run_pass()).problem
    assert (problem and problem.reason) == reason
    assert problem is None or "7b800000-7b8fffff" in problem.message


async def test_regions_that_cannot_be_read_are_named(tmp_path):
    node = Node(grouped(), tmp_path)
    matches = lambda op: isinstance(op, ReadFile) and op.path.endswith("/34/reserved_regions")  # noqa: E731
    node.port.faults += [Fault(when=When.ERRNO, errno=errno.EACCES, matches=matches)]
    node.api.ask(whole())
    problem = (await node.run_pass()).problem
    assert (problem.reason, "EACCES" in problem.message) == (PfReason.RESERVED_MEMORY_REGION, True)


async def run_both(node, *specs):
    """Grant every plan, and return the status of both functions."""
    node.api.ask(*specs)
    found = {one.pci_address: one for one in (await node.agent.run(node.api.state)).pfs}
    changes = [
        whole(one.pci_address, one.pool, grant=found[one.pci_address].plan and found[one.pci_address].plan.digest)
        for one in specs
    ]
    node.api.ask(*changes)
    return {one.pci_address: one for one in (await node.agent.run(node.api.state)).pfs}


async def test_two_ports_in_one_group_become_one_device(tmp_path):
    node = Node(grouped(pf(OTHER_PF)), tmp_path)
    plugin = DevicePlugin(tmp_path / "plugins", tmp_path / "info", node.holders)
    node.devices = plugin
    node.restart_agent()
    found = await run_both(node, whole(), whole(OTHER_PF))
    assert [found[one].problem for one in (PF, OTHER_PF)] == [None, None]
    (device,) = plugin._inventory.listing("vmnic.dev/fast")
    assert (device.address, [one.address for one in device.others], device.fault) == (PF, [OTHER_PF], "")


async def test_two_pools_in_one_group_name_each_other(tmp_path):
    node = Node(grouped(pf(OTHER_PF)), tmp_path)
    found = await run_both(node, whole(), whole(OTHER_PF, "slow"))
    assert [found[one].problem.reason for one in (PF, OTHER_PF)] == [PfReason.IOMMU_GROUP_SHARED] * 2
    assert f"{OTHER_PF} on igb of pool slow" in found[PF].problem.message


async def test_a_group_that_an_unknown_process_opened_is_held(tmp_path):
    node = Node(grouped(pf(OTHER_PF)), tmp_path)
    await run_both(node, whole(), whole(OTHER_PF))
    node.sim.control({"hold": PF})
    node.api.ask(whole(release="Reset"), whole(OTHER_PF, release="Reset"))
    found = {one.pci_address: one for one in (await node.agent.run(node.api.state)).pfs}
    assert found[OTHER_PF].plan.blocked_by == (f"an unknown process holds {OTHER_PF}",)


async def test_a_nic_waits_while_its_partner_does_not_answer(tmp_path):
    node = Node(grouped(pf(OTHER_PF)), tmp_path)
    matches = lambda op: isinstance(op, ReadFile) and op.path.endswith(f"{OTHER_PF}/numa_node")  # noqa: E731
    node.port.faults.append(Fault(when=When.ERRNO, errno=errno.EIO, matches=matches))
    node.api.ask(whole(), whole(OTHER_PF))
    problem = (await node.run_pass()).problem
    assert (problem.reason, f"{OTHER_PF} does not answer" in problem.message) == (PfReason.IOMMU_GROUP_SHARED, True)


async def test_the_holder_of_a_group_holds_all_of_it(tmp_path):
    node = Node(grouped(pf(OTHER_PF)), tmp_path)
    await run_both(node, whole(), whole(OTHER_PF))
    node.holders.names = {PF: "pod a/b"}
    node.api.ask(whole(release="Reset"), whole(OTHER_PF, release="Reset"))
    found = {one.pci_address: one for one in (await node.agent.run(node.api.state)).pfs}
    assert found[OTHER_PF].plan.blocked_by == (f"pod a/b holds {OTHER_PF}",)


@pytest.mark.parametrize(
    "text",
    [
        'iommuGroups: [{devices: ["0000:0b:00.0"]}]',
        'devices: [{address: "0000:00:1c.0"}, {address: "0000:00:1c.0"}]',
        'devices: [{address: "0000:00:1c.0"}]\niommuGroups: [{devices: ["0000:00:1c.0"]}, {devices: ["0000:00:1c.0"]}]',
    ],
    ids=["an unknown function", "one address twice", "a function in two groups"],
)
def test_an_impossible_group_is_refused(text):
    with pytest.raises(ImpossibleHostError):
        parse_host(text)
