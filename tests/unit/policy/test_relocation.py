"""VMs that must leave a node are matched to free devices on other nodes."""

import pytest

from vmnic.kube.time_budget import time_budget
from vmnic.policy.capacity import Capacity, Claim, NodeDevices
from vmnic.policy.facts import VmFacts
from vmnic.policy.relocation import find_unplaceable


def claim(name, count=1, *, selector=None, resource="a/vf"):
    return Claim(vm=VmFacts(namespace="t", name=name, node_selector=selector or {}), held={resource: count})


def capacity(free, *, labels=None, cordoned=()):
    nodes = {name: NodeDevices(labels=(labels or {}).get(name, {}), usable=name not in cordoned) for name in free}
    return Capacity(nodes=nodes, free={"a/vf": free})


def homeless(claims, found, *leaving):
    return [one.vm.name for one in find_unplaceable(claims, found, leaving={"n1", *leaving})]


@pytest.mark.parametrize(
    ("claims", "found", "left"),
    [
        ([claim("a")], capacity({"n1": 7, "n2": 1}), []),
        ([claim("a")], capacity({"n1": 7, "n2": 0}), ["a"]),
        ([claim("a"), claim("b")], capacity({"n1": 0, "n2": 1, "n3": 1}), []),
        ([claim("a"), claim("b")], capacity({"n1": 0, "n2": 1}), ["b"]),
        ([claim("a", 2)], capacity({"n1": 0, "n2": 1, "n3": 1}), ["a"]),
        ([claim("a")], capacity({"n1": 0, "n2": 1}, cordoned={"n2"}), ["a"]),
        ([claim("a", resource="b/vf")], capacity({"n1": 0, "n2": 1}), ["a"]),
    ],
    ids=[
        "there is one",
        "there is none",
        "one each",
        "one too few",
        "on one node",
        "a cordoned node has none",
        "of another sort",
    ],
)
def test_vms_without_a_place_are_found(claims, found, left):
    assert homeless(claims, found) == left


def test_leaving_nodes_provide_no_device():
    assert homeless([claim("a")], capacity({"n1": 0, "n2": 1}), "n2") == ["a"]


def test_a_vm_with_few_options_keeps_its_place():
    found = capacity({"n2": 1, "n3": 1}, labels={"n2": {"rack": "2"}})
    assert homeless([claim("a"), claim("b", selector={"rack": "2"})], found) == []


def test_the_search_backtracks_from_a_wrong_first_choice():
    # Nodes with the fewest free devices are tried first: n2 for a, and then no place is left for b and c.
    found = capacity({"n2": 2, "n3": 3})
    assert homeless([claim("a", 2), claim("b", 3)], found) == []
    assert homeless([claim("a", 1), claim("b", 2), claim("c", 2)], found) == []


def test_many_vms_are_matched_in_reasonable_time():
    claims = [claim(f"v{number:02}") for number in range(64)]
    assert homeless(claims, capacity({f"n{number}": 1 for number in range(2, 66)})) == []
    assert len(homeless(claims, capacity({f"n{number}": 1 for number in range(2, 60)}))) == 6


def test_a_search_in_a_full_cluster_of_1000_nodes_is_bounded():
    free = {f"n{number}": 1 if number < 7 else 0 for number in range(2, 1002)}
    claims = [claim(f"v{number}") for number in range(16)]
    with time_budget(1.0):
        assert len(find_unplaceable(claims, capacity(free), leaving={"n1"})) == 11
