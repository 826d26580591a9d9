"""An approval applies only to the present plan."""

import msgspec
import pytest

from tests.builders.node import PF, pf_status, view
from vmnic.api.node_state import PfPlan, blocker_id
from vmnic.api.reasons import PfReason
from vmnic.cli.approve import ApprovalError, approve_plans

SECOND = "0000:0c:00.0"


def two(**changes):
    """Return a node with plans for two PFs."""
    state = view("n1", blocked=[("db", "0000:0b:10.0")], **changes).state
    other = pf_status(SECOND, name="ens2f0", plan=PfPlan(digest="e5", text="set the MTU to 9000"))
    status = msgspec.structs.replace(state.status, pfs=(*state.status.pfs, other))
    return msgspec.structs.replace(state, status=status)


@pytest.mark.parametrize(
    ("address", "value"),
    [(None, "d1,e5"), (PF, "d1"), ("ens2f0", "e5")],
    ids=["the whole node", "one function", "one by its name"],
)
def test_the_digests_of_the_plans_are_written(address, value):
    assert approve_plans(two(), address).value == value


def test_the_soft_blockers_that_a_person_saw_are_written():
    node = view("n1", blocked=[("db", "0000:0b:10.0")], soft=[("pod a/web", "0000:0b:10.2"), ("pod a/app", "0000:0b:10.4")])
    value = approve_plans(node.state, None).value
    seen = {blocker_id(f"{by} loses its link for seconds") for by in ("pod a/web", "pod a/app")}
    assert (value.split(":")[0], set(value.split(":")[1:])) == ("d1", seen)
    approved = view("n1", soft=[("pod a/web", "0000:0b:10.2"), ("pod a/late", "0000:0b:10.6")], approved=value).state
    assert approved.unapproved_blockers(approved.status.pfs[0].plan) == ("pod a/late loses its link for seconds",)


def test_standing_approvals_keep_what_was_seen():
    assert approve_plans(two(approved="e5:abcd1234,d0:00000000"), PF).value == "d1,e5:abcd1234"


def test_approvals_that_would_not_count_are_refused():
    soft = tuple(f"pod tenants/vm-{number} loses its link for seconds" for number in range(21))
    state = view("n1").state
    pfs = tuple(
        pf_status(f"0000:{number:02x}:00.0", plan=PfPlan(digest=f"{number:032x}", blocked_by=soft, soft_blockers=21))
        for number in range(64)
    )
    state = msgspec.structs.replace(state, status=msgspec.structs.replace(state.status, pfs=pfs))
    with pytest.raises(ApprovalError, match="approve one function at a time"):
        approve_plans(state, None)
    assert approve_plans(state, pfs[3].pci_address).value.startswith(f"{3:032x}:")


def test_valid_approvals_stay_and_stale_ones_are_removed():
    assert approve_plans(two(approved="e5,d0"), PF).value == "d1,e5"


def test_the_message_names_the_holder_and_the_last_problem():
    words = approve_plans(two(problem=PfReason.ROLLED_BACK), PF).lines[0]
    assert words == f"{PF} (ens1f0): create 7 VFs again after: scripted; pod tenants/db holds 0000:0b:10.0"


@pytest.mark.parametrize(
    ("state", "address", "message"),
    [
        (view("n1", plan=None).state, None, "nothing is planned on any function of node n1"),
        (view("n1").state, "0000:0d:00.0", f"node n1 has no function 0000:0d:00.0; it has {PF} (ens1f0)"),
    ],
    ids=["nothing is planned", "no such function"],
)
def test_an_approval_without_a_plan_is_an_error(state, address, message):
    with pytest.raises(ApprovalError, match=message.replace("(", r"\(").replace(")", r"\)")):
        approve_plans(state, address)
