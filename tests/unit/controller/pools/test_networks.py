"""Networks of a pool beside foreign objects, and in a cluster without their kind."""

import msgspec
import pytest

from tests.builders.fleet import Fleet
from tests.builders.node import pf_spec, pool, view
from vmnic.api.node_state import VfGroup
from vmnic.controller.caches.projections import Nad
from vmnic.controller.pools.networks import NetworkReconciler
from vmnic.kube.errors import ApiError
from vmnic.kube.reflector import ObjectKey
from vmnic.nodes.pools.networks import RESOURCE, render_network
from vmnic.policy.facts import Network

OLD = pool(networks=[{"name": "fast"}])
KEY = ObjectKey("tenants", "fast")


async def settled(**spec):
    """Return a fleet without nodes whose pool is reconciled, and a replica with complete caches."""
    fleet = Fleet(0, **spec)
    replica = fleet.replica()
    replica.hear()
    await replica.work()
    for reflector in replica.world.reflectors:
        reflector.synced.set()
    replica.hear()
    return fleet, replica


def status(fleet):
    return fleet.cluster.get("sriovnetworkpools", "fast")["status"]


def reasons(fleet):
    return [one["reason"] for one in status(fleet).get("problems", [])]


async def removed(fleet, replica):
    """Delete the pool and return whether it is gone."""
    pool = fleet.cluster.get("sriovnetworkpools", "fast")
    fleet.cluster.put(
        "sriovnetworkpools", pool | {"metadata": pool["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
    )
    replica.hear()
    await replica._pools.reconcile("fast")
    return fleet.cluster.get("sriovnetworkpools", "fast") is None


def nad(own=None):
    return Nad(network=Network(namespace="tenants", name="fast"), own=own)


async def test_network_that_cannot_be_deleted_is_reported_and_retried():
    async def delete(resource, name, namespace=""):
        raise ApiError(status=403, reason="Forbidden", message="a webhook says no")

    fleet, replica = await settled()
    fleet.cluster.delete = delete
    replica.world.networks.items[KEY] = nad(render_network(OLD, OLD.spec.networks[0]))
    assert await replica._pools.reconcile("fast") == 30.0
    assert reasons(fleet) == ["NadRefused"]
    assert "a webhook says no" in status(fleet)["problems"][0]["message"]


@pytest.mark.parametrize("count", [1, 12])
async def test_foreign_networks_neither_hold_nor_affect_a_pool(count):
    fleet, replica = await settled()
    for number in range(count):
        replica.world.networks.items[ObjectKey("tenants", f"n{number}")] = nad()
    await replica._pools.reconcile("fast")
    assert reasons(fleet) == []
    assert await removed(fleet, replica)


@pytest.mark.parametrize("owner", [None, render_network(pool("other"), OLD.spec.networks[0])], ids=["nobody", "another pool"])
async def test_foreign_object_of_the_same_name_stays_unchanged(owner):
    fleet, replica = await settled(networks=[{"name": "fast"}])
    fleet.cluster.put("namespaces", {"metadata": {"name": "tenants"}})
    replica.world.namespaces._store(b'{"metadata": {"name": "tenants"}}')
    replica.world.networks.items[KEY] = nad(owner)
    await replica._pools.reconcile("fast")
    assert reasons(fleet) == ["NadExists"]
    assert fleet.cluster.get("network-attachment-definitions", "fast", "tenants") is None


async def test_pool_reports_the_missing_kind_and_can_be_removed():
    fleet, replica = await settled(networks=[{"name": "fast"}])
    replica.world.networks.absent = True
    assert await replica._pools.reconcile("fast") == 30.0
    assert reasons(fleet) == ["NadKindAbsent"]
    ready = status(fleet)["conditions"][0]
    assert (ready["status"], ready["reason"], "install Multus" in ready["message"]) == ("False", "NadKindAbsent", True)
    assert await removed(fleet, replica)


async def test_each_resource_has_a_network():
    fleet, replica = await settled()
    replica.world.namespaces._store(msgspec.Raw(b'{"metadata": {"name": "tenants", "labels": {}}}'))
    for name in ("ens1f0", "ens1f1"):
        group = VfGroup(pool="fast", resource=f"vmnic.dev/fast-{name}")
        state = view(name).state
        spec = msgspec.structs.replace(state.spec, pfs=(pf_spec(groups=(group,)),))
        replica.world.node_states.items[ObjectKey("", name)] = msgspec.structs.replace(state, spec=spec)
    owner = pool(resourcePerPF=True, networks=[{"name": "fast"}])
    assert await NetworkReconciler(replica.world, fleet.cluster).reconcile(owner) == ()
    made = {name: body for (plural, _, name), body in fleet.cluster.objects.items() if plural.startswith("network-")}
    assert {name: body["metadata"]["annotations"][RESOURCE] for name, body in made.items()} == {
        "fast-ens1f0": "vmnic.dev/fast-ens1f0", "fast-ens1f1": "vmnic.dev/fast-ens1f1",
    }  # fmt: skip
