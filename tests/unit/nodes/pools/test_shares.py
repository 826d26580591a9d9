"""Counts of a node do not depend on how large a number its agent reports."""

import time

import msgspec
import pytest

from tests.builders.node import PF, pf_spec, pf_status
from vmnic.api.node_state import Held, NodeNicState, NodeSpec, NodeStatus, ObjectMeta, VfRange
from vmnic.nodes.addresses import vf_addresses, vf_indexes
from vmnic.nodes.pools.shares import count_vfs, pool_shares

SECOND = "0000:0b:00.1"


def node(spec, *pfs):
    return NodeNicState(metadata=ObjectMeta(name="n1"), spec=NodeSpec(synced=True, pfs=(spec,)), status=NodeStatus(pfs=pfs))


def test_only_existing_vfs_in_the_spec_are_ready():
    pf = pf_status(num_vfs=5, vfs=(VfRange(range="0-1"), VfRange(range="2-6", driver="vfio-pci")))
    (part,) = pool_shares(node(pf_spec(num_vfs=4), pf), "fast")
    assert (part.ready, len(part.addresses), count_vfs(node(pf_spec(num_vfs=4), pf), "fast").configured) == (2, 4, 5)


def test_a_held_vf_outside_the_pool_is_not_counted():
    pf = pf_status(num_vfs=2, held=(Held(vf="0000:0b:10.2"), Held(vf="0000:0b:1f.0")))
    assert count_vfs(node(pf_spec(), pf), "fast").in_use == 1


def test_a_nic_has_no_more_ready_vfs_than_its_data_allow():
    pf = pf_status(num_vfs=64, total_vfs=64, vfs=(VfRange(range="0-63", driver="vfio-pci"),))
    assert [part.ready for part in pool_shares(node(pf_spec(num_vfs=64), pf), "fast")] == [7]


def whole(address, *, driver="vfio-pci", **changes):
    return pf_status(address, driver=driver, **({"iommu_group": 34} | changes))


@pytest.mark.parametrize(
    ("pfs", "ready", "in_use", "addresses"),
    [
        ([whole(PF), whole(SECOND)], 1, 0, [PF]),
        ([whole(PF), whole(SECOND, driver="igb")], 0, 0, [PF]),
        ([whole(PF), whole(SECOND, held=(Held(vf=SECOND),))], 1, 1, [PF]),
        ([whole(PF), whole(SECOND, iommu_group=35)], 2, 0, [PF, SECOND]),
        ([whole(PF, iommu_group=None), whole(SECOND, iommu_group=None)], 2, 0, [PF, SECOND]),
    ],
    ids=["one group", "not all are ready", "one is held", "two groups", "no IOMMU"],
)
def test_whole_nics_of_a_group_count_as_one_device(pfs, ready, in_use, addresses):
    specs = tuple(pf_spec(pf.pci_address, function="Physical", num_vfs=0) for pf in pfs)
    state = msgspec.structs.replace(node(specs[0], *pfs), spec=NodeSpec(synced=True, pfs=specs))
    parts = list(pool_shares(state, "fast"))
    assert sum(part.ready for part in parts) == ready
    assert [address for part in parts for address in part.addresses] == addresses
    assert count_vfs(state, "fast").in_use == sum(len(part.held) for part in parts) == in_use


def test_only_the_address_of_a_vf_has_an_index():
    addresses = ["0000:0b:0f.6", "0000:0b:10.1", "0001:0b:10.0", "0000:0b:11.0"]
    assert vf_indexes("0000:0b:10.0", 2, addresses) == {"0000:0b:11.0": 4}


@pytest.mark.parametrize(
    ("first", "stride", "found"),
    [
        ("0000:0b:10.0", 2, ("0000:0b:10.0", "0000:0b:10.2")),
        ("0000:0b:10.0", 0, ("0000:0b:10.0",)),
        ("0000:ff:1f.7", 1, ("0000:ff:1f.7",)),
        ("", 2, ()),
        ("zz", 2, ()),
    ],
)
def test_vf_addresses_stay_within_the_bus_numbers(first, stride, found):
    assert vf_addresses(first, stride, range(2)) == found


@pytest.mark.parametrize(("vfs", "found"), [(2, 2), (5, 3)], ids=["of those that exist", "fewer than exist"])
def test_listed_addresses_win_over_the_stride(vfs, found):
    listed = ("a000:00:02.0", "a001:00:02.0", "a002:00:02.0")
    pf = pf_status(num_vfs=vfs, vf_addresses=listed, held=(Held(vf="a001:00:02.0"), Held(vf="0000:0b:10.0")))
    (part,) = pool_shares(node(pf_spec(), pf), "fast")
    assert (part.addresses, part.held) == (listed[:found], ("a001:00:02.0",))


def test_a_node_at_all_bounds_is_counted_within_50_ms():
    vfs = tuple(VfRange(range=str(index), driver="vfio-pci") for index in range(256))
    held = tuple(Held(vf=f"0000:{16 + index // 8:02x}:00.{index % 8}") for index in range(256))
    pf = pf_status(device="ffff", num_vfs=1024, total_vfs=1024, vfs=vfs, held=held)
    spec, state = pf_spec(num_vfs=256), node(pf_spec(num_vfs=256), pf)
    many = [msgspec.structs.replace(pf, pci_address=f"0000:{bus:02x}:00.0") for bus in range(64)]
    specs = tuple(msgspec.structs.replace(spec, pci_address=one.pci_address) for one in many)
    state = msgspec.structs.replace(state, spec=NodeSpec(pfs=specs), status=NodeStatus(pfs=tuple(many)))
    start = time.process_time()
    assert sum(part.ready for part in pool_shares(state, "fast")) == 64 * 256
    assert time.process_time() - start < 0.05, PF
