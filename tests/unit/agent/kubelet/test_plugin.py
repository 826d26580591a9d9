"""The plugin with a kubelet that follows its rules: registration, resizing, health, restarts of both sides, allocation."""

import asyncio
import json
import time

import pytest

from tests.builders.devices import FAST, eventually, observed, offer, vf_id, whole_offer
from tests.harness.kubelet import AdmissionError, Allocation, ContainerStartError, Pod
from vmnic.agent.kubelet.endpoint import socket_name
from vmnic.agent.kubelet.podresources import HoldersUnknownError, KubeletHolders
from vmnic.kube.tasks import cancel_and_wait

ALL = {vf_id(0), vf_id(1), vf_id(2)}


async def test_a_resource_is_registered_once_it_is_offered(kubelet, plugin):
    await asyncio.sleep(0)
    assert kubelet.calls == []
    plugin.replace([offer()], {})
    await eventually(lambda: kubelet.healthy(FAST) == ALL)
    assert kubelet.calls == [f"Register {FAST}"]


async def test_a_resize_and_a_fault_are_sent_without_registering_again(kubelet, plugin):
    plugin.replace([offer()], {})
    await eventually(lambda: kubelet.healthy(FAST) == ALL)
    plugin.replace([offer(count=2)], {})
    await eventually(lambda: kubelet.listed(FAST) == {vf_id(0), vf_id(1)})
    plugin.replace([offer(count=2, pf=observed(count=1))], {})
    await eventually(lambda: kubelet.healthy(FAST) == {vf_id(0)})
    assert kubelet.listed(FAST) == {vf_id(0), vf_id(1)}
    assert kubelet.calls == [f"Register {FAST}"]


async def test_several_resources_are_independent(kubelet, plugin):
    plugin.replace([offer(range="0"), offer(resource="vmnic.dev/slow", range="1-2")], {})
    await eventually(lambda: (len(kubelet.healthy(FAST)), len(kubelet.healthy("vmnic.dev/slow"))) == (1, 2))
    plugin.replace([offer(range="0")], {})
    await eventually(lambda: not kubelet.plugins["vmnic.dev/slow"].connected)
    assert kubelet.listed("vmnic.dev/slow") == set()
    assert len(kubelet.healthy(FAST)) == 1


async def test_a_restarted_kubelet_has_all_devices_within_a_second(kubelet, plugin):
    plugin.replace([offer()], {})
    await eventually(lambda: kubelet.healthy(FAST) == ALL)
    await kubelet.stop()
    await eventually(lambda: not kubelet.socket.exists())
    await kubelet.start()
    started = time.monotonic()
    await eventually(lambda: kubelet.healthy(FAST) == ALL)
    assert time.monotonic() - started < 1


async def test_a_kubelet_that_starts_late_is_detected(kubelet, plugin):
    await kubelet.stop()
    plugin.replace([offer()], {})
    await asyncio.sleep(0.05)
    await kubelet.start()
    await eventually(lambda: kubelet.healthy(FAST) == ALL, limit_s=1)


async def test_a_resource_registers_again_after_a_lost_watch(kubelet, plugin):
    plugin.replace([offer()], {})
    await eventually(lambda: kubelet.healthy(FAST) == ALL)
    kubelet.plugins[FAST].channel.close()
    await eventually(lambda: kubelet.calls.count(f"Register {FAST}") == 2 and kubelet.healthy(FAST) == ALL)


async def test_a_removed_socket_is_served_again(kubelet, plugin):
    plugin.replace([offer()], {})
    await eventually(lambda: kubelet.healthy(FAST) == ALL)
    (kubelet.directory / socket_name(kubelet.directory, FAST)).unlink()
    await eventually(lambda: kubelet.calls.count(f"Register {FAST}") == 2 and kubelet.healthy(FAST) == ALL)


async def test_a_restarted_plugin_takes_over_from_a_killed_one(kubelet, plugin, start_plugin):
    plugin.replace([offer()], {})
    await eventually(lambda: kubelet.healthy(FAST) == ALL)
    pod = await kubelet.admit("db", FAST)
    await cancel_and_wait([plugin.task])
    await eventually(lambda: kubelet.healthy(FAST) == set())
    with pytest.raises(ContainerStartError):
        await kubelet.start_container(pod)
    start_plugin().replace([offer()], {})
    await eventually(lambda: kubelet.healthy(FAST) == ALL)
    await kubelet.start_container(pod)
    assert list(kubelet.directory.glob("vmnic-*")) == [kubelet.directory / socket_name(kubelet.directory, FAST)]


async def test_pods_get_distinct_vfs_with_environment_and_nodes(kubelet, plugin, node_directory):
    plugin.replace([offer()], {})
    await eventually(lambda: kubelet.healthy(FAST) == ALL)
    pods = [await kubelet.admit(f"db-{number}", FAST) for number in range(3)]
    assert {pod.devices for pod in pods} == {(device,) for device in ALL}
    with pytest.raises(AdmissionError):
        await kubelet.admit("late", FAST)
    answer = pods[0].allocations[0].answer
    env, nodes = answer.envs, [one.host_path for one in answer.devices]
    assert env["PCIDEVICE_VMNIC_DEV_FAST"] == pods[0].devices[0]
    assert nodes == ["/dev/vfio/vfio", "/dev/vfio/110", "/dev/vfio/devices/vfio0"]
    assert {one.permissions for one in answer.devices} == {"rw"}
    assert {one.container_path for one in answer.devices} == set(nodes)


async def test_device_info_exists_after_allocate_and_while_listed(kubelet, plugin, node_directory, clock):
    plugin.replace([offer()], {})
    await eventually(lambda: kubelet.healthy(FAST) == ALL)
    await kubelet.admit("db", FAST)
    file = node_directory / "info" / f"vmnic.dev-fast-{vf_id(0)}-device.json"
    assert json.loads(file.read_text())["pci"]["pci-address"] == vf_id(0)
    stranger = file.with_name("vmnic.dev-fast-other-0000:0b:10.0-device.json")
    stranger.write_text("{}")
    plugin.replace([offer(range="1-2")], {})
    assert file.exists(), "a pod was given it a moment ago"
    clock.now += 11
    plugin.replace([offer(range="1-2")], {})
    assert [one for one in (file, stranger) if one.exists()] == [stranger]


async def test_a_whole_nic_can_be_allocated(kubelet, plugin):
    plugin.replace([whole_offer()], {})
    await eventually(lambda: kubelet.healthy("vmnic.dev/whole"))
    pod = await kubelet.admit("vm", "vmnic.dev/whole")
    assert pod.allocations[0].answer.envs["PCI_RESOURCE_VMNIC_DEV_WHOLE"] == "0000:0b:00.0"


@pytest.mark.parametrize(("node", "told"), [(1, [1]), (0, [0]), (None, None)])
async def test_known_numa_nodes_are_sent_to_the_kubelet(kubelet, plugin, node, told):
    plugin.replace([offer(pf=observed(numa_node=node))], {})
    await eventually(lambda: kubelet.healthy(FAST) == ALL)
    device = kubelet.plugins[FAST].devices[vf_id(0)]
    assert ([one.ID for one in device.topology.nodes] if device.HasField("topology") else None) == told


async def test_the_kubelet_follows_the_preferred_allocation(kubelet, plugin):
    plugin.replace([offer(), offer("0000:0c:00.0", count=4)], {})
    await eventually(lambda: len(kubelet.healthy(FAST)) == 7)
    pod = await kubelet.admit("bond", FAST, 2)
    assert {device[5:7] for device in pod.devices} == {"0b", "0c"}


async def test_holders_are_read_from_devices_and_claims(kubelet):
    holders = KubeletHolders(kubelet.pod_resources, kubelet.directory)
    kubelet.pods["tenants", "db"] = Pod("db", "tenants", [Allocation(FAST, (vf_id(0), vf_id(1)))])
    kubelet.pods["tenants", "dra"] = Pod("dra", "tenants", claims=("0000-0b-10-2", "something-else"))
    assert await holders.read() == {
        vf_id(0): "pod tenants/db", vf_id(1): "pod tenants/db", vf_id(2): "pod tenants/dra",
    }  # fmt: skip


async def test_an_allocation_is_a_holder_until_the_kubelet_names_it(kubelet, plugin, clock):
    plugin.replace([offer()], {})
    await eventually(lambda: kubelet.healthy(FAST) == ALL)
    pod = await kubelet.admit("db", FAST)
    kubelet.end(pod)
    assert await plugin.read() == {vf_id(0): "a pod that is starting"}
    kubelet.pods["tenants", "db"] = pod
    assert await plugin.read() == {vf_id(0): "pod tenants/db"}
    kubelet.end(pod)
    assert await plugin.read() == {}
    kubelet.end(await kubelet.admit("refused", FAST))
    clock.now += 11
    assert await plugin.read() == {}


async def test_a_rate_limited_kubelet_is_asked_again(kubelet):
    holders = KubeletHolders(kubelet.pod_resources, kubelet.directory)
    kubelet.limited = True
    for _ in range(20):
        assert await holders.read() == {}
    await kubelet.stop()
    kubelet.pod_resources.touch()
    with pytest.raises(HoldersUnknownError):
        await holders.read()


@pytest.mark.parametrize("length", [10, 60, 80])
def test_a_socket_path_fits_in_every_directory(tmp_path, length):
    directory = tmp_path.joinpath("x").with_name("d" * length).relative_to(tmp_path)
    names = {socket_name(directory, f"vmnic.dev/{'pool' * 15}-{number}") for number in range(3)}
    assert len(names) == 3
    assert all(len(bytes(directory / name)) <= 107 for name in names)
