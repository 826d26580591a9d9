"""Progress of the ledger's entries."""

import pytest

from tests.builders.node import PF, pool, view
from vmnic.api.node_state import ApplyState, blocker_id
from vmnic.api.reasons import PfReason
from vmnic.nodes.rollout.ledger import Entry, EntryState, Ledger, PoolLedger
from vmnic.nodes.rollout.progress import advance_ledger

NOW = 10_000
HELD = [("db", "0000:0b:10.0")]
SOFT = [("pod a/db", "0000:0b:10.0")]
SEEN = "d1:" + blocker_id("pod a/db loses its link for seconds")


def entry(state=EntryState.GRANTED, *, digest="d1", generation=1, boot="b1", **more):
    return Entry(generation=generation, boot_id=boot, digests={PF: digest}, state=state, **more)


def draining(**more):
    return entry(EntryState.DRAINING, disruptive=True, **({"cordoned": True, "since": NOW - 60} | more))


def settled(one, node, *, more=None, **spec):
    part = advance_ledger(PoolLedger(entries={"n1": one} | (more or {})), pool(**spec), [node] if node else [], now=NOW)
    return part.entries.get("n1"), part.proven_generation


@pytest.mark.parametrize(
    ("node", "left", "proven"),
    [
        (view("n1"), EntryState.GRANTED, 0),
        (view("n1", apply=("d1", ApplyState.CLAIMED)), EntryState.GRANTED, 0),
        (view("n1", plan=None, apply=("d1", ApplyState.APPLYING)), EntryState.GRANTED, 0),
        (view("n1", plan=None, apply=("d1", ApplyState.APPLIED)), None, 1),
        (view("n1", plan="d2", apply=("d1", ApplyState.REFUSED)), EntryState.RESTING, 0),
        (view("n1", plan="d2", apply=("d1", ApplyState.FAILED)), EntryState.FAILED, 0),
        (view("n1", plan="d2", apply=("d1", ApplyState.ROLLED_BACK)), EntryState.FAILED, 0),
        (view("n1", plan="d2", grant="d1"), EntryState.REVOKED, 0),
        (view("n1", blocked=HELD, grant="d1"), EntryState.REVOKED, 0),
        (view("n1", blocked=HELD, grant="d1", apply=("d1", ApplyState.CLAIMED)), EntryState.GRANTED, 0),
        (view("n1", soft=SOFT, grant="d1"), EntryState.REVOKED, 0),
        (view("n1", soft=SOFT, grant="d1", approved=SEEN), EntryState.GRANTED, 0),
        (view("n1", soft=[*SOFT, ("pod a/web", "0000:0b:10.2")], grant="d1", approved=SEEN), EntryState.REVOKED, 0),
        (view("n1", grant="d1", ready=False, lost=True), EntryState.REVOKED, 0),
        (None, None, 0),
    ],
    ids=[
        "not begun", "claimed", "applying", "applied", "refused", "failed", "rolled back", "the plan has changed",
        "it has become disruptive", "disruptive, but claimed", "a link would drop", "that is approved", "a new holder came",
        "the node is lost", "the node is gone",
    ],
)  # fmt: skip
def test_a_slot_is_freed_when_its_change_has_ended(node, left, proven):
    found, generation = settled(entry(), node)
    assert (found.state if found else None, generation) == (left, proven)


def test_a_refused_change_rests_before_it_is_granted_again():
    found, _ = settled(entry(), view("n1", plan="d2", apply=("d1", ApplyState.REFUSED)))
    assert found.until == NOW + 10


@pytest.mark.parametrize(
    ("node", "gone"),
    [
        (view("n1", plan="d2", grant=None, generation=3, seen=3), True),
        (view("n1", plan="d2", grant=None, generation=3, seen=2), False),
        (view("n1", plan="d2", grant="d1", generation=3, seen=3), False),
        (view("n1", grant=None, generation=3, seen=2, ready=False, lost=True), True),
    ],
    ids=["the agent has seen it go", "the agent has not seen it yet", "the grant still stands", "nobody waits for a lost node"],
)
def test_a_revoked_grant_counts_until_the_agent_confirms(node, gone):
    found, _ = settled(entry(EntryState.REVOKED), node)
    assert (found is None) is gone


@pytest.mark.parametrize("state", [ApplyState.CLAIMED, ApplyState.APPLYING])
def test_a_node_lost_during_its_change_counts_as_failed(state):
    lost, _ = settled(entry(), view("n1", apply=("d1", state), ready=False, lost=True))
    assert lost.state is EntryState.FAILED
    back, _ = settled(lost, view("n1", plan=None, apply=("d1", state)))
    assert back is lost
    assert settled(lost, view("n1", plan=None, apply=("d1", ApplyState.APPLIED)))[0] is None


@pytest.mark.parametrize(
    ("now", "healed"),
    [
        ({}, True),
        ({"problem": PfReason.ROLLED_BACK}, False),
        ({"current": False}, False),
        ({"generation": 2}, False),
        ({"ready": False}, False),
    ],
    ids=["nothing is left to do", "a problem stays", "it is asked for more", "its agent has not seen that", "it is away"],
)
def test_a_failed_node_that_matches_its_spec_stops_no_rollout(now, healed):
    found, _ = settled(entry(EntryState.FAILED), view("n1", plan=None, apply=("d1", ApplyState.FAILED), **now))
    assert (found is None) is healed


@pytest.mark.parametrize(
    ("failed", "node", "generation", "again"),
    [
        (entry(EntryState.FAILED), view("n1"), 1, False),
        (entry(EntryState.FAILED), view("n1"), 2, True),
        (entry(EntryState.FAILED), view("n1", boot="b2"), 1, True),
        (entry(EntryState.FAILED), view("n1", approved="d1"), 1, True),
        (entry(EntryState.FAILED), view("n1", problem=PfReason.ROLLED_BACK), 2, False),
        (entry(EntryState.FAILED), view("n1", problem=PfReason.ROLLED_BACK, approved="d1"), 1, True),
        (entry(EntryState.FAILED, cordoned=True), view("n1"), 2, False),
    ],
    ids=[
        "nothing has changed", "the pool was edited", "the node was restarted", "a person says so",
        "after a rollback an edit elsewhere is none", "after a rollback a person says so", "it is still cordoned",
    ],
)  # fmt: skip
def test_a_failed_node_is_tried_again_only_after_a_change(failed, node, generation, again):
    found, _ = settled(failed, node, generation=generation)
    assert (found is None) is again


@pytest.mark.parametrize(
    ("one", "node", "rollout", "left"),
    [
        (draining(), view("n1", blocked=HELD), {}, EntryState.DRAINING),
        (draining(since=NOW - 1800), view("n1", blocked=HELD), {}, EntryState.RESTING),
        (draining(since=NOW - 1800), view("n1", blocked=HELD), {"drainTimeout": "1h"}, EntryState.DRAINING),
        (draining(), view("n1", plan=None), {}, EntryState.ENDED),
        (draining(cordoned=False), view("n1", plan=None), {}, None),
        (draining(), view("n1", blocked=HELD), {"paused": True}, EntryState.ENDED),
        (draining(), view("n1", blocked=HELD), {"disruption": "Manual"}, EntryState.ENDED),
        (draining(), view("n1", plan=None, generation=2), {}, EntryState.DRAINING),
        (draining(), view("n1", plan=None, ready=False), {}, EntryState.DRAINING),
        (draining(), None, {}, EntryState.ENDED),
    ],
    ids=[
        "VMs are leaving", "it takes too long", "it may take so long", "nothing is to be done any more", "nor to uncordon",
        "paused", "a person has to approve now", "the agent has not answered yet", "the node is down for a while", "it left the pool",
    ],
)  # fmt: skip
def test_a_drain_ends_when_it_is_done_late_or_stopped(one, node, rollout, left):
    found, _ = settled(one, node, rollout={"disruption": "Drain"} | rollout)
    assert (found.state if found else None) == left
    assert found is None or found.cordoned == one.cordoned


def test_a_drain_ends_when_another_node_has_failed():
    found, _ = settled(
        draining(), view("n1", blocked=HELD), more={"n2": entry(EntryState.FAILED)}, rollout={"disruption": "Drain"}
    )
    assert found.state is EntryState.ENDED


def test_a_drain_takes_up_a_new_plan():
    found, _ = settled(draining(), view("n1", plan="d2", blocked=HELD), generation=2, rollout={"disruption": "Drain"})
    assert (found.digests, found.generation) == ({PF: "d2"}, 2)


@pytest.mark.parametrize(
    ("one", "node", "left"),
    [
        (entry(EntryState.RESTING, until=NOW + 1), view("n1"), EntryState.RESTING),
        (entry(EntryState.RESTING, until=NOW), view("n1"), None),
        (entry(EntryState.RESTING, until=NOW + 1), view("n1", approved="d1"), None),
        (entry(EntryState.RESTING, until=NOW, cordoned=True), view("n1"), EntryState.RESTING),
        (entry(EntryState.ENDED, cordoned=True), view("n1"), EntryState.ENDED),
        (entry(EntryState.ENDED), view("n1"), None),
    ],
    ids=["too early", "in time", "a person is faster", "to be uncordoned first", "likewise", "done"],
)
def test_an_entry_that_is_over_is_removed_in_time(one, node, left):
    found, _ = settled(one, node)
    assert (found.state if found else None) == left


def test_after_its_change_a_drained_node_is_to_be_uncordoned():
    found, proven = settled(entry(disruptive=True, cordoned=True), view("n1", plan=None, apply=("d1", ApplyState.APPLIED)))
    assert (found.state, found.to_uncordon, found.under_way, proven) == (EntryState.ENDED, True, True, 1)


BOUND = 1800 + 60
"""Sum of the defaults of drainTimeout and rollbackTimeout, in seconds."""


@pytest.mark.parametrize(
    "node",
    [
        view("n1"),
        view("n1", apply=("d1", ApplyState.CLAIMED)),
        view("n1", plan="d2", apply=("d1", ApplyState.APPLYING)),
        view("n1", plan="d2", grant="d1"),
        view("n1", plan=None, generation=9, seen=1),
        view("n1", generation=1, seen=2**62),
    ],
    ids=["never claimed", "claimed for ever", "applying for ever", "another plan", "silent", "of the future"],
)
@pytest.mark.parametrize("state", [EntryState.GRANTED, EntryState.REVOKED])
def test_a_grant_that_never_ends_fails_at_its_deadline(state, node):
    early, _ = settled(entry(state, since=NOW - BOUND + 1), node)
    late, _ = settled(entry(state, since=NOW - BOUND), node)
    assert (early is None or early.state is not EntryState.FAILED, late.state) == (True, EntryState.FAILED)


def test_a_grant_of_an_older_version_gets_a_time():
    assert settled(entry(since=0), view("n1"))[0].since == NOW


def test_a_node_that_is_down_does_not_time_out():
    assert settled(entry(since=NOW - BOUND), view("n1", ready=False))[0].state is EntryState.GRANTED


@pytest.mark.parametrize(("seen", "again"), [(2, True), (1, False)], ids=["it answers again", "it is silent still"])
def test_a_node_is_tried_again_once_its_silent_agent_answers(seen, again):
    late = entry(EntryState.FAILED, silent=True)
    assert (settled(late, view("n1", generation=2, seen=seen))[0] is None) is again


@pytest.mark.parametrize("state", [EntryState.FAILED, EntryState.GRANTED])
def test_a_failed_node_that_leaves_the_pool_stops_no_other(state):
    one, node = entry(state, since=NOW - BOUND), view("n1", release="Reset", apply=("d1", ApplyState.CLAIMED))
    assert settled(one, node)[0].state is EntryState.RESTING
    part = advance_ledger(PoolLedger(entries={"n1": one}), pool(deleted="2026-01-01T00:00:00Z"), [node], now=NOW)
    assert part.failed() == 1


def test_a_stored_ledger_parses_to_the_same_ledger():
    ledger = Ledger({"fast": PoolLedger(proven_generation=3, entries={"n1": draining(), "n2": entry()})})
    assert Ledger.parse(ledger.render()) == ledger


def test_a_ledger_from_before_drains_is_parsed():
    old = {
        "pools": {
            "fast": {
                "proven_generation": 1,
                "entries": {"n1": {"generation": 1, "boot_id": "b", "digests": {PF: "d1"}, "state": "Granted"}},
            }
        }
    }
    assert Ledger.parse(old).granted("n1") == {PF: "d1"}


@pytest.mark.parametrize("state", EntryState)
def test_only_a_granted_entry_grants_its_digests(state):
    ledger = Ledger({"fast": PoolLedger(entries={"n1": entry(state)})})
    assert ledger.granted("n1") == ({PF: "d1"} if state is EntryState.GRANTED else {})
