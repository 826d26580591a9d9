"""Status of a pool, computed from its nodes."""

from dataclasses import replace

import msgspec
import pytest

from tests.builders.node import PF, pf_spec, pf_status, pool, view
from vmnic.api.node_state import (
    Held,
    NodeNicState,
    NodeSpec,
    NodeStatus,
    ObjectMeta,
    PfPlan,
    PfProblem,
    VfGroup,
    VfRange,
    blocker_id,
)
from vmnic.api.pool import PoolProblem
from vmnic.api.reasons import PfReason
from vmnic.nodes.pools.merge import PoolConflict
from vmnic.nodes.pools.shares import count_vfs, pool_shares
from vmnic.nodes.rollout.ledger import Entry, EntryState, NodeView, PoolLedger
from vmnic.nodes.rollout.summary import summarise_pool


def state_of(asked, seen, name="n1"):
    return NodeNicState(
        metadata=ObjectMeta(name=name, generation=1),
        spec=NodeSpec(synced=True, pfs=(asked,)),
        status=NodeStatus(observed_generation=1, boot_id="b1", pfs=(seen,)),
    )


def part_spec(vfs):
    return pf_spec(groups=(VfGroup(pool="fast", resource="vmnic.dev/fast", range=vfs),))


def node(name="n1", **pf):
    state = state_of(pf_spec(), pf_status(**pf), name)
    return NodeView(name=name, state=state, current=True, vfs=count_vfs(state, "fast"))


DONE = node("done", num_vfs=7)
OPEN = node("open", plan=PfPlan(digest="d1", text="create 7 VFs"))
HELD = node(
    "held", num_vfs=7, held=(Held(vf="0000:0b:10.0", by="pod a/b"),),
    plan=PfPlan(digest="d1", text="remove all VFs", disruptive=True, blocked_by=("pod a/b holds 0000:0b:10.0",)),
)  # fmt: skip
BAD = node("bad", problem=PfProblem(reason=PfReason.IOMMU_OFF, message="no IOMMU: switch it on"))


def conditions(status):
    return {one.type: (one.status, one.reason) for one in status.conditions}


@pytest.mark.parametrize(
    ("nodes", "ready", "summary"),
    [
        ([], ("True", "NoNodesMatched"), "0/0"),
        ([DONE], ("True", "AllNodesReady"), "1/1"),
        ([DONE, OPEN], ("False", "RollingOut"), "1/2"),
        ([DONE, HELD], ("True", "WaitingForVMs"), "1/2"),
        ([DONE, OPEN, BAD], ("False", "NodesFailed"), "1/3"),
    ],
    ids=["no node", "all ready", "rolling out", "waiting for VMs", "one failed"],
)
def test_ready_shows_the_progress_of_the_pool(nodes, ready, summary):
    status = summarise_pool(pool(), nodes, PoolLedger(), [])
    assert (conditions(status)["Ready"], status.nodes.summary) == (ready, summary)


@pytest.mark.parametrize(
    ("nodes", "reconciling", "stalled", "up_to_date"),
    [
        ([DONE], "False", "False", "True"),
        ([OPEN], "True", "False", "False"),
        ([HELD], "False", "False", "False"),
        ([BAD, OPEN], "False", "True", "False"),
    ],
    ids=["settled", "going on", "waiting for VMs", "stalled"],
)
def test_the_other_conditions_agree_with_ready(nodes, reconciling, stalled, up_to_date):
    found = conditions(summarise_pool(pool(), nodes, PoolLedger(), []))
    assert [found[kind][0] for kind in ("Reconciling", "Stalled", "UpToDate")] == [reconciling, stalled, up_to_date]


def test_a_paused_pool_has_the_reason_paused():
    status = summarise_pool(pool(rollout={"paused": True}), [OPEN], PoolLedger(), [])
    assert conditions(status)["Ready"] == ("False", "Paused")


def test_problems_name_node_pf_and_remedy():
    problems = summarise_pool(pool(), [BAD, HELD], PoolLedger(), []).problems
    assert [(p.node, p.pf, p.reason) for p in problems] == [("bad", PF, "IommuOff"), ("held", PF, "WaitingForVMs")]
    assert "pod a/b holds 0000:0b:10.0: stop or move it" in problems[1].message


def test_at_most_ten_problems_are_reported():
    nodes = [node(f"n{i}", problem=PfProblem(reason=PfReason.IOMMU_OFF, message="off")) for i in range(30)]
    status = summarise_pool(pool(), nodes, PoolLedger(), [])
    assert (len(status.problems), status.nodes.failed) == (10, 30)


def test_a_node_with_many_problems_hides_no_other_node():
    off = PfProblem(reason=PfReason.IOMMU_OFF, message="off")
    pfs = [f"0000:{number:02x}:00.0" for number in range(64)]
    state = NodeNicState(
        metadata=ObjectMeta(name="n1", generation=1),
        spec=NodeSpec(synced=True, pfs=tuple(pf_spec(address) for address in pfs)),
        status=NodeStatus(observed_generation=1, boot_id="b1", pfs=tuple(pf_status(one, problem=off) for one in pfs)),
    )
    status = summarise_pool(pool(), [NodeView(name="n1", state=state, current=True), BAD], PoolLedger(), [])
    assert {one.node for one in status.problems} == {"n1", "bad"}


def test_a_granted_node_is_updating_and_a_failed_one_failed():
    entries = {
        "open": Entry(generation=1, boot_id="b1", digests={PF: "d1"}),
        "n2": Entry(generation=1, boot_id="b1", digests={PF: "d1"}, state=EntryState.FAILED),
    }
    counts = summarise_pool(pool(), [OPEN, view("n2", plan="d2")], PoolLedger(entries=entries), []).nodes
    assert (counts.updating, counts.failed) == (1, 1)


def test_a_node_lost_during_its_change_is_named():
    part = PoolLedger(entries={"n1": Entry(generation=1, boot_id="b1", digests={PF: "d1"}, state=EntryState.FAILED)})
    status = summarise_pool(pool(), [view("n1", plan=None, ready=False, lost=True)], part, ())
    assert [(one.node, one.reason) for one in status.problems] == [("n1", "NodeLost")]
    assert conditions(status)["Stalled"] == ("True", "NodesFailed")


def test_vfs_are_counted_over_all_nodes():
    vfs = summarise_pool(pool(), [DONE, HELD, OPEN], PoolLedger(), []).vfs
    assert (vfs.desired, vfs.configured, vfs.in_use) == (21, 14, 1)


BEYOND = Held(vf="0000:0b:11.4", by="pod a/b")  # VF 6


@pytest.mark.parametrize(
    ("asked", "counts"),
    [
        (pf_spec(num_vfs=3), (3, 7, 1)),
        (pf_spec(release="Reset"), (0, 7, 1)),
        (pf_spec(num_vfs=3, management="Adopt"), (3, 3, 0)),
        (part_spec("0-2"), (3, 3, 0)),
        (part_spec("5-6"), (2, 2, 1)),
        (pf_spec(num_vfs=0, function="Physical"), (0, 0, 0)),
    ],
    ids=[
        "fewer are asked for", "it is released", "of adopted ones only those asked for", "a part without the held one",
        "a part with it", "the whole NIC",
    ],
)  # fmt: skip
def test_existing_vfs_count_even_if_no_longer_asked_for(asked, counts):
    seen = pf_status(num_vfs=7, held=(BEYOND,))
    assert count_vfs(state_of(asked, seen), "fast") == counts


def test_vfs_that_are_no_longer_asked_for_are_not_ready():
    seen = pf_status(num_vfs=7, vfs=(VfRange(range="0-6", driver="vfio-pci"),), held=(BEYOND,))
    (part,) = pool_shares(state_of(pf_spec(num_vfs=3), seen), "fast")
    assert (part.ready, len(part.addresses), part.held) == (3, 3, ())
    assert list(pool_shares(state_of(pf_spec(release="Reset"), seen), "fast")) == []


@pytest.mark.parametrize("reason", [PfReason.LINK_ELSEWHERE, PfReason.CARRIER_LOST, PfReason.UNREADABLE])
def test_vfs_that_are_not_advertised_are_not_ready(reason):
    away = PfProblem(reason=reason, message="bring it back")
    seen = pf_status(num_vfs=7, vfs=(VfRange(range="0-6", driver="vfio-pci"),), problem=away)
    (part,) = pool_shares(state_of(pf_spec(), seen), "fast")
    assert (part.ready, part.vfs.configured) == (0, 7)


def test_a_pool_that_lost_to_an_older_one_has_a_conflict():
    lost = PoolConflict(pool="fast", message="spec.resourceName vmnic.dev/x is pool old's")
    status = summarise_pool(pool(), [], PoolLedger(), [lost])
    assert (conditions(status)["Ready"], conditions(status)["Conflict"]) == (("False", "Conflict"), ("True", "Conflict"))


def seen(name, device, **changes):
    """Return a node whose PF has another device ID."""
    made = view(name, plan="", num_vfs=7)
    pf = msgspec.structs.replace(made.state.status.pfs[0], device=device)
    status = msgspec.structs.replace(made.state.status, pfs=(pf,))
    return replace(made, state=msgspec.structs.replace(made.state, status=status, **changes))


def test_mixed_guest_support_names_the_nodes():
    (problem,) = summarise_pool(pool(), [seen("n1", "10c9"), seen("n2", "1521")], PoolLedger(), ()).problems
    assert problem.reason == "MixedGuestSupport"
    assert "82576 (nodes n1)" in problem.message


def test_an_unknown_model_without_nodes_is_the_pools_reason():
    status = summarise_pool(pool(nicSelector={"models": ["X71O"]}), [], PoolLedger(), ())
    assert conditions(status)["Ready"] == ("False", "UnknownModel")
    assert (conditions(status)["Stalled"][0], conditions(status)["UpToDate"][0]) == ("True", "False")
    assert [one.reason for one in status.problems] == ["UnknownModel"]


def test_an_unknown_model_beside_a_known_one_is_only_told():
    asked = pool(nicSelector={"models": ["X71O", "82576"]})
    status = summarise_pool(asked, [view("n1", plan="", num_vfs=7)], PoolLedger(), ())
    assert (conditions(status)["Ready"][0], [one.reason for one in status.problems]) == ("True", ["UnknownModel"])


def test_a_problem_that_nodes_have_is_not_repeated_for_the_pool():
    status = summarise_pool(pool(numVfs=8), [view("n1", plan="", problem="TooManyVfs")], PoolLedger(), ())
    assert [(one.reason, one.node) for one in status.problems] == [("TooManyVfs", "n1")]


@pytest.mark.parametrize("devices", [("10c9", "10c9"), ("1521", "1521"), ("1521", "ffff"), ("10c9",)])
def test_a_pool_with_uniform_guest_support_has_no_problem(devices):
    nodes = [seen(f"n{number}", device) for number, device in enumerate(devices)]
    assert summarise_pool(pool(), nodes, PoolLedger(), ()).problems == []


def test_a_node_with_an_unreadable_status_is_named_and_waits():
    lost = seen("n1", "10c9", unreadable="numVfs is too large")
    found = summarise_pool(pool(), [lost], PoolLedger(), ())
    assert (found.problems[0].reason, found.nodes.waiting, found.nodes.failed) == ("Unreadable", 1, 0)


def with_links(count):
    """Return nodes that each have one PF with a link name of its own."""
    made = []
    for number in range(count):
        group = VfGroup(pool="fast", resource=f"vmnic.dev/fast-ens{number}")
        made.append(NodeView(name=f"n{number}", state=state_of(pf_spec(groups=(group,)), pf_status()), current=True))
    return made


def test_a_pool_publishes_the_resource_of_each_link():
    status = summarise_pool(pool(resourcePerPF=True), with_links(2), PoolLedger(), ())
    assert status.resource_names == ["vmnic.dev/fast-ens0", "vmnic.dev/fast-ens1"]
    assert summarise_pool(pool(), [DONE], PoolLedger(), ()).resource_names == ["vmnic.dev/fast"]


def test_resources_beyond_the_most_are_refused():
    published = [f"vmnic.dev/fast-ens{number}" for number in range(69, 5, -1)]
    owner = pool(resourcePerPF=True)
    owner = owner.model_copy(update={"status": owner.status.model_copy(update={"resource_names": published})})
    status = summarise_pool(owner, with_links(70), PoolLedger(), ())
    assert status.resource_names == published
    (problem,) = [one for one in status.problems if one.reason == "TooManyResources"]
    assert "gives 70 resources, and a pool has at most 64" in problem.message


LOSES = "pod a/b loses its link for seconds"


@pytest.mark.parametrize(
    ("approved", "problems"),
    [
        ("", [f"{LOSES}: accept that with kubectl vmnic approve n1 {PF}, or stop it, then create 7 VFs continues"]),
        (f"d1:{blocker_id(LOSES)}", []),
    ],
    ids=["not approved", "approved"],
)
def test_a_soft_blocker_is_shown_with_the_way_to_accept_it(approved, problems):
    found = summarise_pool(pool(), [view("n1", soft=[("pod a/b", "0000:0b:10.0")], approved=approved)], PoolLedger(), ())
    assert [one.message for one in found.problems] == problems


def nads(reason, count):
    return [PoolProblem(reason=reason, message=f"{reason} {number}") for number in range(count)]


def test_problems_of_nodes_come_before_those_of_networks():
    more = [*nads("NadInUse", 12), *nads("NadExists", 2)]
    lost = PoolConflict(pool="fast", pci_address=PF, message="pool old has it")
    problems = summarise_pool(pool(), [BAD, HELD], PoolLedger(), [lost], more).problems
    assert [one.reason for one in problems] == ["IommuOff", "WaitingForVMs", "Conflict", "NadExists", "NadExists", "NadInUse"]
    assert "11 more networks" in problems[-1].message


@pytest.mark.parametrize(
    ("refused", "reason", "expected"),
    [
        ([True], "Conflict", {"Ready": ("False", "Conflict"), "Stalled": ("True", "Conflict"), "Conflict": ("True", "Conflict")}),
        ([True, False], "Conflict", {
            "Ready": ("True", "AllNodesReady"), "Stalled": ("False", "NotStalled"), "Conflict": ("True", "Conflict"),
        }),
        ([True], "TooManyVfs", {
            "Ready": ("False", "TooManyVfs"), "Stalled": ("True", "TooManyVfs"), "Conflict": ("False", "NoConflict"),
        }),
    ],
    ids=["a conflict everywhere", "a conflict on one node", "a range past the count"],
)  # fmt: skip
def test_a_pool_whose_share_stays_as_it_is_is_not_ready(refused, reason, expected):
    nodes = [replace(node(f"n{number}", num_vfs=7), refused=one) for number, one in enumerate(refused)]
    status = summarise_pool(
        pool(), nodes, PoolLedger(), [PoolConflict(pool="fast", pci_address=PF, reason=reason, message="m")]
    )
    assert {kind: conditions(status)[kind] for kind in expected} == expected
    assert (conditions(status)["UpToDate"][0], status.problems[0].reason) == ("False", reason)


def test_problems_of_networks_never_displace_those_of_nodes():
    nodes = [node(f"n{i}", problem=PfProblem(reason=PfReason.IOMMU_OFF, message="off")) for i in range(10)]
    problems = summarise_pool(pool(), nodes, PoolLedger(), [], nads("NadInUse", 12)).problems
    assert {one.reason for one in problems} == {"IommuOff"}
