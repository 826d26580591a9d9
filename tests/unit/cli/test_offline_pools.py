"""Plans of pools from the states of nodes alone."""

import pytest

from tests.builders.node import PF, pf_status, pool
from vmnic.api.node_state import HostFacts, NodeNicState, NodeSpec, NodeStatus, ObjectMeta
from vmnic.cli.objects import Objects
from vmnic.cli.offline import decide_all
from vmnic.cli.plan import make_plan

OTHER = "0000:0c:00.0"
LINUX_ONLY, WITH_WINDOWS = {"device": "10c9", "model": "82576"}, {"device": "1521", "model": "I350"}


def plan(pools, nodes, *, synced=False):
    objects = Objects()
    objects.pools |= {one.metadata.name: one for one in pools}
    facts = HostFacts(iommu=True, modules=("vfio_pci",))
    for name, pfs in nodes.items():
        status = NodeStatus(boot_id="b1", host=facts, pfs=tuple(pfs))
        objects.node_states[name] = NodeNicState(metadata=ObjectMeta(name=name), spec=NodeSpec(synced=synced), status=status)
    return make_plan(objects, decide_all(objects, offline=True), [], None)


MIXED = {
    "nodes that differ": ([[pf_status(**LINUX_ONLY)], [pf_status(**WITH_WINDOWS)]], True),
    "the same everywhere": ([[pf_status(**LINUX_ONLY)], [pf_status(**LINUX_ONLY)]], False),
    "only Windows guests": ([[pf_status(**WITH_WINDOWS)], [pf_status(**WITH_WINDOWS)]], False),
    "one node": ([[pf_status(**LINUX_ONLY), pf_status(OTHER, **WITH_WINDOWS)]], False),
}


@pytest.mark.parametrize("synced", [False, True])
@pytest.mark.parametrize(("nodes", "told"), MIXED.values(), ids=MIXED)
def test_a_plan_of_files_tells_mixed_guest_support(nodes, told, synced):
    asked = pool("fast", nicSelector={"models": ["82576", "I350"]}, numVfs=2)
    found = plan([asked], {f"n{number}": pfs for number, pfs in enumerate(nodes)}, synced=synced)["problems"]
    problems = [one for one in found if one["reason"] == "MixedGuestSupport"]
    assert [one["object"] for one in problems] == (["SriovNetworkPool/fast"] if told else [])


WHOLE = pool("whole", function="Physical", numVfs=None)
BOTH = pool("whole", function="Physical", numVfs=None, nicSelector={"models": ["82576", "I350"]})
GROUPS = {
    "another group": (WHOLE, {"iommu_group": 8}, [None]),
    "no groups": (WHOLE, {"iommu_group": None}, [None]),
    "the same group": (WHOLE, {"iommu_group": 7}, ["IommuGroupShared"]),
    "the same group without a driver": (WHOLE, {"iommu_group": 7, "driver": ""}, [None]),
    "the same group and pool": (BOTH, {"iommu_group": 7}, [None, None]),
}


@pytest.mark.parametrize(("asked", "other", "reasons"), GROUPS.values(), ids=GROUPS)
def test_a_plan_of_files_knows_the_members_of_groups(asked, other, reasons):
    pfs = [pf_status(PF, iommu_group=7 if other["iommu_group"] else None), pf_status(OTHER, **(WITH_WINDOWS | other))]
    rows = plan([asked], {"n1": pfs})["pools"][0]["nodes"]
    assert [row["problem"]["reason"] if row["problem"] is not None else None for row in rows] == reasons
    assert all(row["actions"] for row in rows if row["problem"] is None)
