"""A pool that this version of vmnic cannot read, completely or in part."""

from tests.builders.fleet import Fleet
from vmnic.kube.reflector import ObjectKey


async def fleet_with(**spec):
    fleet = Fleet(1)
    fleet.edit(**spec)
    replica = fleet.replica()
    await fleet.run(replica, turns=20)
    return fleet, replica


def told(fleet):
    conditions = fleet.cluster.get("sriovnetworkpools", "fast")["status"]["conditions"]
    return {one["type"]: (one["status"], one["reason"]) for one in conditions}


async def test_field_of_a_newer_version_takes_nothing_away():
    fleet, _ = await fleet_with(color="blue", rollout={"speed": "High"})
    assert (told(fleet)["Ready"], fleet.settled(7)) == (("True", "AllNodesReady"), True)


async def test_selector_with_only_unknown_fields_selects_no_nic():
    fleet, replica = await fleet_with(nicSelector={"colors": ["blue"]})
    assert ObjectKey("", "fast") in replica.world.pools.malformed
    assert told(fleet)["Stalled"] == ("True", "UnsupportedSpec")


async def test_pool_reports_that_it_cannot_be_read_and_nodes_stay():
    fleet, replica = await fleet_with()
    fleet.edit(function="Quantum")
    await fleet.run(replica, turns=5)
    assert told(fleet) == {
        "Ready": ("False", "UnsupportedSpec"),
        "Reconciling": ("False", "Settled"),
        "Stalled": ("True", "UnsupportedSpec"),
    }
    assert "spec.function: Input should be 'Virtual' or 'Physical'" in str(fleet.cluster.get("sriovnetworkpools", "fast"))
    assert (fleet.settled(7), "fast" in replica.ledger.current.pools) == (True, True)
    changes = len(fleet.cluster.changes)
    await fleet.run(replica, turns=5)
    assert len(fleet.cluster.changes) == changes
    fleet.edit()
    await fleet.run(replica, turns=5)
    assert told(fleet)["Ready"] == ("True", "AllNodesReady")
