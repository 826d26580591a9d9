"""Selectors of pools and values that a record does not have."""

import msgspec
import pytest

from tests.builders.node import pool
from vmnic.cli.objects import Objects
from vmnic.cli.offline import decide_all
from vmnic.cli.plan import make_plan
from vmnic.cli.recorded import plan_recorded
from vmnic.records.record import to_record

PF, OTHER = "0000:0b:00.0", "0000:0c:00.0"


def record(device=(), link=(), **metadata):
    """Return a host with two ports of an 82576, of which the first one differs as asked. None removes a value."""

    def without_none(values):
        return {key: one for key, one in values.items() if one is not None}

    sriov = {"totalVfs": 7, "numVfs": 0, "driversAutoprobe": True, "offset": 128, "stride": 2}
    devices = [
        {"address": address, "vendor": "8086", "device": "10c9", "class": "020000", "driver": "igb", "numaNode": 0}
        | {"iommuGroup": number, "sriov": sriov}
        for number, address in enumerate((PF, OTHER), 5)
    ]
    links = [
        {"index": number, "name": f"ens{number}", "type": "ether", "parent": address, "mtu": 1500, "up": True, "carrier": True}
        | {"speedMbps": 1000}
        for number, address in enumerate((PF, OTHER), 11)
    ]
    devices[0], links[0] = without_none(devices[0] | dict(device)), without_none(links[0] | dict(link))
    groups = [
        {"id": number, "devices": [address], "reservedRegions": ["fee00000-feefffff msi"]}
        for number, address in enumerate((PF, OTHER), 5)
    ]
    host = {"kernel": "6.12.0", "iommu": True, "modules": {"loaded": ["vfio_pci"], "builtIn": []}}
    return to_record(
        {"apiVersion": "cli.vmnic.dev/v1alpha1", "kind": "HostRecord", "metadata": {"name": "h1", "labels": {}} | metadata}
        | {"host": host, "pciDevices": devices, "links": links, "iommuGroups": groups}
    )


def plan(given, **spec):
    """Return the functions that the pool takes, and the problems."""
    objects = Objects()
    objects.pools["fast"] = pool("fast", **spec)
    objects.host_records["h1"] = given
    recorded = plan_recorded(objects)
    made = make_plan(recorded.objects, decide_all(recorded.objects, offline=True), [], recorded)
    assert not recorded.set_aside
    return [row["pf"] for row in made["pools"][0]["nodes"]], made["problems"]


UNKNOWN = {
    "driver": ({"driver": None}, {}, {"drivers": ["igb"]}, "the driver of"),
    "NUMA node": ({"numaNode": None}, {}, {"numaNodes": [0]}, "the NUMA node of"),
    "link speed": ({}, {"speedMbps": None}, {"minLinkSpeedMbps": 1000}, "the link speed of"),
}


@pytest.mark.parametrize(("device", "link", "selector", "words"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_value_matches_and_is_told_once(device, link, selector, words):
    taken, problems = plan(record(device, link), nicSelector=selector)
    assert taken == [PF, OTHER]
    told = [one["message"] for one in problems if one["reason"] == "Unknown"]
    assert (len(told), told[0].startswith(f"{words} h1 {PF} is unknown")) == (1, True)


KNOWN = {
    "driver": ({"driver": ""}, {"parent": None}, {"drivers": ["igb"]}),
    "NUMA node": ({"numaNode": 1}, {}, {"numaNodes": [0]}),
    "no NUMA nodes": ({"numaNode": -1}, {}, {"numaNodes": [0]}),
    "link speed": ({}, {"speedMbps": 100}, {"minLinkSpeedMbps": 1000}),
    "another unknown value": ({"numaNode": None, "device": "10fb"}, {}, {"numaNodes": [0], "devices": ["10c9"]}),
}


@pytest.mark.parametrize(("device", "link", "selector"), KNOWN.values(), ids=KNOWN)
def test_a_known_value_excludes_as_on_a_node(device, link, selector):
    taken, problems = plan(record(device, link), nicSelector=selector)
    assert taken == [OTHER]
    assert not [one for one in problems if one["reason"] == "Unknown"]


def test_an_unknown_value_that_no_pool_asks_for_is_not_told():
    _, problems = plan(record({"numaNode": None}, {"speedMbps": None}), nicSelector={"drivers": ["igb"]})
    assert not [one for one in problems if one["reason"] == "Unknown"]


def test_an_unreadable_function_matches_by_its_known_values():
    given = record({"sriov": {"numVfs": 0}})
    assert plan(given, nicSelector={"numaNodes": [0], "minLinkSpeedMbps": 1000})[0] == [PF, OTHER]
    assert plan(given, nicSelector={"numaNodes": [1]})[0] == []


@pytest.mark.parametrize(("labels", "told"), [(None, True), ({"rack": "a"}, True), ({}, False)])
def test_unknown_labels_do_not_hide_the_type_of_a_link(labels, told):
    given = record(link={"type": "infiniband"})
    given = msgspec.structs.replace(given, metadata=msgspec.structs.replace(given.metadata, labels=labels))
    _, problems = plan(given, nodeSelector={"rack": "a"}, nicSelector={"pfNames": ["ens11"]})
    assert any(one["reason"] == "LinkTypeDiffers" for one in problems) is told
