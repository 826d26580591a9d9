"""Messages of an uninstallation: what will be removed, and what blocks it."""

import pytest

from tests.builders.node import PF, pool, view
from vmnic.api.reasons import PfReason
from vmnic.cli.objects import Objects
from vmnic.cli.uninstall import blockers_of, describe


def objects(**changes):
    return Objects(node_states={"n1": view("n1", **changes).state}, pools={"fast": pool()})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"blocked": [("db", "0000:0b:10.0")]}, "pod tenants/db holds 0000:0b:10.0"),
        ({"problem": PfReason.PCI_BUS_STUCK}, "PciBusStuck: scripted"),
        ({"generation": 2, "seen": 1}, "its agent has not answered yet"),
        ({}, "is being released"),
    ],
    ids=["somebody holds a VF", "something is wrong", "no answer", "under way"],
)
def test_the_blocker_of_each_node_is_named(changes, why):
    assert blockers_of(objects(**changes)) == [f"node n1, {PF}: {why}"]


def test_vfs_being_released_still_count():
    found = objects(num_vfs=7, blocked=[("db", "0000:0b:11.4")], release="Reset")
    assert describe(found) == ["SriovNetworkPool fast: its VFs go (VFs: 7, in use: 1; nodes: 1)"]


def test_what_will_be_removed_is_listed():
    assert describe(objects()) == ["SriovNetworkPool fast: its VFs go (VFs: 0, in use: 0; nodes: 1)"]
