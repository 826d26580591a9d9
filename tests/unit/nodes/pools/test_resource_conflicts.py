"""Pools whose resources have the same name, also those that end with the name of a link."""

import pytest

from tests.builders.node import pf_spec, pf_status, pool
from vmnic.api.node_state import VfGroup
from vmnic.nodes.pools.merge import find_resource_conflicts, merge_pools

OLD, YOUNG = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
I350 = {"nicSelector": {"models": ["I350"]}}
PFS = [pf_status(name="ens1"), pf_status("0000:0c:00.0", device="1521", model="I350", name="ens2")]


def per_pf(created, name="fast", **spec):
    return pool(name, created=created, resourcePerPF=True, **spec)


def published(created, *links):
    made = per_pf(created)
    names = [f"vmnic.dev/fast-{link}" for link in links]
    return made.model_copy(update={"status": made.status.model_copy(update={"resource_names": names})})


CONFLICTS = {
    "the younger pool is named like a link": ([per_pf(OLD), pool("fast-ens1", created=YOUNG, **I350)], "fast-ens1", "fast"),
    "the younger pool has a resource for each link": (
        [per_pf(YOUNG), pool("fast-ens1", created=OLD, **I350)],
        "fast",
        "fast-ens1",
    ),
    "a given resource": (
        [per_pf(OLD), pool("x", created=YOUNG, resourceName="vmnic.dev/fast-ens1", **I350)],
        "x",
        "fast",
    ),
    "both for each link": (
        [per_pf(OLD), per_pf(YOUNG, "fast-ens", resourceName="vmnic.dev/fast-ens1", **I350)],
        "fast-ens",
        "fast",
    ),
    "another node has the link": ([published(OLD, "ens7"), pool("fast-ens7", created=YOUNG, **I350)], "fast-ens7", "fast"),
    "no such link": ([per_pf(OLD), pool("fast-ens9", created=YOUNG, **I350)], None, None),
    "one resource for all links": ([pool("fast", created=OLD), pool("fast-ens1", created=YOUNG, **I350)], None, None),
    "the link of another pool": ([per_pf(OLD), pool("fast-ens2", created=YOUNG, **I350)], None, None),
}


@pytest.mark.parametrize(("pools", "loser", "winner"), CONFLICTS.values(), ids=CONFLICTS)
def test_the_younger_pool_of_equal_resources_loses(pools, loser, winner):
    merged = merge_pools(pools, {}, PFS)
    assert [one.pool for one in merged.conflicts] == ([loser] if loser else [])
    if loser:
        assert f"belongs to pool {winner}: create this pool again" in merged.conflicts[0].message
    assert {one.pool for one in merged.pfs} == {one.metadata.name for one in pools} - {loser}


def test_resources_that_a_status_lists_conflict_without_a_node():
    pools = [published(OLD, "ens7"), pool("fast-ens7", created=YOUNG, **I350)]
    assert [one.pool for one in find_resource_conflicts(pools)] == ["fast-ens7"]
    assert not find_resource_conflicts([per_pf(OLD), pools[1]])


def test_a_new_name_of_a_link_takes_no_vfs_from_a_younger_pool():
    group = VfGroup(pool="fast-ens1", resource="vmnic.dev/fast-ens1", driver="vfio-pci")
    before = pf_spec(pci_address="0000:0c:00.0", pool="fast-ens1", groups=(group,))
    merged = merge_pools([per_pf(OLD), pool("fast-ens1", created=YOUNG, **I350)], {}, PFS, [before])
    assert [one.pool for one in merged.conflicts] == ["fast-ens1"]
    assert {one.pci_address: one.groups[0].pool for one in merged.pfs} == {
        "0000:0b:00.0": "fast",
        "0000:0c:00.0": "fast-ens1",
    }
