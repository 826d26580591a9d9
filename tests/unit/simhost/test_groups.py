"""IOMMU groups of the simulated host."""

from tests.builders.host import PF, sim_host
from vmnic.host.ops import ReadLink, WriteFile

_PATH = f"/sys/bus/pci/devices/{PF}"


def _groups(host, count):
    host.perform(WriteFile(f"{_PATH}/sriov_numvfs", str(count)))
    links = [host.perform(ReadLink(f"{_PATH}/virtfn{index}")) for index in range(count)]
    return [host.perform(ReadLink(f"/sys/bus/pci/devices/{link.removeprefix('../')}/iommu_group")) for link in links]


def test_the_groups_of_removed_vfs_are_used_again():
    host = sim_host()
    first = _groups(host, 3)
    host.perform(WriteFile(f"{_PATH}/sriov_numvfs", "0"))
    assert _groups(host, 2) == first[:2]
    assert len(set(first)) == 3
