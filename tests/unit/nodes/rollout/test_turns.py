"""Nodes that wait for others."""

import pytest

from tests.builders.node import PF, pool, view
from vmnic.api.reasons import PfReason
from vmnic.nodes.rollout.ledger import Entry, EntryState, PoolLedger
from vmnic.nodes.rollout.turns import free_nodes_come, is_done, unanswered

HELD = [("db", "0000:0b:10.0")]
DRAIN = {"disruption": "Drain"}


def part(**entries):
    return PoolLedger(proven_generation=1, entries=entries)


def entry(state, **more):
    return Entry(generation=1, boot_id="b1", digests={PF: "d1"}, state=state, **more)


@pytest.mark.parametrize(
    ("changes", "waited_for"),
    [
        ({}, False),
        ({"current": False}, True),
        ({"generation": 2, "seen": 1}, True),
        ({"current": False, "ready": False}, False),
    ],
    ids=["it has answered", "its spec is not written yet", "its agent has not seen it", "it is down"],
)
def test_nodes_that_may_still_publish_plans_are_waited_for(changes, waited_for):
    assert unanswered([view("n1", **changes)]) == ({"n1"} if waited_for else set())


@pytest.mark.parametrize(
    ("changes", "done"),
    [
        ({"plan": None}, True),
        ({}, True),
        ({"fenced": True}, False),
        ({"blocked": HELD}, False),
        ({"plan": None, "current": False}, False),
        ({"plan": None, "generation": 2}, False),
        ({"plan": None, "ready": False}, False),
        ({"plan": None, "release": "Reset"}, False),
    ],
    ids=["nothing to do", "no VF goes", "its VFs go", "a VM has to leave", "not asked yet", "not answered", "down", "given up"],
)
def test_a_vm_may_stay_where_no_vf_will_disappear(changes, done):
    assert is_done(view("n1", **changes), pool(rollout=DRAIN)) is done


@pytest.mark.parametrize(
    ("entries", "node", "come"),
    [
        ({}, view("n1"), True),
        ({}, view("n1", disruptive=True), True),
        ({}, view("n1", plan=None), False),
        ({}, view("n1", blocked=HELD), False),
        ({}, view("n1", problem=PfReason.ROLLED_BACK), False),
        ({"n1": entry(EntryState.GRANTED)}, view("n1"), True),
        ({"n1": entry(EntryState.GRANTED, disruptive=True)}, view("n1"), False),
        ({"n1": entry(EntryState.RESTING)}, view("n1"), False),
        ({"n9": entry(EntryState.FAILED)}, view("n1"), False),
    ],
    ids=[
        "it may start", "the host's own traffic", "nothing to do", "a VM has to leave", "rolled back", "it changes",
        "it was drained", "it rests", "the rollout has stopped",
    ],
)  # fmt: skip
def test_nodes_without_vms_are_waited_for(entries, node, come):
    assert free_nodes_come(part(**entries), pool(rollout=DRAIN), [node]) is come
    assert not free_nodes_come(part(), pool(rollout=DRAIN), [node], without={"n1"})
