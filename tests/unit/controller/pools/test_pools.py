"""A pool that this version of vmnic cannot read, or not wholly."""

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


async def test_a_field_that_a_newer_version_knows_takes_nothing_away():
    fleet, _ = await fleet_with(color="blue", rollout={"speed": "High"})
    assert (told(fleet)["Ready"], fleet.settled(7)) == (("True", "AllNodesReady"), True)


async def test_a_selector_that_is_empty_without_such_fields_selects_no_nic():
    fleet, replica = await fleet_with(nicSelector={"colors": ["blue"]})
    assert ObjectKey("", "fast") in replica.world.pools.malformed
    assert told(fleet)["Stalled"] == ("True", "SpecNotUnderstood")


async def test_a_pool_that_cannot_be_read_any_more_is_told_so_and_its_nodes_stay():
    fleet, replica = await fleet_with()
    fleet.edit(function="Quantum")
    await fleet.run(replica, turns=5)
    assert told(fleet) == {
        "Ready": ("False", "SpecNotUnderstood"),
        "Reconciling": ("False", "Settled"),
        "Stalled": ("True", "SpecNotUnderstood"),
    }
    assert "spec.function: Input should be 'Virtual' or 'Physical'" in str(fleet.cluster.get("sriovnetworkpools", "fast"))
    assert (fleet.settled(7), "fast" in replica.ledger.current.pools) == (True, True)
    changes = len(fleet.cluster.changes)
    await fleet.run(replica, turns=5)
    assert len(fleet.cluster.changes) == changes
    fleet.edit()
    await fleet.run(replica, turns=5)
    assert told(fleet)["Ready"] == ("True", "AllNodesReady")
