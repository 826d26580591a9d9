"""The host contract: what the kernel answers, errno for errno. It runs on the simulated host and on a real kernel.

The simulator is only trusted because the kernel gives the same answers here. `subject` is a fixture; see `Subject`.
"""

from __future__ import annotations

import errno
from typing import Any, Protocol

import pytest

from tests.harness.api import wait_for
from vmnic.host.ops import (
    Channels,
    LinkInfo,
    ListDir,
    LoadModule,
    Op,
    ReadChannels,
    ReadFile,
    ReadLink,
    ReadLinks,
    SetChannels,
    SetLink,
    SetVf,
    WriteFile,
)

DEVICES = "/sys/bus/pci/devices"
MAC = "02:00:00:00:00:a0"


class Pending(Protocol):
    """An operation that was started and may be blocked."""

    def done(self) -> bool: ...

    def result(self, timeout_s: float) -> Any: ...


class Subject(Protocol):
    """A host with two 82576 functions without VFs."""

    pf: str
    other_pf: str

    def perform(self, op: Op) -> Any: ...

    def start(self, op: Op) -> Pending: ...

    def hold(self, vf: str) -> None: ...

    def release(self, vf: str) -> None: ...

    def settled(self, pending: Pending) -> bool:
        """Give an operation the time that the kernel needs to answer, and tell whether it did."""
        ...


class Host:
    """Short words for the cases."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.path = f"{DEVICES}/{subject.pf}"
        self.other = f"{DEVICES}/{subject.other_pf}"

    def read(self, name: str) -> str:
        return self.subject.perform(ReadFile(f"{self.path}/{name}"))

    def write(self, name: str, text: object) -> str:
        """Write a file of the PF and give `OK` or the errno's name."""
        return self.try_(WriteFile(f"{self.path}/{name}", str(text)))

    def try_(self, op: Op) -> str:
        try:
            self.subject.perform(op)
        except OSError as error:
            # Linux has one number for both names; the kernel's sources say EOPNOTSUPP.
            return "EOPNOTSUPP" if error.errno == errno.EOPNOTSUPP else errno.errorcode[error.errno or 0]
        return "OK"

    def vfs(self, count: int, *, autoprobe: bool = False) -> list[str]:
        """Make VFs and give their addresses."""
        assert self.write("sriov_drivers_autoprobe", int(autoprobe)) == "OK"
        assert self.write("sriov_numvfs", count) == "OK"
        return [self.link(f"{self.path}/virtfn{index}") for index in range(count)]

    def link(self, path: str) -> str:
        return self.subject.perform(ReadLink(path)).rsplit("/", 1)[-1]

    def driver(self, address: str) -> str:
        try:
            return self.link(f"{DEVICES}/{address}/driver")
        except FileNotFoundError:
            return ""

    def bind(self, address: str, driver: str = "vfio-pci") -> None:
        assert self.try_(WriteFile(f"{DEVICES}/{address}/driver_override", driver)) == "OK"
        assert self.try_(WriteFile("/sys/bus/pci/drivers_probe", address)) == "OK"

    @property
    def name(self) -> str:
        return self.subject.perform(ListDir(f"{self.path}/net"))[0]

    def info(self) -> LinkInfo:
        return next(link for link in self.subject.perform(ReadLinks()) if link.pci_address == self.subject.pf)

    def exists(self, path: str) -> bool:
        return self.try_(ListDir(path)) == "OK"


class HostContract:
    """Every case leaves what it made to the subject's reset."""

    @pytest.fixture
    def host(self, subject: Subject) -> Host:
        return Host(subject)

    def test_a_pf_offers_seven_vfs_while_igb_drives_it(self, host):
        assert host.read("sriov_totalvfs") == "7"
        assert host.driver(host.subject.pf) == "igb"
        assert (host.read("vendor"), host.read("device")) == ("0x8086", "0x10c9")

    @pytest.mark.parametrize("text", ["-1", "abc", "\n", "65536"])
    def test_a_count_that_is_no_number_is_EINVAL(self, host, text):
        assert host.write("sriov_numvfs", text) == "EINVAL"

    @pytest.mark.parametrize("count", [8, 99])
    def test_more_vfs_than_the_nic_has_is_ERANGE(self, host, count):
        assert host.write("sriov_numvfs", count) == "ERANGE"

    def test_zero_again_is_a_no_op(self, host):
        assert host.write("sriov_numvfs", 0) == "OK"
        assert host.read("sriov_numvfs") == "0"

    def test_another_count_is_EBUSY_and_the_range_is_checked_first(self, host):
        host.vfs(3)
        assert [host.write("sriov_numvfs", count) for count in (5, 7, "0x2", 99, 3)] == [
            "EBUSY", "EBUSY", "EBUSY", "ERANGE", "OK",
        ]  # fmt: skip
        assert host.read("sriov_numvfs") == "3"

    def test_vfs_appear_with_links_both_ways_and_go_with_zero(self, host):
        vf = host.vfs(2)[1]
        assert host.link(f"{DEVICES}/{vf}/physfn") == host.subject.pf
        assert host.subject.perform(ReadFile(f"{DEVICES}/{vf}/device")) == "0x10ca"
        assert host.write("sriov_numvfs", 0) == "OK"
        assert not host.exists(f"{DEVICES}/{vf}")

    def test_vf_addresses_follow_the_nics_offset_and_stride(self, host):
        bus = host.subject.pf.split(":")[1]
        assert host.vfs(5) == [f"0000:{bus}:{rest}" for rest in ("10.0", "10.2", "10.4", "10.6", "11.0")]

    def test_autoprobe_on_lets_the_kernel_driver_take_new_vfs(self, host):
        assert host.driver(host.vfs(1, autoprobe=True)[0]) == "igbvf"

    def test_autoprobe_off_leaves_new_vfs_alone(self, host):
        assert host.driver(host.vfs(1)[0]) == ""

    def test_autoprobe_takes_only_a_boolean(self, host):
        assert host.write("sriov_drivers_autoprobe", 2) == "EINVAL"

    def test_an_override_and_a_probe_bind_vfio_without_autoprobe(self, host):
        vf = host.vfs(1)[0]
        host.bind(vf)
        assert host.driver(vf) == "vfio-pci"

    def test_an_override_and_a_probe_bind_the_kernel_driver_without_autoprobe(self, host):
        vf = host.vfs(1)[0]
        host.bind(vf, "igbvf")
        assert host.driver(vf) == "igbvf"

    def test_a_probe_without_an_override_does_nothing_without_autoprobe(self, host):
        vf = host.vfs(1)[0]
        assert host.try_(WriteFile("/sys/bus/pci/drivers_probe", vf)) == "OK"
        assert host.driver(vf) == ""

    def test_a_probe_with_a_missing_driver_does_nothing(self, host):
        vf = host.vfs(1)[0]
        host.bind(vf, "no-such-driver")
        assert host.driver(vf) == ""

    def test_a_probe_of_a_bound_function_does_nothing(self, host):
        vf = host.vfs(1, autoprobe=True)[0]
        assert host.try_(WriteFile(f"{DEVICES}/{vf}/driver_override", "vfio-pci")) == "OK"
        assert host.try_(WriteFile("/sys/bus/pci/drivers_probe", vf)) == "OK"
        assert host.driver(vf) == "igbvf"

    def test_a_probe_of_an_unknown_address_is_ENODEV(self, host):
        assert host.try_(WriteFile("/sys/bus/pci/drivers_probe", "0000:ff:1f.7")) == "ENODEV"

    def test_bind_to_vfio_without_an_override_is_ENODEV(self, host):
        vf = host.vfs(1)[0]
        assert host.try_(WriteFile("/sys/bus/pci/drivers/vfio-pci/bind", vf)) == "ENODEV"

    def test_bind_to_the_kernel_driver_without_autoprobe_is_ENODEV(self, host):
        vf = host.vfs(1)[0]
        assert host.try_(WriteFile("/sys/bus/pci/drivers/igbvf/bind", vf)) == "ENODEV"

    def test_unbind_frees_a_function_and_a_second_time_is_ENODEV(self, host):
        vf = host.vfs(1, autoprobe=True)[0]
        unbind = WriteFile("/sys/bus/pci/drivers/igbvf/unbind", vf)
        assert host.try_(unbind) == "OK"
        assert host.driver(vf) == ""
        assert host.try_(unbind) == "ENODEV"

    def test_a_vf_goes_from_vfio_back_to_the_kernel_driver(self, host):
        vf = host.vfs(1)[0]
        host.bind(vf)
        assert host.try_(WriteFile("/sys/bus/pci/drivers/vfio-pci/unbind", vf)) == "OK"
        host.bind(vf, "igbvf")
        assert host.driver(vf) == "igbvf"

    def test_an_override_of_a_page_is_EINVAL_and_a_newline_clears_it(self, host):
        vf = host.vfs(1)[0]
        path = f"{DEVICES}/{vf}/driver_override"
        assert host.try_(WriteFile(path, "x" * 5000)) == "EINVAL"
        assert host.subject.perform(ReadFile(path)) == "(null)"
        host.subject.perform(WriteFile(path, "vfio-pci"))
        assert host.subject.perform(ReadFile(path)) == "vfio-pci"
        host.subject.perform(WriteFile(path, "\n"))
        assert host.subject.perform(ReadFile(path)) == "(null)"

    def test_zero_wipes_the_override_and_the_attributes(self, host):
        vf = host.vfs(1)[0]
        host.bind(vf)
        host.subject.perform(SetVf(name=host.name, vf=0, mac=MAC, vlan=100, qos=3))
        assert host.write("sriov_numvfs", 0) == "OK"
        host.vfs(1)
        assert host.subject.perform(ReadFile(f"{DEVICES}/{vf}/driver_override")) == "(null)"
        assert (host.info().vfs[0].vlan, host.info().vfs[0].mac == MAC) == (0, False)

    def test_each_vf_has_an_iommu_group_of_its_own(self, host):
        groups = {host.link(f"{DEVICES}/{vf}/iommu_group") for vf in host.vfs(3)}
        assert len(groups) == 3

    def test_a_vf_on_vfio_pci_names_its_vfio_device(self, host):
        vf, other = host.vfs(2)
        host.bind(vf)
        (name,) = host.subject.perform(ListDir(f"{DEVICES}/{vf}/vfio-dev"))
        assert name.startswith("vfio")
        assert host.try_(ListDir(f"{DEVICES}/{other}/vfio-dev")) == "ENOENT"

    def test_enable_tells_whether_a_vfio_vf_is_held(self, host):
        vf = host.vfs(1)[0]
        host.bind(vf)
        enable = ReadFile(f"{DEVICES}/{vf}/enable")
        seen = [host.subject.perform(enable)]
        host.subject.hold(vf)
        seen.append(host.subject.perform(enable))
        host.subject.release(vf)
        assert [*seen, host.subject.perform(enable)] == ["0", "1", "0"]

    def test_a_held_vf_blocks_its_writer_and_every_pf_until_it_is_let_go(self, host):
        vf = host.vfs(2)[1]
        host.bind(vf)
        host.subject.hold(vf)
        writer = host.subject.start(WriteFile(f"{host.path}/sriov_numvfs", "0"))
        assert not host.subject.settled(writer)
        reader = host.subject.start(ReadFile(f"{host.path}/sriov_numvfs"))
        neighbour = host.subject.start(WriteFile(f"{host.other}/sriov_numvfs", "1"))
        rescan = host.subject.start(WriteFile("/sys/bus/pci/rescan", "1"))
        assert not any(host.subject.settled(pending) for pending in (reader, neighbour, rescan))
        assert host.read("sriov_totalvfs") == "7"
        assert host.driver(vf) == ""
        assert host.info().name == host.name
        host.subject.release(vf)
        assert [pending.result(20) for pending in (writer, reader, neighbour, rescan)] == [None, "0", None, None]

    def test_vf_attributes_are_set_and_read_back(self, host):
        host.vfs(2)
        host.subject.perform(SetVf(name=host.name, vf=1, mac=MAC, vlan=100, qos=3, spoof_check=False, trust=True))
        vf = host.info().vfs[1]
        assert (vf.mac, vf.vlan, vf.qos, vf.spoof_check, vf.trust) == (MAC, 100, 3, False, True)

    @pytest.mark.parametrize(
        ("attributes", "answer"),
        [
            ({"mac": "01:00:5e:00:00:01"}, "EINVAL"),
            ({"vf": 5, "mac": MAC}, "EINVAL"),
            ({"vlan": 100, "vlan_protocol": "802.1ad"}, "EPROTONOSUPPORT"),
            ({"vlan": 100, "vlan_protocol": "802.1q"}, "OK"),
            ({"link_state": "enable"}, "EOPNOTSUPP"),
            ({"link_state": "auto"}, "EOPNOTSUPP"),
            ({"min_tx_rate_mbit": 10}, "EINVAL"),
            ({"max_tx_rate_mbit": 99999}, "EINVAL"),
        ],
        ids=["multicast MAC", "a VF too far", "QinQ", "802.1Q named", "link state", "link state auto", "least rate", "rate"],
    )
    def test_attributes_that_igb_refuses(self, host, attributes, answer):
        host.vfs(1)
        assert host.try_(SetVf(**({"name": host.name, "vf": 0} | attributes))) == answer

    def test_several_attributes_are_not_set_atomically(self, host):
        host.vfs(1)
        assert host.try_(SetVf(name=host.name, vf=0, mac=MAC, vlan=7, link_state="enable")) == "EOPNOTSUPP"
        assert (host.info().vfs[0].mac, host.info().vfs[0].vlan) == (MAC, 7)

    def test_a_rate_is_taken_while_the_link_is_up(self, host):
        host.vfs(1)
        host.subject.perform(SetLink(name=host.name, up=True))
        carrier = ReadFile(f"/sys/class/net/{host.name}/carrier")
        wait_for("the PF has a carrier", lambda: host.subject.perform(carrier) == "1")
        assert host.try_(SetVf(name=host.name, vf=0, max_tx_rate_mbit=100)) == "OK"

    def test_a_link_that_is_not_there_is_ENODEV(self, host):
        assert host.try_(SetLink(name="no-such-link", up=True)) == "ENODEV"

    def test_making_vfs_takes_queues_from_the_pf(self, host):
        before = host.subject.perform(ReadChannels(host.name))
        assert (before, host.try_(SetChannels(host.name, 4))) == (Channels(combined=before.combined, max_combined=8), "OK")
        host.vfs(1)
        assert host.subject.perform(ReadChannels(host.name)).max_combined == 2

    def test_channels_have_bounds_and_a_vf_has_none(self, host):
        vf = host.vfs(1, autoprobe=True)[0]
        assert [host.try_(SetChannels(host.name, count)) for count in (0, 3)] == ["EINVAL", "EINVAL"]
        assert host.try_(ReadChannels(host.subject.perform(ListDir(f"{DEVICES}/{vf}/net"))[0])) == "EOPNOTSUPP"

    def test_the_mtu_has_bounds(self, host):
        assert host.try_(SetLink(name=host.name, mtu=9000)) == "OK"
        assert host.info().mtu == 9000
        assert [host.try_(SetLink(name=host.name, mtu=mtu)) for mtu in (60, 9300)] == ["EINVAL", "EINVAL"]

    def test_a_file_that_is_not_there_and_one_that_cannot_be_written(self, host):
        assert host.try_(ReadFile(f"{host.path}/no-such-file")) == "ENOENT"
        assert host.write("sriov_totalvfs", 1) == "EACCES"

    def test_a_pf_without_its_driver_makes_no_vfs_and_says_eight(self, host):
        host.subject.perform(WriteFile("/sys/bus/pci/drivers/igb/unbind", host.subject.pf))
        assert (host.read("sriov_totalvfs"), host.write("sriov_numvfs", 3)) == ("8", "ENOENT")
        assert (host.write("sriov_numvfs", 0), host.write("sriov_numvfs", 9)) == ("OK", "ERANGE")
        assert host.try_(WriteFile("/sys/bus/pci/drivers/igb/bind", host.subject.pf)) == "OK"
        assert host.read("sriov_totalvfs") == "7"

    def test_unbinding_the_pf_takes_its_vfs_with_it(self, host):
        vf = host.vfs(2)[0]
        host.subject.perform(WriteFile("/sys/bus/pci/drivers/igb/unbind", host.subject.pf))
        assert not host.exists(f"{DEVICES}/{vf}")

    def test_a_module_that_is_there_loads_and_another_is_ENOENT(self, host):
        assert host.try_(LoadModule("macvtap")) == "OK"
        assert host.exists("/sys/module/macvtap")
        assert host.try_(LoadModule("no_such_module")) == "ENOENT"
