"""Events of nodes that lead to another report of a pool."""

import pytest

from tests.builders.fleet import Fleet
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
