"""VFs that are about to be removed, and a pod that wants one at that moment.

`Allocate` never fails, and a write never blocks on a holder.
"""

import asyncio

import pytest

from tests.builders.agent import Node, desired
from tests.builders.devices import FAST, eventually, offer, vf_id, whole_offer
from tests.builders.host import OTHER_PF, PF, sim_host
from tests.harness.faults import Fault, Killed, When
from tests.harness.kubelet import AdmissionError, ContainerStartError
from vmnic.api.node_state import ApplyState, PfSpec, VfGroup
from vmnic.host.ops import ListDir, ReadLink, WriteFile
from vmnic.kube.tasks import cancel_and_wait


@pytest.fixture
async def node(plugin, tmp_path):
    node = Node(sim_host(), tmp_path)
    node.holders = node.fence = node.devices = plugin
    node.restart_agent()
    return node


async def prepared(node, kubelet):
    await node.grant_and_run(desired())
    await eventually(lambda: len(kubelet.healthy(FAST)) == 7)


async def test_fenced_devices_are_unhealthy_until_the_next_observation(kubelet, plugin):
    offers = [offer(), offer(OTHER_PF, count=1), whole_offer()]
    plugin.replace(offers, {})
    await eventually(lambda: len(kubelet.healthy(FAST)) == 4 and kubelet.healthy("vmnic.dev/whole"))
    await plugin.close([PF])
    await eventually(lambda: (kubelet.healthy(FAST), kubelet.healthy("vmnic.dev/whole")) == ({vf_id(0, "0c")}, set()))
    await plugin.open([PF])
    await plugin.close([OTHER_PF])
    await eventually(lambda: kubelet.healthy(FAST) == set())
    plugin.replace(offers, {})
    await eventually(lambda: len(kubelet.healthy(FAST)) == 3 and kubelet.healthy("vmnic.dev/whole"))


async def test_a_container_with_a_fenced_vf_waits_and_then_starts(kubelet, plugin):
    plugin.replace([offer()], {})
    await eventually(lambda: len(kubelet.healthy(FAST)) == 3)
    pod = await kubelet.admit("db", FAST)
    await plugin.close([PF])
    start = asyncio.create_task(kubelet.start_container(pod))
    await eventually(lambda: kubelet.calls[-1] == "PreStartContainer")
    assert not start.done()
    await plugin.open([PF])
    plugin.replace([offer()], {})
    await start


async def test_a_container_is_refused_with_the_reason_after_a_while(kubelet, plugin, monkeypatch):
    monkeypatch.setattr("vmnic.agent.kubelet.service._PRE_START_S", 0.05)
    plugin.replace([offer()], {})
    await eventually(lambda: len(kubelet.healthy(FAST)) == 3)
    pod = await kubelet.admit("db", FAST)
    await plugin.close([PF])
    with pytest.raises(ContainerStartError, match="is about to be changed"):
        await kubelet.start_container(pod)


async def test_a_granted_plan_makes_vfs_allocatable(node, kubelet):
    await prepared(node, kubelet)
    status = await node.grant_and_run(desired(num_vfs=3))
    assert status.apply.state is ApplyState.APPLIED
    await eventually(lambda: len(kubelet.healthy(FAST)) == 3)
    assert len(kubelet.listed(FAST)) == 3


async def test_a_whole_nic_is_fenced_before_it_returns_to_the_host(tmp_path):
    node = Node(sim_host(), tmp_path)
    group = VfGroup(pool="whole", resource="vmnic.dev/whole")
    await node.grant_and_run(PfSpec(pci_address=PF, pool="whole", function="Physical", groups=(group,)))
    node.fence.ever.clear()
    status = await node.grant_and_run(desired(num_vfs=0))
    assert (status.driver, node.fence.ever, node.fence.closed) == ("igb", {PF}, set())


async def test_a_pod_gets_the_device_nodes_of_its_vf(node, kubelet):
    await prepared(node, kubelet)
    pod = await kubelet.admit("db", FAST)
    (vf,) = pod.devices
    group = node.sim.perform(ReadLink(f"/sys/bus/pci/devices/{vf}/iommu_group")).rsplit("/", 1)[-1]
    (device,) = node.sim.perform(ListDir(f"/sys/bus/pci/devices/{vf}/vfio-dev"))
    nodes = [one.host_path for one in pod.allocations[0].answer.devices]
    assert nodes == ["/dev/vfio/vfio", f"/dev/vfio/{group}", f"/dev/vfio/devices/{device}"]


async def test_a_vf_allocated_before_the_fence_refuses_the_change(node, kubelet, plugin):
    await prepared(node, kubelet)
    pods = []
    close = plugin.close

    async def race(functions):
        pods.append(await kubelet.admit("db", FAST, 7))
        kubelet.end(pods[0])  # The kubelet names a pod only some milliseconds later.
        await close(functions)

    plugin.close = race
    status = await node.grant_and_run(desired(num_vfs=3))
    assert (status.apply.state, status.num_vfs) == (ApplyState.REFUSED, 7)
    await kubelet.start_container(pods[0])


async def test_a_pod_after_the_fence_finds_no_device_and_no_call_fails(node, kubelet, plugin):
    await prepared(node, kubelet)
    seen = []

    async def late(functions, close=plugin.close):
        await close(functions)
        await eventually(lambda: not kubelet.healthy(FAST), limit_s=0.5)
        with pytest.raises(AdmissionError, match="available 0"):
            await kubelet.admit("late", FAST)
        seen.append(list(kubelet.calls))

    plugin.close = late
    status = await node.grant_and_run(desired(num_vfs=3))
    assert status.apply.state is ApplyState.APPLIED
    assert "Allocate" not in seen[0]
    await eventually(lambda: len(kubelet.healthy(FAST)) == 3)


async def test_a_killed_agent_offers_nothing_until_its_change_ends(node, kubelet, plugin, start_plugin):
    await prepared(node, kubelet)
    node.port.faults.append(Fault(when=When.AFTER, matches=lambda op: isinstance(op, WriteFile) and "numvfs" in op.path))
    with pytest.raises(Killed):
        await node.grant_and_run(desired(num_vfs=3))
    await cancel_and_wait([plugin.task])
    node.port.faults.clear()
    node.holders = node.fence = node.devices = fresh = start_plugin()
    offered = []

    def record(offers, held, replace=fresh.replace):
        replace(offers, held)
        offered.append({device.address: device.fault for device in fresh._inventory.listing(FAST)})

    fresh.replace = record
    node.restart_agent()
    assert (await node.run_pass()).num_vfs == 3
    assert not any("" in listing.values() for listing in offered[:-1])
    assert list(offered[-1].values()) == ["", "", ""]
    await eventually(lambda: len(kubelet.healthy(FAST)) == 3)


async def test_lost_hardware_is_reported_by_the_next_pass(node, kubelet):
    await prepared(node, kubelet)
    node.sim.control({"remove_device": PF})
    await node.run_pass()
    await eventually(lambda: kubelet.healthy(FAST) == set(), limit_s=0.5)
    assert len(kubelet.listed(FAST)) == 7


async def test_a_pf_that_hangs_is_kept_from_pods_until_it_answers(node, kubelet):
    await prepared(node, kubelet)
    node.port.faults.append(Fault(when=When.HANG, matches=lambda op: getattr(op, "path", "").endswith(f"{PF}/resource")))
    await node.run_pass()
    await eventually(lambda: kubelet.healthy(FAST) == set(), limit_s=0.5)
