"""Nodes that may start within the budgets `maxConcurrent` and `maxUnavailable`."""

from dataclasses import replace

import msgspec
import pytest

from tests.builders.node import PF, observed, pf_spec, pf_status, pool, view
from vmnic.api.node_state import Held, HostFacts, PfPlan, blocker_id
from vmnic.api.reasons import PfReason
from vmnic.nodes.observed import ObservedVf
from vmnic.nodes.planning.plan import plan_pf
from vmnic.nodes.rollout.budget import entries_of, grant_drained, select_disruptive, select_non_disruptive
from vmnic.nodes.rollout.eligibility import eligible_changes, holders_of
from vmnic.nodes.rollout.ledger import Entry, EntryState, Ledger, PoolLedger

PROVEN = PoolLedger(proven_generation=1)
VF = "0000:0b:10.0"
HOST = HostFacts(iommu=True, modules=("vfio_pci",))
DRAIN = {"disruption": "Drain"}


def ledger(part=PROVEN, **others):
    return Ledger({"fast": part, **others})


def harmless(part, nodes, **rollout):
    return [start.view.name for start in select_non_disruptive(ledger(part), pool(rollout=rollout), nodes)]


def disruptive(books, nodes, without=(), **rollout):
    starts = select_disruptive(books, pool(rollout=DRAIN | rollout), nodes, without=without)
    return [start.view.name for start in starts]


def entry(state=EntryState.GRANTED, **changes):
    return Entry(**({"generation": 1, "boot_id": "b1", "digests": {PF: "d1"}, "state": state} | changes))


def views(count, **changes):
    return [view(f"n{number:02}", **changes) for number in range(count)]


def held(name, **changes):
    return view(name, blocked=[(name, VF)], **changes)


@pytest.mark.parametrize(
    ("limit", "granted"),
    [(1, 1), (3, 3), ("10%", 2), ("11%", 3), ("1%", 1), ("100%", 20)],
    ids=["one", "three", "a tenth", "rounded up", "at least one", "all"],
)
def test_as_many_nodes_start_as_the_budget_allows(limit, granted):
    assert len(harmless(PROVEN, views(20), maxConcurrent=limit)) == granted
    assert len(disruptive(ledger(), [held(f"n{n}") for n in range(20)], maxUnavailable=limit)) == granted


def test_nodes_that_are_already_down_start_within_the_budget():
    down = [held(f"n{number}", cordoned=True) for number in range(4)]
    assert len(disruptive(ledger(), down, maxUnavailable=2)) == 2


def test_the_first_node_of_a_generation_changes_alone():
    assert harmless(PoolLedger(), views(20), maxConcurrent="100%") == ["n00"]
    assert disruptive(ledger(PoolLedger()), [held("n1"), held("n2")], maxUnavailable=2) == ["n1"]
    busy = PoolLedger(entries={"n9": entry(disruptive=True)})
    assert harmless(busy, views(20), maxConcurrent="100%") == []


def test_nodes_under_way_count_against_the_budget():
    part = PoolLedger(proven_generation=1, entries={"n00": entry(), "n01": entry(EntryState.REVOKED)})
    assert harmless(part, views(20), maxConcurrent=3) == ["n02"]


def test_no_more_nodes_start_than_the_ledger_has_room_for():
    assert len(harmless(PROVEN, views(1200), maxConcurrent="100%")) == 1000


@pytest.mark.parametrize(
    ("rollout", "deleted", "granted"),
    [
        ({"paused": True}, None, 0),
        ({"maxFailures": 1}, None, 0),
        ({"maxFailures": 2}, None, 4),
        ({"paused": True, "maxFailures": 2}, "2026-01-01T00:00:00Z", 4),
    ],
    ids=["paused", "too many failures", "few failures", "paused, but the pool goes"],
)
def test_a_stopped_rollout_starts_no_node(rollout, deleted, granted):
    part = PoolLedger(proven_generation=1, entries={"n00": entry(EntryState.FAILED)})
    wanted = pool(rollout={"maxConcurrent": 4} | rollout, deleted=deleted)
    assert len(select_non_disruptive(ledger(part), wanted, views(20))) == granted


@pytest.mark.parametrize(
    "changes",
    [
        {"disruptive": True},
        {"plan": None},
        {"current": False},
        {"generation": 2, "seen": 1},
        {"problem": PfReason.PCI_BUS_STUCK},
        {"problem": PfReason.ROLLED_BACK},
        {"problem": PfReason.ROLLED_BACK, "approved": "d0"},
        {"ready": False},
        {"synced": False},
        {"fenced": True, "plugin": "None"},
    ],
    ids=[
        "a VF is held", "nothing to do", "its spec is not the pools' yet", "its status is older than its spec", "it is stuck",
        "it was rolled back", "another plan was approved", "its kubelet is not heard of", "its spec is not confirmed", "nobody keeps its VFs back",
    ],
)  # fmt: skip
def test_a_node_that_may_not_start_is_skipped(changes):
    assert harmless(PROVEN, [view("n1", **changes), view("n2")], maxConcurrent=5) == ["n2"]


def test_approval_retries_a_rolled_back_plan_despite_failures():
    again = view("n1", problem=PfReason.ROLLED_BACK, approved="d0,d1")
    stopped = PoolLedger(proven_generation=1, entries={"n9": entry(EntryState.FAILED)})
    assert harmless(stopped, [again, view("n2")]) == ["n1"]


@pytest.mark.parametrize(
    ("disruption", "changes", "starts"),
    [
        ("WhenFree", {"blocked": [("db", VF)]}, False),
        ("WhenFree", {"disruptive": True}, True),
        ("WhenFree", {"fenced": True, "plugin": "None"}, True),
        ("Drain", {"blocked": [("db", VF)]}, True),
        ("Drain", {"fenced": True}, False),
        ("Manual", {"blocked": [("db", VF)]}, False),
        ("Manual", {"blocked": [("db", VF)], "approved": "d0"}, False),
        ("Manual", {"blocked": [("db", VF)], "approved": "d1"}, True),
    ],
    ids=[
        "WhenFree waits for VMs", "WhenFree interrupts the host", "WhenFree without a fence", "Drain", "Drain without a need",
        "Manual unapproved", "Manual with a stale approval", "Manual approved",
    ],
)  # fmt: skip
def test_disruption_decides_which_nodes_go_out_of_service(disruption, changes, starts):
    assert bool(disruptive(ledger(), [view("n1", **changes)], disruption=disruption)) is starts


@pytest.mark.parametrize(
    ("others", "limit", "chosen"),
    [
        ([view("n0", plan=None, cordoned=True)], 1, []),
        ([view("n0", plan=None, ready=False)], 1, []),
        ([view("n0", plan=None, ready=False)], 2, ["n1"]),
        ([held("n0", cordoned=True)], 1, ["n0"]),
        ([held("n0", ready=False)], 2, ["n1"]),
    ],
    ids=[
        "a cordoned node counts",
        "a node that is down counts",
        "there is room",
        "a cordoned one is done",
        "a down one is not",
    ],
)
def test_nodes_out_of_service_count_against_the_budget(others, limit, chosen):
    assert disruptive(ledger(), [*others, held("n1")], maxUnavailable=limit) == chosen


def test_nodes_with_fewer_holders_go_first():
    many = view("n1", blocked=[("a", VF), ("b", "0000:0b:10.2")])
    nodes = [many, held("n2"), view("n3", disruptive=True)]
    assert disruptive(ledger(), nodes, maxUnavailable=3) == ["n3", "n2", "n1"]
    starts = select_disruptive(ledger(), pool(rollout=DRAIN | {"maxUnavailable": 3}), nodes, free_only=True)
    assert [start.view.name for start in starts] == ["n3"]


def test_a_node_that_leaves_the_pool_comes_last():
    nodes = [view("n1", release="Reset"), view("n2"), view("n3")]
    assert harmless(PoolLedger(), nodes) == ["n2"]
    assert harmless(PROVEN, nodes, maxConcurrent=3) == ["n2", "n3", "n1"]
    assert disruptive(ledger(), [held("n1", release="Reset"), held("n2")]) == ["n2"]


def test_a_node_that_pauses_is_skipped():
    assert [start.view.name for start in select_non_disruptive(ledger(), pool(), views(2), without={"n00"})] == ["n01"]


@pytest.mark.parametrize("digest", ["a" * 65, "a" * 1_000_000])
def test_a_plan_without_a_plausible_digest_starts_nothing(digest):
    assert harmless(PROVEN, [view("n1", plan=digest), view("n2")], maxConcurrent=2) == ["n2"]


def test_nodes_that_other_pools_take_out_of_service_count():
    books = ledger(other=PoolLedger(entries={"n1": entry(disruptive=True)}))
    nodes = [held("n1"), held("n2")]
    assert disruptive(books, nodes, maxUnavailable=1) == []
    assert disruptive(books, nodes, maxUnavailable=2) == ["n2"]


def test_all_holders_leave_if_a_plan_cannot_list_them_all():
    vfs = [f"0000:0b:1{number // 8}.{number % 8}" for number in range(40)]
    holders = {vf: f"pod tenants/v{number}" for number, vf in enumerate(vfs)}
    there = tuple(ObservedVf(index=n, pci_address=vf, driver="vfio-pci", held=True) for n, vf in enumerate(vfs))
    seen = replace(observed(total_vfs=63), num_vfs=40, vfs=there)
    plan = plan_pf(pf_spec(num_vfs=3), seen, host=HOST, boot_id="b1", attempt=0, holders=holders).plan
    found = pf_status(plan=plan, held=tuple(Held(vf=vf, by=holders[vf]) for vf in vfs))
    assert len(holders_of(found, plan)) == 40


def test_a_node_whose_vms_have_nowhere_to_go_is_skipped():
    assert disruptive(ledger(), [held("n1"), held("n2")], without={"n1"}) == ["n2"]


@pytest.mark.parametrize(
    ("node", "state", "cordoned"),
    [
        (held("n1"), EntryState.DRAINING, True),
        (held("n1", cordoned=True), EntryState.DRAINING, False),
    ],
    ids=["vmnic cordons", "an administrator has cordoned"],
)
def test_the_ledger_records_who_has_to_uncordon(node, state, cordoned):
    wanted = pool(rollout=DRAIN)
    starts = select_disruptive(ledger(), wanted, [node])
    made = entries_of(starts, wanted, disruptive=True, now=5)["n1"]
    assert (made.state, made.cordoned, made.since, made.disruptive) == (state, cordoned, 5, True)


POD, HOST_BOND = ("pod tenants/db", VF), ("the host (place in bond0)", VF)
SEEN = "d1:" + blocker_id("pod tenants/db loses its link for seconds")


@pytest.mark.parametrize(
    ("node", "disruption", "state"),
    [
        *((view("n1", soft=[POD], approved=SEEN), mode, EntryState.GRANTED) for mode in ("WhenFree", "Drain", "Manual")),
        (view("n1", soft=[POD]), "WhenFree", None),
        (view("n1", soft=[POD]), "Manual", None),
        (view("n1", soft=[POD]), "Drain", EntryState.DRAINING),
        (view("n1", soft=[HOST_BOND]), "Drain", None),
        (view("n1", soft=[POD], approved="d1"), "Manual", None),
        (view("n1", soft=[POD, ("pod tenants/web", "0000:0b:10.2")], approved=SEEN), "WhenFree", None),
        (view("n1", soft=[POD, ("pod tenants/web", "0000:0b:10.2")], approved=SEEN), "Manual", None),
        (view("n1", soft=[POD], approved=SEEN.replace("d1", "d0")), "WhenFree", None),
        (view("n1", soft=[POD], blocked=[("web", "0000:0b:10.2")], approved=SEEN), "WhenFree", None),
        (view("n1", soft=[POD], blocked=[("web", "0000:0b:10.2")], approved=SEEN), "Manual", EntryState.DRAINING),
    ],
    ids=[
        "approved, WhenFree", "approved, Drain", "approved, Manual", "WhenFree waits", "Manual waits", "Drain moves VMs",
        "the host does not leave", "approved before there was a holder", "a new holder", "a new holder, Manual",
        "another plan was approved", "a hard blocker remains", "a hard blocker is drained",
    ],
)  # fmt: skip
def test_a_plan_with_soft_blockers_runs_only_if_all_are_approved(node, disruption, state):
    wanted = pool(rollout={"disruption": disruption})
    made = entries_of(select_disruptive(ledger(), wanted, [node]), wanted, disruptive=True, now=5)
    assert [(one.state, one.cordoned) for one in made.values()] == ([(state, state is EntryState.DRAINING)] if state else [])
    assert select_non_disruptive(ledger(), wanted, [node]) == ()


def test_an_approved_plan_does_not_wait_for_the_drain_of_another():
    first, second = "0000:0b:00.0", "0000:0c:00.0"
    node = view("n1", soft=[POD], approved=SEEN)
    plan = PfPlan(digest="e5", disruptive=True, fenced=True, blocked_by=("pod tenants/web holds 0000:0c:10.0",))
    other = pf_status(second, plan=plan, held=(Held(vf="0000:0c:10.0", by="pod tenants/web"),))
    state = msgspec.structs.replace(
        node.state,
        spec=msgspec.structs.replace(node.state.spec, pfs=(*node.state.spec.pfs, pf_spec(second))),
        status=msgspec.structs.replace(node.state.status, pfs=(*node.state.status.pfs, other)),
    )
    pending = eligible_changes(replace(node, state=state), pool(rollout=DRAIN))
    assert (pending.digests, pending.cordons, pending.leaving) == ({first: "d1"}, False, ())


def test_a_change_that_only_interrupts_the_host_needs_no_cordon():
    wanted = pool()
    made = entries_of(select_disruptive(ledger(), wanted, [view("n1", disruptive=True)]), wanted, disruptive=True, now=5)
    assert (made["n1"].state, made["n1"].cordoned) == (EntryState.GRANTED, False)


@pytest.mark.parametrize(
    ("node", "empty", "state"),
    [
        (view("n1", plan="d2"), {"n1"}, EntryState.GRANTED),
        (view("n1", plan="d2"), set(), EntryState.DRAINING),
        (held("n1"), {"n1"}, EntryState.DRAINING),
    ],
    ids=["empty", "not empty yet", "somebody has come back"],
)
def test_a_drained_node_is_granted_its_present_plan(node, empty, state):
    part = PoolLedger(entries={"n1": entry(EntryState.DRAINING, disruptive=True, cordoned=True)})
    found = grant_drained(part, pool(rollout=DRAIN), [node], empty, now=5).entries["n1"]
    assert (found.state, found.cordoned) == (state, True)
    assert found.digests == ({PF: "d2"} if state is EntryState.GRANTED else {PF: "d1"})
