"""Simulated hosts that start from records."""

import asyncio
import pathlib

import msgspec
import pytest

from vmnic.host.client import LocalHost
from vmnic.records.document import read_record_file
from vmnic.records.record import to_record
from vmnic.records.recorder import record_host
from vmnic.simhost.from_record import spec_of
from vmnic.simhost.host import SimHost

HOSTS = pathlib.Path(__file__).parents[2] / "hosts"
HEAD = {"apiVersion": "cli.vmnic.dev/v1alpha1", "kind": "HostRecord", "metadata": {"name": "n1"}}
PF = {"address": "0000:0b:00.0", "vendor": "1af4", "device": "1041", "class": "020000", "driver": "unheard", "iommuGroup": 7}
SRIOV = {"totalVfs": 4, "numVfs": 2, "driversAutoprobe": True}
VFS = [
    {"address": f"0000:0b:00.{number}", "vendor": "1af4", "device": "1042", "class": "020000", "driver": "vfio-pci"}
    | {"iommuGroup": 20 + number, "physicalFunction": PF["address"]}
    for number in (2, 4)
]
BRIDGE = {
    "address": "0000:00:01.0",
    "vendor": "8086",
    "device": "a340",
    "class": "060400",
    "driver": "pcieport",
    "iommuGroup": 7,
}
LINK = {"index": 2, "name": "ens1", "type": "ether", "parent": PF["address"], "mtu": 1500, "up": True, "carrier": True}


def record_of(*devices, links=(LINK,), **rest):
    loaded = ["unheard", "unheard_vf", "vfio_pci"]
    host = {"host": {"iommu": True, "modules": {"loaded": loaded, "builtIn": []}}}
    return to_record(HEAD | host | {"pciDevices": list(devices), "links": list(links)} | rest)


def simulated(record):
    return asyncio.run(record_host(LocalHost(SimHost(spec_of(record))), "n1", {}))


def functions(record):
    """Return what the model can show of the functions."""
    return {
        one.address: (one.vendor, one.device, one.driver, one.iommu_group, one.physical_function, one.virtual_functions)
        + ((one.sriov.total_vfs, one.sriov.num_vfs) if one.sriov is not None else ())
        for one in record.pci_devices
    }


def links(record):
    return {one.name: (one.type, one.phys_port_name, one.parent) for one in record.links}


def with_vfs(**pf):
    return PF | {"sriov": SRIOV, "virtualFunctions": [one["address"] for one in VFS]} | pf


def represented(name, port, index):
    return LINK | {"index": index, "name": name, "physPortName": port}


RECORDS = {
    "an unknown model": record_of(with_vfs(), *VFS),
    "an unknown model without VFs": record_of(PF | {"sriov": {"totalVfs": 4, "numVfs": 0}, "virtualFunctions": []}),
    "no SR-IOV": record_of(PF),
    "SR-IOV off in firmware": record_of(PF | {"vendor": "8086", "device": "1592", "driver": "ice"}),
    "another number of VFs": record_of(
        PF
        | {"vendor": "8086", "device": "1592", "driver": "ice", "sriov": {"totalVfs": 128, "numVfs": 0}}
        | {"virtualFunctions": []}
    ),
    "InfiniBand": record_of(PF | {"class": "020700"}, links=[LINK | {"type": "infiniband"}]),
    "several links": record_of(PF, links=[LINK, LINK | {"index": 3, "name": "ens1d1", "devPort": 1}]),
    "representors": record_of(
        with_vfs(eswitchMode="switchdev"),
        *VFS,
        links=[LINK | {"physPortName": "p0"}, represented("eth7", "pf0vf1", 8), represented("eth6", "pf0vf0", 7)],
    ),
    "a bridge in the group": record_of(PF, BRIDGE),
    "groups of VFs": record_of(with_vfs(), *(one | {"iommuGroup": 7} for one in VFS), BRIDGE),
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_a_host_from_a_record_has_its_functions_and_links(record):
    found = simulated(record)
    assert functions(found) == functions(record)
    assert links(found) == links(record)
    assert {one.address: one.eswitch_mode for one in found.pci_devices} == {
        one.address: one.eswitch_mode for one in record.pci_devices
    }


def test_a_host_from_a_record_has_its_reserved_regions():
    regions = ["7b000000-7fffffff direct", "fee00000-feefffff msi"]
    record = record_of(
        PF, BRIDGE, iommuGroups=[{"id": 7, "devices": [PF["address"], BRIDGE["address"]], "reservedRegions": regions}]
    )
    (group,) = simulated(record).iommu_groups
    assert (group.id, set(group.devices), list(group.reserved_regions)) == (7, {PF["address"], BRIDGE["address"]}, regions)


def test_attributes_that_a_driver_does_not_report_stay_absent():
    attributes = [{"index": index, "mac": f"02:00:00:00:00:0{index}", "vlan": 0} for index in (0, 1)]
    record = record_of(with_vfs(), *VFS, links=[LINK | {"vfs": attributes}])
    assert {(vf.trust, vf.spoof_check) for link in simulated(record).links for vf in link.vfs} == {(None, None)}


@pytest.mark.parametrize("name", ["infiniband-pf", "bnxt", "sriov-off-in-firmware", "bridge-in-group", "quad-port"])
def test_a_recorded_machine_can_be_simulated(name):
    record = read_record_file(HOSTS / f"{name}.yaml")
    record = msgspec.structs.replace(record, links=tuple(link for link in record.links if link.parent is not None))
    found = simulated(record)
    assert {one.address for one in found.pci_devices} == {one.address for one in record.pci_devices}
    # The model names the links of VFs by itself.
    vfs = {one.address for one in record.pci_devices if one.physical_function is not None}
    shown, expected = ({name: one for name, one in links(of).items() if one[2] not in vfs} for of in (found, record))
    assert shown == expected
