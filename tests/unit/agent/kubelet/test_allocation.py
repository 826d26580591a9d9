"""What a container receives, and which devices are preferred."""

import json

import pytest

from tests.builders.devices import FAST, offer, whole_offer
from vmnic.agent.kubelet.allocation import device_nodes, environment, prefer, render_device_info
from vmnic.agent.kubelet.devices import Device, list_resources


def devices(one, name=FAST):
    return list_resources([one], {}, {})[name].devices


def test_environment_names_vfs_as_kubevirt_reads_them():
    found = devices(offer())[:2]
    env = environment("vmnic.dev/tenant-fast", [one.address for one in found], found)
    assert env["PCIDEVICE_VMNIC_DEV_TENANT-FAST"] == "0000:0b:10.0,0000:0b:10.1"
    assert json.loads(env["PCIDEVICE_VMNIC_DEV_TENANT-FAST_INFO"])["0000:0b:10.1"] == {
        "generic": {"deviceID": "0000:0b:10.1"},
        "vfio": {"mount": "/dev/vfio/vfio", "dev-mount": "/dev/vfio/111"},
    }
    assert len(env) == 2


def test_a_whole_nic_is_also_named_as_a_host_device():
    found = devices(whole_offer(), "vmnic.dev/whole")
    assert environment("vmnic.dev/whole", [found[0].address], found)["PCI_RESOURCE_VMNIC_DEV_WHOLE"] == "0000:0b:00.0"


def test_a_container_gets_all_nics_of_a_group():
    second, third = "0000:0b:00.1", "0000:0c:00.0"
    offers = [whole_offer(vfio_device="vfio1"), whole_offer(second, vfio_device="vfio2"), whole_offer(third, group="13")]
    found = list_resources(offers, {}, {})["vmnic.dev/whole"].devices
    env = environment("vmnic.dev/whole", [one.address for one in found], found)
    assert env["PCI_RESOURCE_VMNIC_DEV_WHOLE"] == f"0000:0b:00.0,{third},{second}"
    assert json.loads(env["PCIDEVICE_VMNIC_DEV_WHOLE_INFO"])[second]["vfio"]["dev-mount"] == "/dev/vfio/12"
    assert device_nodes(found[:1]) == [
        "/dev/vfio/vfio", "/dev/vfio/12", "/dev/vfio/devices/vfio1", "/dev/vfio/devices/vfio2",
    ]  # fmt: skip


def test_an_unknown_device_is_still_named():
    assert environment(FAST, ["0000:0b:10.6"], [])["PCIDEVICE_VMNIC_DEV_FAST"] == "0000:0b:10.6"


def test_vfio_device_nodes_are_listed_once_each():
    assert device_nodes(devices(offer())[:2]) == [
        "/dev/vfio/vfio", "/dev/vfio/110", "/dev/vfio/devices/vfio0", "/dev/vfio/111", "/dev/vfio/devices/vfio1",
    ]  # fmt: skip


def test_a_network_link_needs_no_device_nodes():
    assert device_nodes(devices(offer(driver="kernel"))) == []


def test_the_device_info_names_the_pf_of_a_vf():
    info = json.loads(render_device_info(devices(offer())[0]))
    assert info["type"] == "pci"
    assert info["pci"] == {"pci-address": "0000:0b:10.0", "pf-pci-address": "0000:0b:00.0"}


def fleet(text):
    """Build devices from PFs by letter with their NUMA nodes, such as `a0 a0 b1`. Addresses count up."""
    return [
        Device(address=f"{at:02}", pf=word[0], index=at, numa_node=int(word[1:]) if word[1:] else None)
        for at, word in enumerate(text.split())
    ]


@pytest.mark.parametrize(
    ("free", "must", "size", "expected"),
    [
        pytest.param("a0 a0 b0 b0", "", 2, "00 02", id="spread over functions"),
        pytest.param("a0 b0 b0", "", 1, "01", id="from the function with the most free ones"),
        pytest.param("a0 b1 b1", "", 2, "01 02", id="on one NUMA node before spreading"),
        pytest.param("a0 a0 a0 b1 b1", "", 2, "03 04", id="on the NUMA node that fits best"),
        pytest.param("a0 b1", "", 2, "00 01", id="on two NUMA nodes where one does not suffice"),
        pytest.param("a0 a0 b1 b1", "02", 2, "02 03", id="near what must be chosen"),
        pytest.param("a a b", "", 2, "00 02", id="without known NUMA nodes"),
        pytest.param("a0", "", 3, "00", id="what there is"),
    ],
)
def test_preferred_devices(free, must, size, expected):
    assert prefer(fleet(free), must.split(), size) == expected.split()
