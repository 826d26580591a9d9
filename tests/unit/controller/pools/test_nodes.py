"""A node's spec merges all pools, keeps unreadable ones, and copies grants from the ledger."""

import msgspec
import pytest

from tests.builders.node import PF, pf_spec, pf_status, pool, view
from vmnic.api.node_state import ApplyState, NodeNicState, NodeSpec, NodeStatus, ObjectMeta
from vmnic.controller.pools.nodes import plan_node_spec
from vmnic.nodes.rollout.ledger import Entry, Ledger, PoolLedger


def state(*pfs, boot="b1"):
    return NodeNicState(
        metadata=ObjectMeta(name="n1"), spec=NodeSpec(pfs=pfs), status=NodeStatus(boot_id=boot, pfs=(pf_status(),))
    )


def planned(node_state, *pools, unreadable=(), ledger=None):
    return plan_node_spec({}, node_state, pools=pools, unreadable_pools=unreadable, ledger=ledger or Ledger())


def test_node_spec_contains_what_its_pools_ask():
    spec = planned(state(), pool())
    assert (spec.synced, spec.pfs) == (True, (pf_spec(),))


def test_every_node_spec_has_the_modules_of_the_datapaths():
    assert planned(state()).host.modules == ("vhost_net", "tun", "macvtap")


def test_node_without_a_report_is_asked_for_nothing_new():
    assert planned(state(boot=""), pool()) == NodeSpec()


def test_deleted_pool_asks_for_nothing():
    assert planned(state(pf_spec())).pfs == ()


def test_unreadable_pool_keeps_what_it_asked_for():
    assert planned(state(pf_spec()), unreadable={"fast"}).pfs == (pf_spec(),)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"plan": None, "apply": ("d1", ApplyState.APPLIED)}, True),
        ({"plan": "d2", "apply": ("d1", ApplyState.FAILED)}, True),
        ({"plan": "d1", "apply": ("d1", ApplyState.APPLIED)}, False),
        ({"plan": "d1", "apply": ("d1", ApplyState.CLAIMED)}, False),
        ({"plan": "d1", "apply": None}, False),
    ],
    ids=["it is used up", "so after a failure", "the same plan again, as after a lost journal", "it is claimed", "not begun"],
)
def test_removing_a_spent_grant_is_worth_no_write(changes, kept):
    found = view("n1", grant="d1", **changes).state
    spec = msgspec.structs.replace(planned(found, pool()), pfs=found.spec.pfs)
    found = msgspec.structs.replace(found, spec=spec)
    assert (planned(found, pool()).pfs[0].grant == "d1") is kept


def test_spent_grant_is_removed_with_the_next_write():
    found = view("n1", grant="d1", plan=None, apply=("d1", ApplyState.APPLIED)).state
    assert planned(found, pool(numVfs=3)).pfs[0].grant is None


def test_grant_is_copied_from_the_ledger_only():
    ledger = Ledger({"fast": PoolLedger(entries={"n1": Entry(generation=1, boot_id="b1", digests={PF: "d1"})})})
    assert planned(state(), pool(), ledger=ledger).pfs[0].grant == "d1"
    forged = state(msgspec.structs.replace(pf_spec(), grant="forged"))
    assert planned(forged, pool()).pfs[0].grant is None


def test_nic_selected_by_name_and_driver_stays_under_vfio():
    whole = pool(function="Physical", numVfs=None, nicSelector={"pfNames": ["ens1*"], "drivers": ["igb"]})
    before = planned(state(), whole)
    bound = NodeStatus(boot_id="b1", pfs=(pf_status(name="", driver="vfio-pci", link_speed_mbps=None, owned=True),))
    assert planned(NodeNicState(metadata=ObjectMeta(name="n1"), spec=before, status=bound), whole) == before
