"""Tables for IOMMU groups, whose members decide whether a VM can get a function."""

from dataclasses import replace

import pytest

from tests.builders.node import PF, observed, pf_spec
from vmnic.api.node_state import HostFacts, VfGroup
from vmnic.api.reasons import PfReason
from vmnic.nodes.observed import GroupMember, IommuGroup
from vmnic.nodes.planning.plan import hold_partners, plan_pf

IOMMU = HostFacts(iommu=True, modules=("vfio_pci",))
WHOLE = pf_spec(function="Physical", num_vfs=0)
OTHER = "0000:0b:00.1"
SHARED, RESERVED = PfReason.IOMMU_GROUP_SHARED, PfReason.RESERVED_MEMORY_REGION


def member(address, driver="", **changes):
    return GroupMember(address=address, driver=driver, **changes)


def seen_in(*members, driver="igb", **changes):
    group = IommuGroup(number="34", members=(member(PF, driver), *members), **changes)
    return observed(driver=driver, group="34", iommu_groups=(group,)) if driver != "igb" else in_group(group)


def in_group(group, **changes):
    return observed(group="34", iommu_groups=(group,), **changes)


def planned(desired, seen, *others):
    return plan_pf(desired, seen, host=IOMMU, boot_id="b", attempt=0, holders={}, others=(desired, *others))


def other(**changes):
    return pf_spec(OTHER, **({"function": "Physical", "num_vfs": 0} | changes))


@pytest.mark.parametrize("driver", ["", "vfio-pci", "mlx5_vfio_pci", "vfio-platform", "pci-stub", "pcieport"])
@pytest.mark.parametrize("is_bridge", [False, True])
def test_a_member_that_does_no_dma_is_no_obstacle(driver, is_bridge):
    found = planned(WHOLE, seen_in(member("0000:00:1c.0", driver, is_bridge=is_bridge)))
    assert (found.problem, found.plan.text) == (None, "bind the whole NIC to vfio-pci")


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (member("0000:00:1f.3", "snd_hda_intel"), "0000:00:1f.3 on snd_hda_intel"),
        (member("0000:00:1c.1", "shpchp", is_bridge=True), "the bridge 0000:00:1c.1 on shpchp"),
        (member(OTHER, "igb"), "0000:0b:00.1 on igb"),
        (member("INT33A1:00", "pnp"), "INT33A1:00 on pnp"),
    ],
    ids=["a sound card", "a bridge", "the other port", "no PCI function"],
)
def test_a_member_with_a_driver_is_an_obstacle_and_is_named(one, words):
    problem = planned(WHOLE, seen_in(one)).problem
    assert (problem.reason, words in problem.message) == (SHARED, True)


def test_obstacles_beyond_four_are_counted():
    problem = planned(WHOLE, seen_in(*(member(f"0000:00:1f.{i}", "igb") for i in range(6)))).problem
    assert "and 2 more" in problem.message


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (other(), ""),
        (other(pool="slow"), "0000:0b:00.1 on igb of pool slow"),
        (other(function="Virtual", num_vfs=7, pool="vfs"), "0000:0b:00.1 on igb of pool vfs"),
        (other(release="Reset"), "0000:0b:00.1 on igb"),
    ],
    ids=["the same pool", "another whole-NIC pool", "a pool of VFs", "a pool that releases it"],
)
def test_members_of_one_pool_go_together_and_others_are_named(spec, words):
    found = planned(WHOLE, seen_in(member(OTHER, "igb")), spec)
    assert (found.problem is None, words in (found.problem.message if found.problem else "")) == (not words, True)


def test_two_pools_in_one_group_are_told_even_on_vfio():
    found = planned(
        WHOLE,
        in_group(IommuGroup(number="34", members=(member(PF, "vfio-pci"), member(OTHER, "vfio-pci"))), driver="vfio-pci"),
        other(pool="slow"),
    )
    assert (found.problem.reason, "of pool slow" in found.problem.message) == (SHARED, True)


@pytest.mark.parametrize(
    ("partner", "held_back"), [({}, False), ({"host_use": ("address 192.0.2.1/24",)}, True)], ids=["free", "used by the host"]
)
def test_a_function_is_not_taken_while_its_partner_cannot_be(partner, held_back):
    specs = (WHOLE, other())
    group = IommuGroup(number="34", members=(member(PF, "igb"), member(OTHER, "igb")))
    seen = {PF: in_group(group), OTHER: replace(in_group(group, **partner), pci_address=OTHER)}
    plans = {spec.pci_address: planned(spec, seen[spec.pci_address], *specs) for spec in specs}
    found = hold_partners(plans, specs, seen)[PF]
    assert (found.plan is None) == held_back
    assert not held_back or (found.problem.reason is SHARED and f"{OTHER}" in found.problem.message)


@pytest.mark.parametrize("desired", [WHOLE, pf_spec()], ids=["a whole NIC", "VFs"])
@pytest.mark.parametrize(
    ("regions", "reason"),
    [({"direct_regions": ("7b800000-7b8fffff",)}, RESERVED), ({"regions_unknown": "EACCES"}, RESERVED), ({}, None)],
    ids=["direct", "unreadable", "none"],
)
def test_a_direct_region_keeps_what_is_handed_out_from_vms(desired, regions, reason):
    seen = observed(num_vfs=7, driver="vfio-pci") if desired is not WHOLE else observed()
    group = IommuGroup(number="34", members=(member(PF, "igb"),) if desired is WHOLE else (), **regions)
    vfs = tuple(replace(vf, group="34") for vf in seen.vfs[:1])
    seen = replace(
        seen, driver="igb", group="34" if desired is WHOLE else "1", iommu_groups=(group,), vfs=(*vfs, *seen.vfs[1:])
    )
    problem = planned(desired, seen).problem
    assert (problem and problem.reason) == reason
    assert not regions or next(iter(regions.values()))[0] in problem.message


def test_a_direct_region_of_the_pf_alone_does_not_matter_to_vfs():
    seen = seen_in(direct_regions=("7b800000-7b8fffff",))
    assert planned(pf_spec(), seen).problem is None


VFS_TOGETHER = [member("0000:0b:10.0"), member("0000:0b:10.2")]


@pytest.mark.parametrize(
    ("members", "groups", "words"),
    [
        (VFS_TOGETHER, None, "each other"),
        ([*VFS_TOGETHER[:1], member("0000:0b:10.2", "igbvf")], "0", "VF 1 on igbvf"),
        ([*VFS_TOGETHER[:1], member("0000:00:1c.1", "shpchp", is_bridge=True)], "0", "the bridge 0000:00:1c.1 on shpchp"),
        ([*VFS_TOGETHER[:1], member(PF, "igb")], "0", "the function itself"),
        ([*VFS_TOGETHER[:1], member("0000:00:1c.0", "pcieport", is_bridge=True)], "0", ""),
    ],
    ids=["two VFs", "a VF for a pod", "a bridge", "the PF", "a port"],
)
def test_a_vf_that_is_not_alone_is_not_offered(members, groups, words):
    seen = observed(num_vfs=2)
    group = IommuGroup(number="9", members=tuple(members))
    seen = replace(seen, driver="igb", iommu_groups=(group,), vfs=tuple(replace(vf, group="9") for vf in seen.vfs))
    group_of_pool = VfGroup(pool="fast", resource="vmnic.dev/fast", **({"range": groups} if groups else {}))
    problem = planned(pf_spec(num_vfs=2, groups=(group_of_pool,)), seen).problem
    assert (problem is None) == (not words)
    assert not words or words in problem.message


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([member("0000:00:1c.0", "pcieport", is_bridge=True)], SHARED),
        ([member(OTHER, "igb")], None),
        ([member("0000:00:1c.1", "")], None),
    ],
    ids=["below a port without ACS", "beside the other port", "beside a host bridge"],
)
def test_new_vfs_join_their_pfs_group_only_below_a_port(members, reason):
    problem = planned(pf_spec(), seen_in(*members)).problem
    assert (problem and problem.reason) == reason


def test_present_vfs_show_that_new_ones_have_groups_of_their_own():
    seen = seen_in(member("0000:00:1c.0", "pcieport", is_bridge=True))
    vfs = tuple(replace(vf, group=f"4{vf.index}") for vf in observed(num_vfs=2).vfs)
    assert planned(pf_spec(), replace(seen, num_vfs=2, vfs=vfs)).problem is None


def test_vfs_for_pods_may_share_a_group():
    seen = seen_in(member("0000:00:1c.0", "pcieport", is_bridge=True))
    assert planned(pf_spec(driver="kernel"), seen).problem is None
