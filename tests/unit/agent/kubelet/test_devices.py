"""What is listed, from what is offered and what was listed before."""

from dataclasses import replace

import pytest

from tests.builders.devices import FAST, observed, offer, vf_id, whole_offer
from tests.builders.host import OTHER_PF, PF
from vmnic.agent.kubelet.devices import list_resources
from vmnic.nodes.observed import GroupMember, IommuGroup


def faults(resources, name=FAST):
    return {device.address: device.fault for device in resources[name].devices}


def listed(*offers, before=None, held=None):
    return list_resources(offers, before or {}, {} if held is None else held)


def test_vfs_of_several_pfs_form_one_resource():
    resources = listed(offer(), offer(OTHER_PF, count=1))
    assert set(faults(resources)) == {vf_id(0), vf_id(1), vf_id(2), vf_id(0, "0c")}
    assert not any(faults(resources).values())


def test_a_group_offers_only_its_own_vfs():
    assert set(faults(listed(offer(range="1-2")))) == {vf_id(1), vf_id(2)}


def test_nothing_is_listed_for_another_device_plugin():
    assert listed(offer(device_plugin="None")) == {}


@pytest.mark.parametrize(("exclude", "node"), [(False, 0), (True, None)])
def test_the_numa_node_is_reported_unless_excluded(exclude, node):
    (device, *_) = listed(offer(exclude_topology=exclude))[FAST].devices
    assert device.numa_node == node


@pytest.mark.parametrize(("asked", "is_on"), [("vfio-pci", "igbvf"), ("vfio-pci", ""), ("kernel", "vfio-pci"), ("kernel", "")])
def test_a_vf_on_another_driver_is_unhealthy(asked, is_on):
    resources = listed(offer(driver=asked, pf=observed(driver=is_on)))
    assert all(
        f"not on {'vfio-pci' if asked == 'vfio-pci' else 'its kernel driver'}" in text for text in faults(resources).values()
    )


def test_a_whole_nic_is_one_device():
    (device,) = listed(whole_offer())["vmnic.dev/whole"].devices
    assert (device.address, device.index, device.fault) == (PF, None, "")
    assert "is on igb" in faults(listed(whole_offer(driver="igb")), "vmnic.dev/whole")[PF]


SECOND = "0000:0b:00.1"


def whole(*offers, before=None, held=None):
    found = list_resources(offers, before or {}, held or {})
    return [(device.address, [one.address for one in device.others]) for name in found for device in found[name].devices]


@pytest.mark.parametrize(
    ("second", "devices"),
    [
        (whole_offer(SECOND), [(PF, [SECOND])]),
        (whole_offer(SECOND, group="13"), [(PF, []), (SECOND, [])]),
        (whole_offer(SECOND, pool="slow"), [(SECOND, []), (PF, [])]),
    ],
    ids=["one group and pool", "another group", "another pool"],
)
def test_whole_nics_of_one_group_and_pool_are_one_device(second, devices):
    assert whole(second, whole_offer()) == devices


@pytest.mark.parametrize(
    ("second", "fault"),
    [
        (whole_offer(SECOND), ""),
        (whole_offer(SECOND, driver="igb"), f"{SECOND} is on igb, not on vfio-pci"),
        (whole_offer(SECOND, held=True), f"{SECOND} is held by a process outside any pod"),
    ],
    ids=["ready", "on its driver", "open"],
)
def test_a_device_is_healthy_if_all_of_its_group_are(second, fault):
    (found,) = list_resources([whole_offer(), second], {}, {})["vmnic.dev/whole"].devices
    assert found.fault == fault


def test_a_held_group_keeps_its_name_if_its_first_nic_leaves():
    before = list_resources([whole_offer(), whole_offer(SECOND)], {}, {})
    assert whole(whole_offer(SECOND), before=before, held={PF: "pod a/b", SECOND: "pod a/b"}) == [(PF, [SECOND])]


@pytest.mark.parametrize(
    ("members", "regions", "fault"),
    [
        ([GroupMember(address="0000:00:1f.3", driver="snd")], (), "0000:00:1f.3 on snd shares IOMMU group 12"),
        ([GroupMember(address="0000:00:1c.0", driver="pcieport")], (), ""),
        ([], ("0-fff",), "the firmware reserves memory for IOMMU group 12"),
    ],
    ids=["a sound card", "a port", "a direct region"],
)
def test_a_nic_in_a_group_that_no_vm_can_open_is_unhealthy(members, regions, fault):
    group = IommuGroup(number="12", members=tuple(members), direct_regions=regions)
    (found,) = list_resources([whole_offer(iommu_groups=(group,))], {}, {})["vmnic.dev/whole"].devices
    assert found.fault == fault


def test_removed_vfs_stay_listed_as_unhealthy():
    before = listed(offer())
    after = listed(offer(pf=observed(count=1)), before=before)
    assert faults(after) == {vf_id(0): "", vf_id(1): f"{vf_id(1)} is not there", vf_id(2): f"{vf_id(2)} is not there"}


def test_a_removed_pf_makes_its_devices_unhealthy():
    after = listed(offer(pf=None, fault="gone"), before=listed(offer()))
    assert faults(after) == dict.fromkeys((vf_id(0), vf_id(1), vf_id(2)), "gone")


def test_devices_of_a_changing_pf_are_unhealthy():
    assert set(faults(listed(offer(fault="changing"))).values()) == {"changing"}


def test_a_device_that_is_no_longer_asked_for_is_removed():
    assert set(faults(listed(offer(count=1), before=listed(offer())))) == {vf_id(0)}
    assert listed(before=listed(offer())) == {}


def test_a_device_that_a_pod_holds_stays_listed():
    after = listed(before=listed(offer()), held={vf_id(1): "pod tenants/db"})
    assert faults(after) == {vf_id(1): f"{vf_id(1)} is no longer offered as {FAST}"}


def test_everything_stays_listed_while_holders_are_unknown():
    assert len(list_resources([], listed(offer()), None)[FAST].devices) == 3


def test_a_held_vf_is_not_offered_again_under_another_name():
    other = offer(resource="vmnic.dev/other")
    after = listed(other, before=listed(offer()), held={vf_id(1): "pod tenants/db"})
    assert (set(faults(after)), set(faults(after, "vmnic.dev/other"))) == ({vf_id(1)}, {vf_id(0), vf_id(2)})


def test_an_open_vf_that_no_pod_holds_is_unhealthy():
    pf = observed()
    pf = replace(pf, vfs=tuple(replace(vf, held=True) for vf in pf.vfs))
    found = faults(listed(offer(pf=pf), held={vf_id(0): "pod tenants/db"}))
    assert [bool(found[vf_id(i)]) for i in range(3)] == [False, True, True]
