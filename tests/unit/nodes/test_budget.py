"""The rollout: who may start, when a slot comes back, and that it is never more than the budget."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.node import PF, pool, view
from vmnic.nodes.budget import Entry, EntryState, Ledger, PoolLedger, choose_grants, settle_ledger
from vmnic.nodes.state import ApplyState, PfReason

PROVEN = PoolLedger(proven_generation=1)


def chosen(part, nodes, **spec):
    return [grant.node for grant in choose_grants(part, pool(**spec), nodes, matched=len(nodes))]


def entry(state=EntryState.GRANTED, *, digest="d1", generation=1, boot="b1"):
    return Entry(generation=generation, boot_id=boot, digests={PF: digest}, state=state)


def settled(one, node, **spec):
    part = settle_ledger(PoolLedger(entries={"n1": one}), pool(**spec), [node] if node else [])
    return part.entries.get("n1"), part.proven_generation


def views(count, **changes):
    return [view(f"n{number:02}", **changes) for number in range(count)]


@pytest.mark.parametrize(
    ("limit", "granted"),
    [(1, 1), (3, 3), ("10%", 2), ("1%", 1), ("100%", 20)],
    ids=["one", "three", "a tenth", "at least one", "all"],
)
def test_as_many_nodes_start_as_the_budget_allows(limit, granted):
    assert len(chosen(PROVEN, views(20), rollout={"maxConcurrent": limit})) == granted


def test_the_first_node_of_a_generation_goes_alone():
    assert chosen(PoolLedger(), views(20), rollout={"maxConcurrent": "100%"}) == ["n00"]


def test_running_nodes_count():
    part = PoolLedger(proven_generation=1, entries={"n00": entry(), "n01": entry(EntryState.REVOKED)})
    assert chosen(part, views(20), rollout={"maxConcurrent": 3}) == ["n02"]


@pytest.mark.parametrize(
    "rollout", [{"paused": True}, {"maxFailures": 1, "maxConcurrent": 5}], ids=["paused", "too many failures"]
)
def test_a_stopped_rollout_starts_nobody(rollout):
    part = PoolLedger(proven_generation=1, entries={"n00": entry(EntryState.FAILED)})
    assert chosen(part, views(20), rollout=rollout) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"disruptive": True},
        {"plan": None},
        {"current": False},
        {"generation": 2, "seen": 1},
        {"problem": PfReason.PCI_BUS_STUCK},
    ],
    ids=["a VF is held", "nothing to do", "its spec is not the pools' yet", "its status is older than its spec", "it is stuck"],
)
def test_a_node_that_may_not_start_is_passed_over(changes):
    assert chosen(PROVEN, [view("n1", **changes), view("n2")], rollout={"maxConcurrent": 5}) == ["n2"]


@pytest.mark.parametrize(
    ("node", "left", "proven"),
    [
        (view("n1"), EntryState.GRANTED, 0),
        (view("n1", apply=("d1", ApplyState.CLAIMED)), EntryState.GRANTED, 0),
        (view("n1", plan=None, apply=("d1", ApplyState.APPLYING)), EntryState.GRANTED, 0),
        (view("n1", plan=None, apply=("d1", ApplyState.APPLIED)), None, 1),
        (view("n1", plan="d2", apply=("d1", ApplyState.REFUSED)), None, 0),
        (view("n1", plan="d2", apply=("d1", ApplyState.FAILED)), EntryState.FAILED, 0),
        (view("n1", plan="d2", grant="d1"), EntryState.REVOKED, 0),
        (None, None, 0),
    ],
    ids=["not begun", "claimed", "applying", "applied", "refused", "failed", "the plan has changed", "the node is gone"],
)
def test_a_slot_comes_back_when_its_run_has_ended(node, left, proven):
    found, generation = settled(entry(), node)
    assert (found.state if found else None, generation) == (left, proven)


@pytest.mark.parametrize(
    ("node", "gone"),
    [
        (view("n1", plan="d2", grant=None, generation=3, seen=3), True),
        (view("n1", plan="d2", grant=None, generation=3, seen=2), False),
        (view("n1", plan="d2", grant="d1", generation=3, seen=3), False),
    ],
    ids=["the agent has seen it go", "the agent has not seen it yet", "the grant still stands"],
)
def test_a_revoked_grant_counts_until_the_agent_confirms(node, gone):
    found, _ = settled(entry(EntryState.REVOKED), node)
    assert (found is None) is gone


@pytest.mark.parametrize(
    ("failed", "generation", "boot", "again"),
    [
        (entry(EntryState.FAILED), 1, "b1", False),
        (entry(EntryState.FAILED), 2, "b1", True),
        (entry(EntryState.FAILED), 1, "b2", True),
    ],
    ids=["nothing has changed", "the pool was edited", "the node was restarted"],
)
def test_a_failed_node_is_tried_again_only_when_something_changed(failed, generation, boot, again):
    part = settle_ledger(PoolLedger(entries={"n1": failed}), pool(generation=generation), [view("n1", boot=boot)])
    assert ("n1" not in part.entries) is again


def test_a_ledger_survives_being_stored():
    ledger = Ledger({"fast": PoolLedger(proven_generation=3, entries={"n1": entry()})})
    assert Ledger.parse(ledger.render()) == ledger
    assert ledger.granted("n1") == {PF: "d1"}


def test_only_a_standing_grant_is_copied_to_a_node():
    ledger = Ledger({"fast": PoolLedger(entries={"n1": entry(EntryState.REVOKED), "n2": entry(EntryState.FAILED)})})
    assert (ledger.granted("n1"), ledger.granted("n2")) == ({}, {})


@given(
    budget=st.integers(1, 4),
    events=st.lists(
        st.tuples(st.sampled_from(["claim", "end", "fail", "refuse", "edit", "restart"]), st.integers(0, 7)), max_size=60
    ),
)
def test_never_do_more_nodes_run_than_the_budget_allows(budget, events):
    """A model of the agents: a node runs from its claim to its end; a claim needs the grant that the ledger holds."""
    part, attempt, running = PoolLedger(proven_generation=1), [0] * 8, {}
    wanted = pool(rollout={"maxConcurrent": budget, "maxFailures": 1000})

    def look(number):
        digest = f"d{number}-{attempt[number]}"
        if number in running:
            return view(f"n{number}", plan=digest, apply=(running[number], ApplyState.CLAIMED))
        last = ended.get(number)
        return view(f"n{number}", plan=digest, apply=last)

    ended: dict[int, tuple[str, ApplyState]] = {}
    for event, number in events:
        digest = f"d{number}-{attempt[number]}"
        held = part.entries.get(f"n{number}")
        if (
            event == "claim"
            and number not in running
            and held
            and held.state is EntryState.GRANTED
            and held.digests[PF] == digest
        ):
            running[number] = digest
        elif event in ("end", "fail", "refuse") and number in running:
            state = {"end": ApplyState.APPLIED, "fail": ApplyState.FAILED, "refuse": ApplyState.REFUSED}[event]
            ended[number] = (running.pop(number), state)
            attempt[number] += 1
        elif event == "edit" and number not in running:
            attempt[number] += 1
        elif event == "restart":
            part = Ledger.parse(Ledger({"fast": part}).render()).of("fast")
        nodes = [look(one) for one in range(8)]
        part = settle_ledger(part, wanted, nodes)
        for grant in choose_grants(part, wanted, nodes, matched=8):
            new = Entry(generation=1, boot_id="b1", digests=grant.digests)
            part = msgspec.structs.replace(part, entries=part.entries | {grant.node: new})
        assert len(running) <= budget
        assert part.running() <= budget
