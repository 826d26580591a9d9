"""What a rollout waits for, and which nodes pause."""

import pytest

from tests.builders.node import PF, view
from vmnic.controller.pools.rollout_memory import RolloutMemory
from vmnic.nodes.rollout.ledger import Entry, EntryState, PoolLedger

SILENT = view("n1", current=False)


def ended(memory, node, now, state=EntryState.GRANTED):
    entry = Entry(generation=1, boot_id="b1", digests={PF: "d1"}, state=state)
    memory.note_ends(PoolLedger(entries={node: entry}), PoolLedger(), now)


@pytest.mark.parametrize(("nodes", "bound"), [(3, 30), (1000, 80)], ids=["a few", "as many as are written in 50 s"])
def test_wait_for_plans_is_bounded(nodes, bound):
    memory = RolloutMemory(generation=2, since=100, nodes=nodes)
    assert [memory.waits_for_plans([SILENT], 100 + late) for late in (bound - 1, bound)] == [True, False]
    assert not memory.waits_for_plans([view("n1")], 100)


def test_each_free_node_extends_the_wait_once():
    memory = RolloutMemory(generation=2, since=0)
    ended(memory, "n1", 100)
    assert memory.free_until == 130
    ended(memory, "n1", 120)
    assert memory.free_until == 130
    ended(memory, "n2", 120)
    assert memory.free_until == 150


def test_node_that_keeps_changing_pauses_for_a_growing_time():
    memory, pauses = RolloutMemory(generation=2, since=0), []
    for _ in range(14):
        ended(memory, "liar", 1000)
        pauses.append(next((s for s in range(4000) if "liar" not in memory.pausing(1000 + s)), None))
    assert pauses == [0, 0, 8, 16, 32, 64, 128, 256, 512, 1024, 1800, 1800, 1800, 1800]
    assert memory.pausing(1000) == {"liar"}


def test_failed_node_that_may_retry_lets_others_go_first():
    memory = RolloutMemory(generation=2, since=0)
    ended(memory, "liar", 100, EntryState.FAILED)
    assert (memory.pausing(109), memory.pausing(110), memory.next_look(105)) == ({"liar"}, set(), 5)


def test_refusal_counts_for_a_while():
    memory = RolloutMemory(generation=2, since=0)
    memory.refuse({"n1": "no VFs", "n2": "no VFs"}, 100)
    memory.accept("n2")
    assert (memory.refused(114), memory.refused(115)) == ({"n1"}, set())
