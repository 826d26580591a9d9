"""The host contract on a real kernel, and also on the simulated host, for the table of results."""

import pytest

from tests.contract.suite import (
    CountContract,
    DriverContract,
    EventContract,
    FileContract,
    HolderContract,
    LinkContract,
    ModuleContract,
    NoIommuContract,
    RemovalContract,
    UpperContract,
    VfioContract,
    WriterContract,
)
from tests.unit.simhost.test_contract import InProcess
from vmnic.host.ops import Channels, ListDir, ReadChannels, ReadLinks, SetChannels


class Kernel:
    @pytest.fixture
    def subject(self, guest):
        guest.reset()
        return guest


class TestKernelOne(Kernel, CountContract, HolderContract, FileContract, EventContract, RemovalContract):
    """Half of the cases. Each class here has its own guest, and they run in parallel."""


class TestKernelTwo(Kernel, DriverContract, LinkContract, ModuleContract, UpperContract, VfioContract, WriterContract):
    def test_a_virtio_nic_takes_up_to_its_four_queues(self, guest):
        links = guest.perform(ReadLinks())
        name = next(link.name for link in links if link.mac.startswith("52:54:00:00:ff"))
        assert guest.perform(ReadChannels(name)).max_combined == 4
        for count in (2, 4):
            guest.run("ethtool", "-L", name, "combined", str(count))
            assert guest.perform(ReadChannels(name)) == Channels(combined=count, max_combined=4)
        code, text = guest.try_run("ethtool", "-L", name, "combined", "5")
        assert (code, "Invalid argument" in text or "exceeds maximum" in text) == (1, True), text
        with pytest.raises(OSError, match="Invalid"):
            guest.perform(SetChannels(name, 5))

    def test_a_macvtap_has_a_device_with_its_index(self, host, guest):
        guest.control({"add_upper": {"name": "tap7", "kind": "macvtap", "lower": host.name, "mode": "bridge"}})
        assert f"tap{host.info_of('tap7').index}" in guest.perform(ListDir("/dev"))

    def test_vfs_reach_each_other_only_in_the_same_vlan(self, host, guest):
        near, _ = _linked_vfs(host, guest)
        seen = []
        for vlans in ((100, 100), (100, 200), (200, 200)):
            assert [host.set_vf(vf, vlan=vlan) for vf, vlan in enumerate(vlans)] == ["OK", "OK"]
            seen.append(_reaches(guest, near))
        assert seen == [True, False, True]

    def test_a_vf_with_a_new_address_is_cut_off_until_it_rebinds(self, host, guest):
        near, far = _linked_vfs(host, guest)
        seen = [_reaches(guest, near)]
        assert host.set_vf(1, mac="02:00:00:00:00:a7") == "OK"
        seen.append(_reaches(guest, near))
        assert (host.unbind(far, "igbvf"), host.probe(far)) == ("OK", "OK")
        _join(host, guest, far, 2)
        assert [*seen, _reaches(guest, near)] == [True, False, True]

    def test_a_driver_may_create_fewer_vfs_and_report_success(self, host, guest):
        pf = host.subject.pf
        guest.run("sh", "-c", "insmod /lib/modules/$(uname -r)/extra/fewer_vfs.ko")
        assert host.unbind(pf, "igb") == "OK"
        host.bind(pf, "fewer_vfs")
        assert (host.driver(pf), host.write("sriov_numvfs", 5), host.read("sriov_numvfs")) == ("fewer_vfs", "OK", "2")
        made = [name for name in host.subject.perform(ListDir(host.path)) if name.startswith("virtfn")]
        assert (sorted(made), host.write("sriov_numvfs", 5)) == (["virtfn0", "virtfn1"], "EBUSY")


def _linked_vfs(host, guest):
    """Create two VFs, each with an address in its own namespace.

    Returns:
        The first VF's namespace and the second VF.
    """
    vfs = host.vfs(2)
    host.bring_up()
    for number, vf in enumerate(vfs, 1):
        assert host.set_vf(number - 1, mac=f"02:00:00:00:00:a{number}") == "OK"
        host.bind(vf, "igbvf")
    namespaces = [_join(host, guest, vf, number) for number, vf in enumerate(vfs, 1)]
    return namespaces[0], vfs[1]


def _join(host, guest, vf, number):
    """Move a VF's link to a namespace, make it reachable there, and return the namespace."""
    (name,) = host.names(vf)
    namespace = guest.control({"move_link": name})
    script = f"ip address add 192.0.2.{number}/24 dev {name} && ip link set {name} up"
    guest.run("ip", "netns", "exec", namespace, "sh", "-c", script)
    return namespace


def _reaches(guest, namespace):
    """Return whether the second VF answers the first one.

    The first one's neighbour entries are flushed before. A first packet may be lost.
    """
    script = "ip neighbour flush all; exec busybox ping -c 3 -i 0.2 -W 1 192.0.2.2"
    code, text = guest.try_run("ip", "netns", "exec", namespace, "sh", "-c", script)
    assert "3 packets transmitted" in text, text
    return code == 0


class TestKernelWithoutIommu(NoIommuContract):
    @pytest.fixture
    def subject(self, bare_guest):
        bare_guest.reset()
        return bare_guest


class Simulated:
    @pytest.fixture
    def subject(self):
        return InProcess()


class TestSimulated(
    Simulated, CountContract, DriverContract, EventContract, FileContract, HolderContract, LinkContract, ModuleContract,
    RemovalContract, UpperContract, VfioContract, WriterContract,
):  # fmt: skip
    pass


class TestSimulatedWithoutIommu(NoIommuContract):
    @pytest.fixture
    def subject(self):
        return InProcess(iommu=False)
