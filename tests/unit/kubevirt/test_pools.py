"""Facts about pools from nodes that differ, cannot be read, or report more than their kubelet."""

import msgspec
import pytest

from tests.builders.vm import node_state, pool
from vmnic.api.pool import SriovNetworkPool
from vmnic.kubevirt.pools import NodeInput, gather_pools, node_devices
from vmnic.nodes.state import decode_node_state

BOTH = ("I350", "82576")


def one(name="n1", *, allocatable=None, break_it=False, **state):
    body = node_state(name, **state)
    if break_it:
        body["status"]["pfs"][0]["numVfs"] = -1
    return NodeInput(name=name, allocatable=allocatable, state=decode_node_state(msgspec.json.encode(body)))


def facts(*nodes, known=True, **options):
    made = SriovNetworkPool.model_validate(pool("fast", **({"models": BOTH} | options)))
    return gather_pools([made], nodes, known=known)["fast"]


def devices(node, **options):
    return node_devices([node], {"fast": facts(node, **options)})[node.name]


@pytest.mark.parametrize(
    ("nodes", "models", "found"),
    [
        ([one("n1", model="82576")], BOTH, ("82576",)),
        ([one("n1", model="82576"), one("n2")], BOTH, ()),
        ([one("n1", model="82576"), one("n2", break_it=True)], BOTH, ()),
        ([one("n2", break_it=True)], ("82576",), ("82576",)),
        ([], ("82576",), ("82576",)),
        ([], BOTH, ()),
    ],
    ids=["all", "some", "one is unknown", "named, and unknown", "named", "named, and another"],
)
def test_a_pool_is_linux_only_if_all_its_nodes_are(nodes, models, found):
    assert facts(*nodes, models=models).linux_only == found


@pytest.mark.parametrize(
    ("allocatable", "count"),
    [(None, 7), ({}, 0), ({"vmnic.dev/fast": 3}, 3), ({"vmnic.dev/fast": 2**63 - 1}, 7), ({"other/x": 9}, 0)],
)
def test_a_node_has_the_devices_that_agent_and_kubelet_report(allocatable, count):
    assert devices(one(allocatable=allocatable)).total["vmnic.dev/fast"] == count


def test_the_resources_of_an_unreadable_node_are_unknown():
    found = devices(one(break_it=True, allocatable={"vmnic.dev/fast": 7}))
    assert (found.total["vmnic.dev/fast"], found.unknown) == (0, {"vmnic.dev/fast"})


def test_the_blocker_names_the_node_that_cannot_be_read():
    assert facts(one(break_it=True)).blocker == "the NodeNicState of n1 cannot be read"


def test_whole_nics_suit_every_guest():
    found = devices(one(model="82576", function="Physical", vfs=0), function="Physical")
    assert (found.linux_only, found.total["vmnic.dev/fast"]) == (frozenset(), 1)
