"""What a node's spec says: all pools merged, unreadable ones kept, grants copied from the ledger."""

import msgspec

from tests.builders.node import PF, pf_spec, pf_status, pool
from vmnic.controller.reconcile.nodes import plan_node_spec
from vmnic.nodes.budget import Entry, Ledger, PoolLedger
from vmnic.nodes.state import NodeNicState, NodeSpec, NodeStatus, ObjectMeta


def state(*pfs, boot="b1"):
    return NodeNicState(
        metadata=ObjectMeta(name="n1"), spec=NodeSpec(pfs=pfs), status=NodeStatus(boot_id=boot, pfs=(pf_status(),))
    )


def planned(node_state, *pools, unreadable=(), ledger=None):
    return plan_node_spec({}, node_state, pools=pools, unreadable_pools=unreadable, ledger=ledger or Ledger())


def test_a_node_is_asked_for_what_its_pools_ask():
    spec = planned(state(), pool())
    assert (spec.synced, spec.pfs) == (True, (pf_spec(),))


def test_a_node_whose_agent_has_not_spoken_is_asked_for_nothing_new():
    assert planned(state(boot=""), pool()) == NodeSpec()


def test_a_pool_that_is_gone_asks_for_nothing():
    assert planned(state(pf_spec())).pfs == ()


def test_a_pool_that_cannot_be_read_keeps_what_it_asked_for():
    assert planned(state(pf_spec()), unreadable={"fast"}).pfs == (pf_spec(),)


def test_a_grant_is_a_copy_of_the_ledger_and_of_nothing_else():
    ledger = Ledger({"fast": PoolLedger(entries={"n1": Entry(generation=1, boot_id="b1", digests={PF: "d1"})})})
    assert planned(state(), pool(), ledger=ledger).pfs[0].grant == "d1"
    forged = state(msgspec.structs.replace(pf_spec(), grant="forged"))
    assert planned(forged, pool()).pfs[0].grant is None
