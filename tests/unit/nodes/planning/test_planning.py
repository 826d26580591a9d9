"""Tables for match, merge, plan and digest."""

import re
from dataclasses import replace

import msgspec
import pytest

from tests.builders.node import PF, observed, pf_spec, pf_status, pool
from vmnic.api.node_state import HostFacts, VfGroup, VfSettings
from vmnic.api.reasons import PfReason
from vmnic.nodes.nics import model_of, nic_files, read_models
from vmnic.nodes.observed import GroupMember, IommuGroup, ObservedVf, VfAttributes, observed_of, render_pf_status
from vmnic.nodes.planning.actions import admin_mac, plan_actions
from vmnic.nodes.planning.digest import digest_of
from vmnic.nodes.planning.drivers import NO_SHARED_DRIVER, DriverFacts
from vmnic.nodes.planning.plan import plan_pf
from vmnic.nodes.planning.target import original_of, rollback_target
from vmnic.nodes.pools.match import matching_pfs
from vmnic.nodes.pools.merge import merge_pools

SHARED = pf_spec(
    groups=(
        VfGroup(pool="fast", resource="vmnic.dev/fast", range="0-3"),
        VfGroup(pool="nets", resource="vmnic.dev/nets", range="4-6", driver="kernel"),
    )
)
ADOPTED = pf_spec(management="Adopt", num_vfs=4)


def with_settings(driver="vfio-pci", settings=None, **changes):
    return pf_spec(groups=(VfGroup(pool="fast", resource="vmnic.dev/fast", driver=driver, settings=settings),), **changes)


TAGGED = with_settings(settings=VfSettings(vlan=100))
RATED = with_settings(settings=VfSettings(max_tx_rate_mbps=100))
NAMED = VfSettings(mac_prefix="02:aa:bb")
NAMED_LINKS = with_settings("kernel", NAMED)
MAC = "52:54:00:00:0b:01"
LINK_ELSEWHERE = observed(num_vfs=7, name="", mtu=None, link_elsewhere=True)


def replace_groups(vfs):
    return pf_spec(groups=(VfGroup(pool="fast", resource="vmnic.dev/fast", range=vfs),))


def seen_with(drivers, **changes):
    """Return a PF whose VFs have these drivers."""
    seen = observed(num_vfs=len(drivers), **changes)
    return replace(seen, vfs=tuple(replace(vf, driver=driver) for vf, driver in zip(seen.vfs, drivers, strict=True)))


def with_vlan(vlan, **changes):
    seen = observed(num_vfs=7, **changes)
    tagged = VfAttributes(mac="02:00:00:00:00:01", vlan=vlan)
    return replace(seen, vfs=tuple(replace(vf, attributes=tagged) for vf in seen.vfs))


def with_macs(prefix, **changes):
    """Return a PF whose seven VFs have MAC addresses with this prefix, on the NIC's own VF driver."""
    seen = observed(**({"num_vfs": 7, "driver": "igbvf", "autoprobe": True, "up": True, "mac": MAC} | changes))
    vfs = [replace(vf, attributes=VfAttributes(mac=admin_mac(prefix, MAC, vf.index))) for vf in seen.vfs]
    return replace(seen, driver="igb", vfs=tuple(vfs))


BELOW_A_PORT = IommuGroup(
    number="1",
    members=(GroupMember(address="0000:00:1c.0", driver="pcieport", is_bridge=True), GroupMember(address=PF, driver="igb")),
)
IOMMU = HostFacts(iommu=True, modules=("vfio_pci",))


def planned(desired, seen, *, host=IOMMU, attempt=0, boot="b1", holders=None, original=None, driver=NO_SHARED_DRIVER):
    return plan_pf(
        desired, seen, host=host, boot_id=boot, attempt=attempt, holders=holders or {}, original=original, driver=driver
    )


def steps(desired, seen):
    plan = planned(desired, seen).plan
    return words(plan.actions) if plan else []


def words(actions):
    return [f"{action.kind} {action.value}".strip() for action in actions]


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ({"models": ["82576", "I350"]}, True),
        ({"models": ["I350"]}, False),
        ({"vendors": ["8086"], "devices": ["10c9"]}, True),
        ({"vendors": ["8086"], "devices": ["1521"]}, False),
        ({"drivers": ["igb"]}, True),
        ({"pfNames": ["ens1f*"]}, True),
        ({"pfNames": ["enp11s0*"]}, True),
        ({"pfNames": ["ens2*"]}, False),
        ({"pciAddresses": [PF]}, True),
        ({"numaNodes": [1]}, False),
        ({"minLinkSpeedMbps": 1000}, True),
        ({"minLinkSpeedMbps": 10000}, False),
    ],
    ids=[
        "one of the models", "another model", "vendor and device", "vendor but another device", "driver", "name glob",
        "alternative name", "another name", "address", "another NUMA node", "fast enough", "too slow",
    ],
)  # fmt: skip
def test_every_given_field_of_a_selector_must_match(selector, matches):
    found = matching_pfs(pool(nicSelector=selector), {}, [pf_status(alt_names=("enp11s0f0",))], ())
    assert bool(found) is matches


def test_a_link_that_is_down_has_no_speed_to_match():
    assert not matching_pfs(pool(nicSelector={"minLinkSpeedMbps": 1}), {}, [pf_status(link_speed_mbps=None)], ())


@pytest.mark.parametrize(("labels", "matches"), [({"nic": "yes", "x": "y"}, True), ({"nic": "no"}, False), ({}, False)])
def test_a_node_selector_requires_every_label(labels, matches):
    assert bool(matching_pfs(pool(nodeSelector={"nic": "yes"}), labels, [pf_status()], ())) is matches


@pytest.mark.parametrize(("wanted", "count"), [(3, 3), ("max", 7), ("50%", 3), ("100%", 7), ("1%", 0), (0, 0)])
def test_a_number_a_percentage_and_max_become_vfs(wanted, count):
    assert merge_pools([pool(numVfs=wanted)], {}, [pf_status()]).pfs[0].num_vfs == count


def test_the_oldest_of_conflicting_pools_keeps_the_pf():
    old, young = pool("z-old", numVfs=7), pool("a-young", numVfs=2, created="2026-02-01T00:00:00Z")
    merged = merge_pools([young, old], {}, [pf_status()])
    assert [(pf.pool, pf.num_vfs) for pf in merged.pfs] == [("z-old", 7)]
    (conflict,) = merged.conflicts
    assert (conflict.pool, conflict.pci_address, "older pool z-old" in conflict.message) == ("a-young", PF, True)


def test_pools_with_ranges_share_a_pf():
    nets = pool("nets", vfRange="4-6", vfDriver="kernel", created="2026-02-01T00:00:00Z")
    merged = merge_pools([nets, pool("fast", vfRange="0-3")], {}, [pf_status()])
    assert merged.conflicts == ()
    assert [(pf.pool, pf.num_vfs) for pf in merged.pfs] == [("fast", 7)]
    assert [(group.pool, group.range, group.driver) for group in merged.pfs[0].groups] == [
        ("fast", "0-3", "vfio-pci"), ("nets", "4-6", "kernel"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ({}, "share the function with spec.vfRange in both"),
        ({"vfRange": "3-6"}, "VF 3 is in the spec.vfRange of both"),
        ({"vfRange": "4-5", "numVfs": 6}, "must agree on spec.numVfs, which is 7 there and 6 here"),
        ({"vfRange": "4-6", "mtu": 9000}, "must agree on spec.mtu, which is None there and 9000 here"),
        ({"vfRange": "4-6", "queues": 2}, "must agree on spec.queues"),
        ({"vfRange": "4-6", "management": "Adopt"}, "must agree on spec.management"),
    ],
    ids=["no range", "a range that overlaps", "another number", "another MTU", "other queues", "another management"],
)
def test_a_conflict_says_why_pools_cannot_share_a_pf(second, why):
    young = pool("young", created="2026-02-01T00:00:00Z", **second)
    merged = merge_pools([young, pool("fast", vfRange="0-3")], {}, [pf_status()])
    assert [group.pool for group in merged.pfs[0].groups] == ["fast"]
    assert why in merged.conflicts[0].message


def shares(*pairs, num_vfs=7, **changes):
    """Return a present spec in which these pools have these ranges."""
    groups = tuple(VfGroup(pool=name, resource=f"vmnic.dev/{name}", range=vfs) for name, vfs in pairs)
    return pf_spec(groups=groups, pool=pairs[0][0], num_vfs=num_vfs, **changes)


OLD_AND_YOUNG = shares(("old", "0-3"), ("young", "4-6"))


@pytest.mark.parametrize(
    ("old", "young", "before", "lost", "left", "asked"),
    [
        ({}, {"vfRange": "4-9"}, OLD_AND_YOUNG, ("young", "TooManyVfs"), ["old 0-3", "young 4-6"], (7, 9000)),
        ({"vfRange": "0-9"}, {}, OLD_AND_YOUNG, ("old", "TooManyVfs"), ["old 0-3", "young 4-6"], (7, 9000)),
        ({}, {"vfRange": "4-9"}, None, ("young", "TooManyVfs"), ["old 0-3"], (7, 9000)),
        ({"vfRange": "0-9"}, {}, None, ("old", "TooManyVfs"), ["young 4-6"], (7, 9000)),
        ({}, {"vfRange": "3-6"}, OLD_AND_YOUNG, ("young", "Conflict"), ["old 0-3", "young 4-6"], (7, 9000)),
        ({"vfRange": "0-4"}, {}, OLD_AND_YOUNG, ("young", "Conflict"), ["old 0-4", "young 5-6"], (7, 9000)),
        ({"vfRange": "5"}, {}, OLD_AND_YOUNG, ("young", "Conflict"), ["old 5", "young 4"], (7, 9000)),
        ({}, {"mtu": 1500}, OLD_AND_YOUNG, ("young", "Conflict"), ["old 0-3", "young 4-6"], (7, 9000)),
        ({"numVfs": 6}, {}, OLD_AND_YOUNG, ("young", "Conflict"), ["old 0-3", "young 4-5"], (6, 9000)),
        ({"vfRange": None}, {}, OLD_AND_YOUNG, ("young", "Conflict"), ["old "], (7, 9000)),
        ({"vfRange": "0-9"}, {"vfRange": "2-6"}, OLD_AND_YOUNG, ("old", "TooManyVfs"), ["old 0-3", "young 4-6"], (7, None)),
        ({"numVfs": 9, "vfRange": "0-3"}, {"numVfs": 9}, OLD_AND_YOUNG, None, ["old 0-3", "young 4-6"], (9, 9000)),
    ],
    ids=[
        "a range past the count", "the older one's range", "a new pool's range", "a new older pool's range", "an overlap",
        "an overlap by the older one", "within the younger one's", "another MTU", "another number", "all VFs for the older one",
        "both at fault", "more VFs than the NIC has",
    ],
)  # fmt: skip
def test_a_fault_belongs_to_the_pool_that_has_it(old, young, before, lost, left, asked):
    pools = [
        pool("young", created="2026-02-01T00:00:00Z", **({"vfRange": "4-6", "mtu": 9000} | young)),
        pool("old", **({"vfRange": "0-3", "mtu": 9000} | old)),
    ]
    merged = merge_pools(pools, {}, [pf_status(num_vfs=7)], [before] if before is not None else [])
    (spec,) = merged.pfs
    assert [(one.pool, one.reason) for one in merged.conflicts][:1] == ([lost] if lost else [])
    assert [f"{group.pool} {group.range}" for group in spec.groups] == left
    assert (spec.num_vfs, spec.mtu) == asked


def test_a_pool_alone_with_a_faulty_range_is_judged_by_the_agent():
    merged = merge_pools([pool(vfRange="5-9")], {}, [pf_status()])
    assert (merged.conflicts, [group.range for group in merged.pfs[0].groups]) == ((), ["5-9"])
    assert planned(merged.pfs[0], observed()).problem.reason is PfReason.TOO_MANY_VFS


def test_a_third_pool_does_not_get_vfs_of_a_share_that_stays():
    three = [
        pool("old", vfRange="0-3"),
        pool("young", vfRange="4-9", created="2026-02-01T00:00:00Z"),
        pool("new", vfRange="5-6", created="2026-03-01T00:00:00Z"),
    ]
    merged = merge_pools(three, {}, [pf_status(num_vfs=7)], [OLD_AND_YOUNG])
    assert [(one.pool, one.reason) for one in merged.conflicts] == [("young", "TooManyVfs"), ("new", "Conflict")]
    assert [f"{group.pool} {group.range}" for group in merged.pfs[0].groups] == ["old 0-3", "young 4-6"]


def test_a_resource_per_pf_is_named_after_the_pf():
    merged = merge_pools([pool(resourcePerPF=True)], {}, [pf_status()])
    assert merged.pfs[0].groups[0].resource == "vmnic.dev/fast-ens1f0"


@pytest.mark.parametrize(
    ("selector", "now", "stays"),
    [
        ({"minLinkSpeedMbps": 1000}, {"link_speed_mbps": None}, True),
        ({"minLinkSpeedMbps": 1000}, {"link_speed_mbps": 100}, True),
        ({"pfNames": ["ens1*"]}, {"name": "", "driver": "vfio-pci"}, True),
        ({"pfNames": ["ens2*"]}, {}, False),
        ({"drivers": ["igb"]}, {"name": "", "driver": "vfio-pci"}, True),
        ({"drivers": ["igb"]}, {"driver": ""}, True),
        ({"drivers": ["ixgbe"]}, {}, False),
        ({"models": ["I350"]}, {"name": "", "driver": "vfio-pci"}, False),
    ],
    ids=[
        "link down", "slower", "no name any more", "another name", "its own vfio-pci", "no driver", "another driver", "model",
    ],
)  # fmt: skip
def test_a_pool_keeps_a_pf_unless_a_known_value_contradicts(selector, now, stays):
    whole = pool(function="Physical", numVfs=None, nicSelector=selector)
    merged = merge_pools([whole], {}, [pf_status(**now)], [pf_spec()])
    assert [pf.pci_address for pf in merged.pfs] == [PF] * stays
    assert matching_pfs(whole, {}, [pf_status(**now)], [pf_spec(release="Reset")]) == ()


@pytest.mark.parametrize(
    ("link", "resource"),
    [("ens1f0np0", "fast-ens1f0np0"), ("Eth_0", "fast-eth-0"), ("eth0.5", "fast-eth0.5"), ("p4p1@x", "fast-p4p1-x"),
     ("_", "fast-0000-0b-00.0")],
    ids=["plain", "capital letter and underscore", "dot", "at sign", "nothing is left"],
)  # fmt: skip
def test_a_resource_ends_with_the_link_as_a_dns_name(link, resource):
    merged = merge_pools([pool(resourcePerPF=True)], {}, [pf_status(name=link)])
    assert merged.pfs[0].groups[0].resource == f"vmnic.dev/{resource}"


@pytest.mark.parametrize(("had", "resource"), [("fast-ens1f0", "fast-ens1f0"), ("fast", "fast-0000-0b-00.0")])
def test_a_resource_keeps_its_name_when_its_pf_loses_its_name(had, resource):
    before = pf_spec(groups=(VfGroup(pool="fast", resource=f"vmnic.dev/{had}"),))
    merged = merge_pools([pool(resourcePerPF=True)], {}, [pf_status(name="")], [before])
    assert merged.pfs[0].groups[0].resource == f"vmnic.dev/{resource}"


def test_a_resource_name_of_an_older_pool_is_a_conflict():
    first, second = (
        pool("a", resourceName="vmnic.dev/x"),
        pool("b", resourceName="vmnic.dev/x", nicSelector={"models": ["I350"]}),
    )
    merged = merge_pools([second, first], {}, [pf_status(), pf_status("0000:0c:00.0", device="1521", model="I350")])
    assert [pf.pool for pf in merged.pfs] == ["a"]
    assert "spec.resourceName" in merged.conflicts[0].message


def test_a_pool_that_is_being_deleted_asks_for_nothing():
    assert merge_pools([pool(deleted="2026-03-01T00:00:00Z")], {}, [pf_status()]).pfs == ()


@pytest.mark.parametrize(
    ("desired", "seen", "actions"),
    [
        (pf_spec(), observed(), ["SetAutoprobe 0", "SetNumVfs 7", "BindVfs vfio-pci"]),
        (pf_spec(), observed(num_vfs=7), []),
        (pf_spec(num_vfs=3), observed(num_vfs=7), ["SetNumVfs 0", "SetNumVfs 3", "BindVfs vfio-pci"]),
        (pf_spec(num_vfs=0), observed(num_vfs=7), ["SetNumVfs 0"]),
        (pf_spec(num_vfs=0), observed(), []),
        (pf_spec(driver="kernel"), observed(), ["SetNumVfs 7", "BindVfs kernel"]),
        (pf_spec(driver="kernel"), observed(num_vfs=7), ["SetAutoprobe 1", "BindVfs kernel"]),
        (pf_spec(), observed(num_vfs=7, driver="igbvf", autoprobe=True), ["SetAutoprobe 0", "BindVfs vfio-pci"]),
        (pf_spec(), observed(num_vfs=7, driver=""), ["BindVfs vfio-pci"]),
        (pf_spec(mtu=9000), observed(num_vfs=7), ["SetMtu 9000"]),
        (pf_spec(mtu=1500), observed(num_vfs=7), []),
        (pf_spec(queues=2), observed(num_vfs=7, queues=2), []),
        (pf_spec(queues=2), observed(num_vfs=7, queues=1), ["SetQueues 2"]),
        (pf_spec(num_vfs=3, queues=2), observed(num_vfs=7, queues=2), [
            "SetNumVfs 0", "SetNumVfs 3", "BindVfs vfio-pci", "SetQueues 2",
        ]),
        (pf_spec(), observed(num_vfs=7, up=False), ["SetLink up"]),
        (SHARED, observed(), [
            "SetAutoprobe 0", "SetNumVfs 7", "BindVfs 0-3 vfio-pci", "SetAutoprobe 1", "BindVfs 4-6 kernel",
        ]),
        (SHARED, seen_with(["vfio-pci"] * 4 + ["igbvf"] * 3, autoprobe=True), []),
        (SHARED, seen_with(["vfio-pci"] * 3 + ["igbvf"] * 4, autoprobe=True), ["BindVfs 0-3 vfio-pci"]),
        (ADOPTED, observed(num_vfs=7, driver="igbvf", autoprobe=True), ["BindVfs 0-3 vfio-pci"]),
        (ADOPTED, observed(num_vfs=7), []),
        (TAGGED, observed(), ["SetAutoprobe 0", "SetNumVfs 7", "SetVfs", "BindVfs vfio-pci"]),
        (TAGGED, with_vlan(100), []),
        (TAGGED, with_vlan(7), ["SetVfs 0-6"]),
            (TAGGED, with_vlan(7, held={1, 4}), ["SetVfs 0,2-3,5-6"]),
        (TAGGED, with_vlan(7, held={0, 1, 2, 3, 4, 5, 6}), []),
    ],
    ids=[
        "from nothing", "as desired", "fewer go through zero", "none", "none again", "kernel driver from nothing",
        "from vfio to the kernel driver", "from the kernel driver to vfio", "VFs without a driver", "another MTU", "the same MTU",
        "the same queues", "other queues", "queues that other VFs reset", "a link that is down", "two pools", "two pools, done",
        "a VF on the wrong side", "adopted VFs are bound and not counted", "adopted and done", "VFs with a VLAN", "tagged",
        "another VLAN by hand", "held VFs are left out", "held VFs belong to their CNI",
    ],
)  # fmt: skip
def test_a_plan_has_its_actions_in_the_kernels_order(desired, seen, actions):
    assert steps(desired, seen) == actions


@pytest.mark.parametrize(
    ("desired", "seen", "actions"),
    [
        (RATED, observed(up=False), ["SetAutoprobe 0", "SetNumVfs 7", "SetLink up", "SetVfs", "BindVfs vfio-pci"]),
        (RATED, observed(up=True), ["SetAutoprobe 0", "SetNumVfs 7", "SetVfs", "BindVfs vfio-pci"]),
        (RATED, replace(with_vlan(0), up=False), ["SetLink up", "SetVfs 0-6"]),
        (RATED, replace(observed(), driver="vfio-pci"), [
            "BindPf kernel", "SetAutoprobe 0", "SetNumVfs 7", "SetLink up", "SetVfs", "BindVfs vfio-pci",
        ]),
        (NAMED_LINKS, observed(up=False), [
            "SetAutoprobe 0", "SetNumVfs 7", "SetLink up", "SetVfs", "SetAutoprobe 1", "BindVfs kernel",
        ]),
        (NAMED_LINKS, with_macs("02:00:00"), ["BindVfs 0-6 none", "SetVfs 0-6", "BindVfs kernel"]),
        (NAMED_LINKS, with_macs("02:00:00", driver=""), ["SetVfs 0-6", "BindVfs kernel"]),
        (NAMED_LINKS, with_macs("02:aa:bb", driver=""), ["BindVfs kernel"]),
        (NAMED_LINKS, with_macs("02:aa:bb"), []),
        (NAMED_LINKS, with_macs("02:00:00", held={0, 1, 4}), ["BindVfs 2-3,5-6 none", "SetVfs 2-3,5-6", "BindVfs kernel"]),
        (with_settings("kernel", NAMED, management="Adopt"), with_macs("02:00:00", autoprobe=False), [
            "BindVfs 0-6 none", "SetVfs 0-6", "SetAutoprobe 1", "BindVfs kernel",
        ]),
        (with_settings(settings=NAMED), with_macs("02:00:00"), ["SetVfs 0-6", "SetAutoprobe 0", "BindVfs vfio-pci"]),
    ],
    ids=[
        "rates need a link", "a link that is there", "rates of VFs that are there", "a link of a whole NIC",
        "addresses before drivers", "another address", "stopped after the driver was taken", "stopped after the address was set",
        "the right address", "held VFs are left out", "adopted VFs that no driver may take", "VFs for VMs need no link",
    ],
)  # fmt: skip
def test_link_comes_before_rates_and_addresses_before_drivers(desired, seen, actions):
    assert steps(desired, seen) == actions


def test_vfs_that_are_unbound_for_a_while_are_fenced():
    plan = planned(NAMED_LINKS, with_macs("02:00:00", held={6})).plan
    assert (plan.fenced, plan.blocked_by) == (True, ())
    assert plan.text.startswith("unbind VFs 0-5 from their driver, set the attributes of VFs 0-5, ")


def test_a_rollback_of_rates_leaves_a_link_down_that_was_down():
    target = rollback_target(original_of(observed(num_vfs=7, up=False)), RATED)
    assert words(plan_actions(target, replace(with_vlan(0), up=False))) == ["SetLink up", "SetVfs 0-6", "SetLink down"]


@pytest.mark.parametrize(
    ("desired", "seen", "blocked"),
    [
        (pf_spec(num_vfs=3), observed(num_vfs=7, held={6}), True),
        (pf_spec(num_vfs=3), observed(num_vfs=7), False),
        (pf_spec(mtu=9000), observed(num_vfs=7), False),
        (pf_spec(driver="kernel"), observed(num_vfs=7, held={2}), True),
    ],
    ids=["a VF that would go is held", "nobody holds one", "nobody loses a link", "a VF that would be rebound is held"],
)
def test_a_plan_that_changes_a_held_vf_is_disruptive(desired, seen, blocked):
    plan = planned(desired, seen, holders={"0000:0b:11.4": "pod tenants/db"}).plan
    assert (plan.disruptive, bool(plan.blocked_by)) == (blocked, blocked)


DB, HOST_USED_VF = {"0000:0b:10.0": "pod tenants/db"}, {"0000:0b:10.0": "the host (place in bond0)"}
BEFORE_DOWN = original_of(observed(num_vfs=7, up=False))
UP = observed(num_vfs=7, held={0}, up=True)


def with_free_vf_on_igbvf():
    seen = observed(num_vfs=7, held={0})
    return replace(seen, vfs=(*seen.vfs[:6], replace(seen.vfs[6], driver="igbvf")))


def own_nics(tmp_path, kept):
    """Return NIC data in which the 82576 keeps the links of VFs during these changes."""
    (model,) = (one for one in read_models() if one.model == "82576")
    path = tmp_path / "nics.yaml"
    path.write_bytes(msgspec.json.encode([msgspec.to_builtins(model) | {"keepsVfLinks": kept}]))
    return path


@pytest.mark.parametrize(
    ("desired", "seen", "holders", "hard", "soft"),
    [
        (pf_spec(mtu=9000), observed(num_vfs=7, held={0}), DB, (), ("pod tenants/db loses its link for seconds",)),
        (pf_spec(queues=4), observed(num_vfs=7, held={0}, queues=2), DB, (), ("pod tenants/db loses its link for seconds",)),
        (pf_spec(mtu=9000), observed(num_vfs=7, held={0}), {}, (),
         ("an unknown process with 0000:0b:10.0 loses its link for seconds",)),
        (pf_spec(mtu=9000), observed(num_vfs=7, held={0}), HOST_USED_VF, (),
         ("the host (place in bond0) loses its link for seconds",)),
        (pf_spec(mtu=9000), observed(num_vfs=7, held={0, 1}), DB | {"0000:0b:10.2": "pod tenants/db"}, (),
         ("pod tenants/db loses its link for seconds",)),
        (pf_spec(num_vfs=3, mtu=9000), observed(num_vfs=7, held={0}), DB, ("pod tenants/db holds 0000:0b:10.0",), ()),
        (pf_spec(mtu=9000), with_free_vf_on_igbvf(), DB, (), ("pod tenants/db loses its link for seconds",)),
        (pf_spec(), observed(num_vfs=7, held={0}, up=False), DB, (), ()),
    ],
    ids=["MTU", "queues", "an unknown holder", "the host", "one pod with two VFs", "it loses the VF anyway",
         "a free VF also gets a driver", "the link only comes up"],
)  # fmt: skip
def test_holders_that_keep_their_vf_are_soft_blockers(desired, seen, holders, hard, soft):
    plan = planned(desired, seen, holders=holders).plan
    assert (plan.hard, plan.soft, plan.disruptive) == (hard, soft, bool(hard or soft))


def test_a_link_that_goes_down_for_good_is_no_soft_blocker():
    plan = planned(pf_spec(release="Reset"), UP, holders=DB, original=BEFORE_DOWN).plan
    assert [f"{one.kind} {one.value}" for one in plan.actions][-1] == "SetLink down"
    assert (plan.hard, plan.soft) == (("pod tenants/db holds 0000:0b:10.0",), ())


@pytest.mark.parametrize(
    ("kept", "asked", "soft"),
    [(["mtu"], {"mtu": 9000}, 0), (["queues"], {"mtu": 9000}, 1), (["mtu", "queues"], {"mtu": 9000, "queues": 4}, 0),
     (["mtu"], {"mtu": 9000, "queues": 4}, 1)],
    ids=["the MTU", "only queues", "both", "one of two"],
)  # fmt: skip
def test_a_driver_may_keep_the_links_of_vfs(tmp_path, kept, asked, soft):
    nic_files.add(own_nics(tmp_path, kept))
    try:
        plan = planned(pf_spec(**asked), observed(num_vfs=7, held={0}, queues=2), holders=DB).plan
    finally:
        nic_files.reset()
    assert (plan.soft_blockers, plan.disruptive) == (soft, bool(soft))


def test_a_line_for_the_rest_changes_with_each_holder():
    seen = observed(num_vfs=40, total_vfs=40, held=set(range(30)), vendor="15b3", device="1017")
    pods = {vf.pci_address: f"pod tenants/vm-{vf.index}" for vf in seen.vfs}
    plan, other = (
        planned(pf_spec(num_vfs=40, mtu=9000), seen, holders=pods | late).plan
        for late in ({}, {seen.vfs[29].pci_address: "pod tenants/other"})
    )
    assert len(plan.soft) == 21
    assert (plan.soft[:20] == other.soft[:20], plan.soft[20] == other.soft[20]) == (True, False)
    assert plan.soft[20].startswith("and 10 more (list ")


def test_a_holder_is_named_as_far_as_known():
    plan = planned(pf_spec(num_vfs=3), observed(num_vfs=2, held={0, 1}), holders={"0000:0b:10.0": "pod tenants/db"}).plan
    assert plan.blocked_by == ("pod tenants/db holds 0000:0b:10.0", "an unknown process holds 0000:0b:10.2")


def test_a_status_has_room_for_the_holders_of_256_vfs():
    seen = observed(num_vfs=256, total_vfs=256, held=set(range(256)))
    plan = planned(pf_spec(num_vfs=3), seen).plan
    assert (len(plan.blocked_by), plan.blocked_by[-1]) == (21, "and 236 more")


@pytest.mark.parametrize(
    ("seen", "host", "reason"),
    [
        (observed(host_use=("address 192.0.2.1/24",)), IOMMU, PfReason.HOST_USED),
        (observed(total_vfs=5), IOMMU, PfReason.TOO_MANY_VFS),
        (replace(observed(), driver=""), IOMMU, PfReason.NO_DRIVER),
        (observed(), HostFacts(iommu=False), PfReason.IOMMU_OFF),
        (observed(group="1", iommu_groups=(BELOW_A_PORT,)), IOMMU, PfReason.IOMMU_GROUP_SHARED),
        (observed(foreign_owner="sriov-network-operator"), IOMMU, PfReason.FOREIGN_OWNER),
        (observed(total_vfs=0), IOMMU, PfReason.FIRMWARE_SRIOV_OFF),
        (observed(unassigned_vf_space=True), IOMMU, PfReason.NO_MMIO_SPACE),
        (observed(), HostFacts(iommu=True), PfReason.MODULE_MISSING),
    ],
    ids=[
        "host-used", "too many VFs", "no driver", "no IOMMU", "shared group", "another owner", "SR-IOV off", "no room",
        "no vfio",
    ],
)  # fmt: skip
def test_an_impossible_plan_reports_its_problem(seen, host, reason):
    assert planned(pf_spec(), seen, host=host).problem.reason is reason


@pytest.mark.parametrize(
    ("seen", "taken", "words"),
    [
        (observed(total_vfs=5), 0, "supports 5 VFs (sriov_totalvfs), but numVfs is 7: lower numVfs, or set it to max"),
        (observed(total_vfs=8, device="ffff"), 0, ""),
        (observed(device="1572", driver="i40e", total_vfs=64), 121, ""),
        (
            replace(observed(total_vfs=64), device="1572", driver="i40e"), 122,
            "supports 6 VFs (maxVfs of X710 in the NIC data is 128 for all ports together), but numVfs is 7: lower numVfs",
        ),
        (replace(observed(num_vfs=7, total_vfs=64, autoprobe=False), device="1572", driver="i40e"), 128, ""),
    ],
    ids=["the kernel's number", "an unknown model", "room beside other ports", "too little room", "VFs that are there"],
)  # fmt: skip
def test_the_least_number_counts_and_its_source_is_named(seen, taken, words):
    found = planned(pf_spec(), seen, driver=DriverFacts(other_ports_vfs=taken)).problem
    assert (found.reason, words in found.message) == (PfReason.TOO_MANY_VFS, True) if words else found is None, found


@pytest.mark.parametrize("driver", ["igb", "", "vfio-pci"])
def test_the_nic_data_count_whatever_driver_is_bound(driver):
    found = planned(pf_spec(num_vfs=8), replace(observed(total_vfs=8), driver=driver)).problem
    assert found.reason is PfReason.TOO_MANY_VFS
    assert "supports 7 VFs (maxVfs of 82576 in the NIC data), but numVfs is 8" in found.message
    assert found.message.endswith("or correct the NIC data")


def test_a_release_restores_a_number_above_the_nic_data():
    before = original_of(replace(observed(total_vfs=8), num_vfs=8))
    released = planned(pf_spec(release="Reset"), observed(total_vfs=8), original=before)
    assert (released.problem, "create 8 VFs" in released.plan.text) == (None, True)


@pytest.mark.parametrize(
    ("seen", "refused"),
    [
        (observed(), False),
        (replace(observed(), device="1528", driver="ixgbe"), False),
        (replace(observed(), vendor="15b3", device="1003", driver="mlx4_core"), False),
        (replace(observed(), device="1572", driver="i40e"), True),
        (replace(observed(), device="ffff", driver="unheard_of"), True),
        (replace(observed(), device="ffff", driver="ixgbe"), False),
    ],
    ids=["igb", "ixgbe", "mlx4", "i40e", "an unknown driver", "an unknown model of ixgbe"],
)
def test_module_options_need_a_parameter_of_the_driver(seen, refused):
    found = planned(pf_spec(persistence="ModuleOptions"), seen).problem
    assert (found is not None and found.reason is PfReason.MODULE_OPTIONS_UNSUPPORTED) is refused
    assert not refused or "set persistence: Agent" in found.message
    assert planned(pf_spec(persistence="ModuleOptions", release="Reset"), seen).problem is None


@pytest.mark.parametrize(
    ("desired", "seen", "reason", "remedy"),
    [
        (ADOPTED, observed(num_vfs=2), PfReason.TOO_FEW_VFS, "management: Managed"),
        (replace_groups("5-8"), observed(), PfReason.TOO_MANY_VFS, "vfRange"),
        (pf_spec(mtu=9000), LINK_ELSEWHERE, PfReason.LINK_ELSEWHERE, "move it back"),
        (pf_spec(), LINK_ELSEWHERE, PfReason.LINK_ELSEWHERE, "move it back"),
        (pf_spec(function="Physical"), LINK_ELSEWHERE, PfReason.LINK_ELSEWHERE, "from the pool's nicSelector"),
        (pf_spec(queues=8), observed(num_vfs=7, queues=2, max_queues=2), PfReason.TOO_MANY_QUEUES, "lower it"),
    ],
    ids=[
        "too few to adopt", "a range beyond the VFs", "a link in another namespace", "a link there of which nothing is asked",
        "a whole NIC whose link is there", "more queues than are left",
    ],
)  # fmt: skip
def test_an_impossible_spec_is_reported_with_its_remedy(desired, seen, reason, remedy):
    problem = planned(desired, seen).problem
    assert (problem.reason, remedy in problem.message) == (reason, True)


def test_a_moved_link_blocks_release_only_if_it_was_changed():
    released, before = pf_spec(release="Reset"), original_of(observed(mtu=None, queues=None))
    assert planned(released, LINK_ELSEWHERE, original=before).plan is not None
    changed = planned(released, LINK_ELSEWHERE, original=original_of(observed(mtu=1500))).problem
    assert (changed.reason, "can restore it" in changed.message) == (PfReason.LINK_ELSEWHERE, True)


def test_a_pf_that_the_host_uses_is_changed_only_if_allowed():
    used = observed(host_use=("default route",))
    assert planned(pf_spec(), used).problem.reason is PfReason.HOST_USED
    plan = planned(pf_spec(allow_host_used=True), used).plan
    assert (plan.disruptive, plan.blocked_by) == (True, ())


def test_a_plan_that_removes_free_vfs_is_fenced():
    assert planned(pf_spec(num_vfs=3), observed(num_vfs=7)).plan.fenced
    assert not planned(pf_spec(), observed()).plan.fenced
    assert not planned(pf_spec(mtu=9000), observed(num_vfs=7)).plan.fenced


def test_a_released_pf_returns_to_its_original_values():
    before = original_of(observed(mtu=1500, up=False, queues=8))
    now = observed(num_vfs=7, mtu=9000, up=True, queues=2)
    given_up = pf_spec(release="Reset")
    assert [f"{a.kind} {a.value}" for a in planned(given_up, now, original=before).plan.actions] == [
        "SetNumVfs 0", "SetAutoprobe 1", "SetMtu 1500", "SetQueues 8", "SetLink down",
    ]  # fmt: skip
    assert planned(given_up, now, original=None).plan is None
    assert planned(pf_spec(release="Retain"), now, original=before).plan is None
    assert planned(pf_spec(release="Reset", management="Adopt"), now, original=before).plan is None


def test_a_released_pf_returns_to_its_original_drivers():
    before = original_of(seen_with(["igbvf", "igbvf", "", "vfio-pci"], autoprobe=True))
    assert [f"{a.kind} {a.value}" for a in planned(pf_spec(release="Reset"), observed(), original=before).plan.actions] == [
        "SetAutoprobe 0", "SetNumVfs 4", "BindVfs 3 vfio-pci", "SetAutoprobe 1", "BindVfs 0-1 kernel",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "pfs",
    [
        [0x525400000B00 + port for port in range(16)],
        [0x525400000B00 + 16 * port for port in range(8)],
        [0x525400000B00 + 64 * port for port in range(8)],
        [0x5254000000FF, 0x525400000100, 0x525400FFFFFF, 0x525401000000],
        # The last three bytes are the same.
        [0x525400000B01, 0x3CFDFE000B01, 0xB8CEF6000B01, 0x525401000B01],
    ],
    ids=["consecutive", "by 16", "by 64", "carried", "other vendors"],
)
def test_vfs_of_all_pfs_of_a_node_have_their_own_addresses(pfs):
    macs = [":".join(f"{pf:012x}"[at : at + 2] for at in range(0, 12, 2)) for pf in pfs]
    made = [admin_mac("02:aa:bb", mac, index) for mac in macs for index in range(256)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch("02:aa:bb(:[0-9a-f]{2}){3}", one) for one in made)


def test_a_pf_without_a_known_address_has_distinct_vfs():
    assert len({admin_mac("02:aa:bb", "", index) for index in range(64)}) == 64


def test_an_iommu_that_cannot_be_read_excludes_nothing():
    assert planned(pf_spec(), observed(), host=HostFacts(iommu=None, modules=("vfio_pci",))).plan is not None


def test_the_kernel_driver_needs_no_iommu():
    assert planned(pf_spec(driver="kernel"), observed(), host=HostFacts(iommu=False)).plan is not None


def digest(desired=None, seen=None, **changes):
    seen = seen or observed()
    desired = desired or pf_spec()
    plan = planned(desired, seen).plan
    return digest_of(desired, seen, plan.actions, **({"boot_id": "b1", "attempt": 0} | changes))


@pytest.mark.parametrize(
    "other",
    [
        digest(attempt=1), digest(boot_id="b2"), digest(pf_spec(num_vfs=6)), digest(pf_spec(mtu=9000)),
        digest(seen=observed(num_vfs=2)), digest(seen=observed(autoprobe=False)),
    ],
    ids=["another attempt", "another boot", "another number", "another MTU", "other VFs", "another autoprobe"],
)  # fmt: skip
def test_a_digest_names_one_plan_on_one_state_once(other):
    assert other != digest()


RELIED_ON = {
    "driver": "ixgbe",
    "total_vfs": 8,
    "num_vfs": 1,
    "autoprobe": False,
    "mtu": 9000,
    "queues": 3,
    "up": True,
    "module_options": "max_vfs=1",
    "host_use": ("a route",),
    "vfs": (ObservedVf(index=0, pci_address="0000:0b:10.0"),),
}
"""Another value for each observed field that a plan relies on."""
ASKED = {
    "function": "Physical",
    "management": "Adopt",
    "persistence": "ModuleOptions",
    "num_vfs": 1,
    "mtu": 9000,
    "queues": 3,
    "allow_host_used": True,
    "release": "Reset",
    "groups": (),
}


@pytest.mark.parametrize("field", RELIED_ON)
def test_a_digest_covers_the_values_that_its_plan_relies_on(field):
    seen, named = observed(), {"boot_id": "b1", "attempt": 0}
    other = replace(seen, **{field: RELIED_ON[field]})
    assert digest_of(pf_spec(), other, (), **named) != digest_of(pf_spec(), seen, (), **named)


@pytest.mark.parametrize("field", ASKED)
def test_a_digest_depends_on_the_spec(field):
    named = {"boot_id": "b1", "attempt": 0}
    assert digest_of(pf_spec(**{field: ASKED[field]}), observed(), (), **named) != digest_of(pf_spec(), observed(), (), **named)


def test_a_digest_ignores_messages_holders_pool_and_grant():
    assert digest(pf_spec(pool="other", grant="abc")) == digest()
    assert digest(pf_spec(num_vfs=3), observed(num_vfs=7, held={1})) == digest(pf_spec(num_vfs=3), observed(num_vfs=7))


def test_vfs_are_published_in_ranges_by_driver():
    drivers = ["vfio-pci", "vfio-pci", "", "igbvf", "igbvf"]
    seen = observed(num_vfs=5)
    vfs = tuple(
        ObservedVf(index=vf.index, pci_address=vf.pci_address, driver=driver)
        for vf, driver in zip(seen.vfs, drivers, strict=True)
    )
    status = render_pf_status(replace(seen, vfs=vfs), holders={}, owned=True, attempt=0, plan=None, problem=None, apply=None)
    assert [(part.range, part.driver) for part in status.vfs] == [("0-1", "vfio-pci"), ("2", ""), ("3-4", "igbvf")]


def test_a_published_status_shows_a_moved_link():
    problem = planned(pf_spec(), LINK_ELSEWHERE).problem
    status = render_pf_status(LINK_ELSEWHERE, holders={}, owned=True, attempt=0, plan=None, problem=problem, apply=None)
    assert planned(pf_spec(), observed_of(status)).problem == problem


def test_a_published_status_reads_back_to_the_same_plan():
    seen = observed(num_vfs=7, held={2})
    status = render_pf_status(seen, holders={}, owned=True, attempt=3, plan=None, problem=None, apply=None)
    again = observed_of(status)
    assert steps(pf_spec(num_vfs=3), again) == steps(pf_spec(num_vfs=3), seen)
    assert planned(pf_spec(num_vfs=3), again).plan.disruptive


def test_nic_data_contains_each_id_once():
    ids = [(nic.vendor, device) for nic in read_models() for device in nic.pf]
    assert len(ids) == len(set(ids))
    assert model_of("8086", "10c9").model == "82576"
    assert model_of("8086", "ffff") is None
