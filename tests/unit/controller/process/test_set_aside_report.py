"""The report of set-aside objects equals the registry, with as few writes as possible."""

import json

import pytest

from tests.builders.fleet import MemoryCluster
from vmnic.controller.process.set_aside_report import REPORT_KEY, REPORT_NAME, SetAsideReport
from vmnic.kube.set_aside import SetAside, SetAsideReason


@pytest.fixture
def cluster():
    return MemoryCluster()


def report_of(cluster):
    found = cluster.get("configmaps", REPORT_NAME, "vmnic-system")
    return found and json.loads(found["data"][REPORT_KEY])


async def test_empty_registry_creates_no_config_map(cluster):
    await SetAsideReport(SetAside(), cluster, "vmnic-system").write()
    assert cluster.changes == []


async def test_objects_are_added_and_removed(cluster):
    registry = SetAside()
    report = SetAsideReport(registry, cluster, "vmnic-system")
    registry.add("VirtualMachine", "tenants/web", SetAsideReason.TIME, "slow")
    await report.write()
    await report.write()
    entry = {"kind": "VirtualMachine", "namespace": "tenants", "name": "web", "reason": "time", "message": "slow"}
    assert (report_of(cluster), len(cluster.changes)) == ([entry], 1)
    registry.discard("VirtualMachine", "tenants/web")
    await report.write()
    assert report_of(cluster) == []


async def test_new_leader_corrects_an_old_report(cluster):
    registry = SetAside()
    registry.add("Node", "n1", SetAsideReason.EXCEPTION, "odd")
    await SetAsideReport(registry, cluster, "vmnic-system").write()
    await SetAsideReport(SetAside(), cluster, "vmnic-system").write()
    assert report_of(cluster) == []


async def test_many_objects_fit_into_the_config_map(cluster):
    registry = SetAside()
    for number in range(5000):
        registry.add("VirtualMachine", f"{'n' * 63}/{number:0253}", SetAsideReason.DECODE, "\u2028" * 300)
    await SetAsideReport(registry, cluster, "vmnic-system").write()
    text = cluster.get("configmaps", REPORT_NAME, "vmnic-system")["data"][REPORT_KEY]
    assert (len(json.loads(text)), len(text) < 2**19) == (100, True)
