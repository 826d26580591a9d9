"""The answer per pool whether its VMs survive the loss of a node."""

import msgspec
import pytest

from tests.builders.fleet import MemoryCluster
from tests.builders.maintenance import BASE, FAST, host, running
from vmnic.controller.caches.cluster_cache import ClusterCache
from vmnic.controller.pools.survival import SurvivalCheck
from vmnic.kube.reflector import ObjectKey


def world(*documents):
    made = ClusterCache(MemoryCluster(), lambda key, after_s=0.0: None)
    kinds = {one.resource.kind: one for one in reversed(made.reflectors)}
    for document in documents:
        kinds[document["kind"]]._store(msgspec.Raw(msgspec.json.encode(document)))
    return made, kinds


def scene(*documents):
    made, kinds = world(*BASE, *host("n1"), *running("a"), *documents)
    return SurvivalCheck(made.devices), kinds


@pytest.mark.parametrize(
    ("second", "answer"),
    [
        (host("n2"), True),
        (host("n2", unschedulable=True), False),
        (host("n2", taints=[{"key": "x", "effect": "NoSchedule"}]), False),
        ((), False),
    ],
    ids=["free", "cordoned", "tainted", "no other node"],
)
async def test_a_pool_survives_if_other_nodes_have_room(second, answer):
    check, _ = scene(*second)
    await check.update("fast", [FAST])
    assert check.by_pool == {"fast": answer}


async def test_the_answer_follows_a_change_of_the_nodes():
    check, kinds = scene(*host("n2"))
    await check.update("fast", [FAST])
    kinds["Node"]._drop(ObjectKey("", "n2"))
    await check.update("fast", [FAST])
    assert check.by_pool == {"fast": False}


async def test_an_unreadable_node_makes_the_answer_unknown():
    check, kinds = scene(host("n2")[0])
    kinds["NodeNicState"]._store(msgspec.Raw(msgspec.json.encode(host("n2")[1] | {"status": 5})))
    await check.update("fast", [FAST])
    assert check.by_pool == {}


async def test_a_pool_that_is_gone_has_no_answer():
    check, _ = scene(*host("n2"))
    await check.update("fast", [FAST])
    check.forget("fast")
    assert check.by_pool == {}
