"""What the API server refuses about a pool's networks."""

from tests.builders.fleet import Fleet
from tests.builders.node import pool
from vmnic.kube.errors import ApiError
from vmnic.kube.reflector import ObjectKey
from vmnic.nodes.networks import render_network


async def test_a_network_that_may_not_be_deleted_is_told_and_tried_again():
    async def delete(resource, name, namespace=""):
        raise ApiError(status=403, reason="Forbidden", message="a webhook says no")

    fleet = Fleet(1)
    fleet.cluster.delete = delete
    replica = fleet.replica()
    replica.hear()
    await replica.work()
    old = pool(networks=[{"name": "fast"}])
    replica.world.own_networks.items[ObjectKey("tenants", "fast")] = render_network(old, old.spec.networks[0])
    for reflector in replica.world.reflectors:
        reflector.synced.set()
    replica.hear()
    assert await replica._pools.reconcile("fast") == 30.0
    problems = fleet.cluster.get("sriovnetworkpools", "fast")["status"]["problems"]
    assert [one["reason"] for one in problems] == ["NadRefused"]
    assert "a webhook says no" in problems[0]["message"]
