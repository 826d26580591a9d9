"""Events of nodes and VMs after which a pool reports again."""

import pytest

from tests.builders.fleet import Fleet
from tests.builders.machines import VmScene
from tests.builders.vm import nic, pool
from vmnic.controller.caches.keys import pool_key


@pytest.mark.parametrize(
    ("allocatable", "reports"),
    [({"vmnic.dev/fast": "7"}, True), ({"cpu": "63"}, False)],
    ids=["devices", "processors"],
)
async def test_pool_counts_again_when_a_kubelet_offers_devices(allocatable, reports):
    fleet = Fleet(1)
    replica = fleet.replica()
    await fleet.run(replica, turns=20)
    node = fleet.cluster.get("nodes", "n0000")
    fleet.cluster.put("nodes", node | {"status": node["status"] | {"allocatable": allocatable}})
    replica.queue.clear()
    replica.hear()
    assert (pool_key("fast") in replica.queue) is reports


@pytest.mark.parametrize(("binding", "reports"), [("sriov", True), ("bridge", False)])
def test_pool_counts_again_when_the_vfs_of_specs_change(binding, reports):
    scene = VmScene()
    scene.put("sriovnetworkpools", pool())

    def is_reported():
        found = pool_key("fast") in scene.queue
        scene.queue.clear()
        return found

    is_reported()
    scene.add("web", nic("fast", binding=binding, network="fast"), uid="", run_strategy="Halted")
    assert is_reported() is reports
    body = scene.get("virtualmachines", "web")
    scene.put("virtualmachines", body | {"metadata": body["metadata"] | {"labels": {"tier": "front"}}})
    assert not is_reported()
    scene.remove("virtualmachines", "web")
    assert is_reported() is reports
