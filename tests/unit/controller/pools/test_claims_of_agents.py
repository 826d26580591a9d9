"""An agent's report counts for its own node only, so it takes no device from a VM elsewhere."""

import pytest

from tests.builders.machines import VmScene
from tests.builders.vm import nad, nic, node, node_state, policy, pool

SEVEN = {"vmnic.dev/fast": "7"}
FAST = nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue")
BRIDGE = nad("br", segment="blue")


def scene(**options):
    """Return a scene with a pool of I350 VFs on n1, and a policy that prefers them."""
    wanted = policy(datapaths=("sriov", "emulated"), existing="Rolling", sriov={"pool": "fast"})
    found = VmScene(wanted, **options)
    found.put("network-attachment-definitions", FAST, BRIDGE)
    found.put("sriovnetworkpools", pool("fast", models=("I350", "82576")))
    found.put("nodes", node("n1", allocatable=SEVEN))
    found.put("nodenicstates", node_state("n1"))
    return found


def with_vm(found, name="web", *, os="windows", on="fast"):
    made = (
        nic("data", binding="sriov", network="fast")
        if on == "fast"
        else nic("data", binding="bridge", network=on, model="e1000e")
    )
    found.add(name, made, os=os)
    return found


async def looked(found, name="web"):
    found.requests.clear()
    for _ in range(3):
        await found.look(name)
        await found.machines.allocate()
    await found.look(name)
    return [verb for verb, _ in found.requests if verb != "write"]


def sees(found, *states):
    found.put("nodes", *(node(one["metadata"]["name"], allocatable=SEVEN) for one in states))
    found.put("nodenicstates", *states)


def unreadable(name="n1"):
    state = node_state(name)
    state["status"]["pfs"][0]["numVfs"] = 2**62
    return state


async def test_nic_of_another_node_takes_no_vf_from_a_running_vm():
    found = with_vm(scene())
    assert await looked(found) == []
    sees(found, node_state("n2", model="82576"))
    assert await looked(found) == []


async def test_nic_of_the_vms_own_node_counts():
    found = with_vm(scene())
    sees(found, node_state("n1", model="82576"))
    assert await looked(found) == ["patch", "restart"]


async def test_model_name_decides_nothing():
    found = with_vm(scene())
    state = node_state("n1")
    state["status"]["pfs"][0]["model"] = "82576"
    sees(found, state)
    assert await looked(found) == []


@pytest.mark.parametrize(("os", "asked"), [("windows", []), ("linux", ["patch", "restart"])])
async def test_node_gives_no_vf_to_a_guest_without_a_driver(os, asked):
    found = with_vm(scene(), os=os, on="br")
    sees(found, node_state("n1", held=range(7)), node_state("n2", model="82576"))
    assert await looked(found) == asked


async def test_node_that_becomes_unreadable_takes_nothing_away():
    found = with_vm(scene())
    sees(found, unreadable())
    assert await looked(found) == []


async def test_unreadable_node_gives_nothing_new():
    found = with_vm(scene(), os="linux", on="br")
    sees(found, unreadable())
    assert await looked(found) == []
    sees(found, node_state("n1"))
    assert await looked(found) == ["patch", "restart"]


async def test_no_vf_is_assigned_that_the_kubelet_does_not_advertise():
    found = with_vm(scene(), os="linux", on="br")
    found.put("nodes", node("n1", allocatable={"cpu": "8"}))
    assert await looked(found) == []
    found.put("nodes", node("n1", allocatable={"vmnic.dev/fast": "1"}))
    assert await looked(found) == ["patch", "restart"]


async def test_kubelet_that_advertises_nothing_takes_nothing_away():
    found = with_vm(scene())
    found.put("nodes", node("n1"))
    assert await looked(found) == []
