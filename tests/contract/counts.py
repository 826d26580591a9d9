"""The host contract for `sriov_numvfs`.

It covers the counts that the kernel accepts, its order of checks, and the effects of a change.
"""

from __future__ import annotations

import pytest

from tests.harness.api import wait_for
from vmnic.host.ops import ListDir, SetChannels, SetLink

from .subject import DEVICES, MAC, Contract


class CountContract(Contract):
    def test_a_pf_on_igb_offers_seven_vfs(self, host):
        assert host.read("sriov_totalvfs") == "7"
        assert host.driver(host.subject.pf) == "igb"
        assert (host.read("vendor"), host.read("device"), host.read("class")) == ("0x8086", "0x10c9", "0x020000")

    def test_a_vf_names_its_pf_and_cannot_have_vfs_itself(self, host):
        vf = host.vfs(1)[0]
        assert host.link(f"{DEVICES}/{vf}/physfn") == host.subject.pf
        assert (host.get(f"{DEVICES}/{vf}/class"), host.exists(f"{host.path}/physfn")) == ("0x020000", False)
        assert not [name for name in ("sriov_totalvfs", "sriov_numvfs") if host.exists(f"{DEVICES}/{vf}/{name}")]

    @pytest.mark.parametrize("text", ["-1", "abc", "\n", "65536", " 3", "3 ", "1_0", "0x", "08", "+-3", "3.0"])
    def test_a_count_that_is_no_number_is_EINVAL(self, host, text):
        assert host.write("sriov_numvfs", text) == "EINVAL"

    @pytest.mark.parametrize(("text", "count"), [("2\n", "2"), ("0x2", "2"), ("02", "2"), ("+2", "2")])
    def test_a_count_may_be_written_in_c_notation(self, host, text, count):
        assert host.write("sriov_numvfs", text) == "OK"
        assert host.read("sriov_numvfs") == count

    @pytest.mark.parametrize("count", [8, 99, "010"])
    def test_more_vfs_than_the_nic_supports_is_ERANGE(self, host, count):
        assert host.write("sriov_numvfs", count) == "ERANGE"

    def test_an_empty_write_does_nothing(self, host):
        assert host.write("sriov_numvfs", "") == "OK"
        assert host.read("sriov_numvfs") == "0"

    def test_zero_on_zero_changes_nothing(self, host):
        assert host.write("sriov_numvfs", 0) == "OK"
        assert host.read("sriov_numvfs") == "0"

    def test_another_count_is_EBUSY_and_the_range_is_checked_first(self, host):
        host.vfs(3)
        answers = [host.write("sriov_numvfs", count) for count in (5, 7, 2, "0x2", 8, 99, "x", 3)]
        assert answers == ["EBUSY", "EBUSY", "EBUSY", "EBUSY", "ERANGE", "ERANGE", "EINVAL", "OK"]
        assert host.read("sriov_numvfs") == "3"

    def test_two_pfs_can_have_all_seven_vfs_at_a_time(self, host):
        host.vfs(7)
        assert host.put(f"{host.other}/sriov_numvfs", 7) == "OK"
        assert (host.read("sriov_numvfs"), host.get(f"{host.other}/sriov_numvfs")) == ("7", "7")

    def test_vfs_link_to_their_pf_and_are_removed_by_zero(self, host):
        vf = host.vfs(2)[1]
        assert host.link(f"{DEVICES}/{vf}/physfn") == host.subject.pf
        assert (host.get(f"{DEVICES}/{vf}/vendor"), host.get(f"{DEVICES}/{vf}/device")) == ("0x8086", "0x10ca")
        assert host.write("sriov_numvfs", 0) == "OK"
        assert not host.exists(f"{DEVICES}/{vf}")
        assert not [name for name in host.subject.perform(ListDir(host.path)) if name.startswith("virtfn")]

    def test_vf_addresses_follow_offset_and_stride(self, host):
        bus = host.subject.pf.rsplit(":", 1)[0]
        assert host.vfs(5) == [f"{bus}:{rest}" for rest in ("10.0", "10.2", "10.4", "10.6", "11.0")]

    def test_a_vf_is_on_the_numa_node_of_its_pf(self, host):
        far = f"{DEVICES}/{host.subject.crowded_pf}"
        assert host.put(f"{far}/sriov_numvfs", 1) == "OK"
        assert [host.get(f"{path}/numa_node") for path in (host.path, far, f"{far}/virtfn0")] == ["-1", "1", "1"]

    def test_a_vf_has_no_sriov_files_of_its_own(self, host):
        vf = host.vfs(1)[0]
        names = host.subject.perform(ListDir(f"{DEVICES}/{vf}"))
        assert not {"sriov_numvfs", "sriov_totalvfs", "sriov_drivers_autoprobe"} & set(names)

    def test_a_pf_without_a_driver_creates_no_vfs_and_reports_eight(self, host):
        assert host.unbind(host.subject.pf, "igb") == "OK"
        assert (host.read("sriov_totalvfs"), host.write("sriov_numvfs", 3)) == ("8", "ENOENT")
        assert (host.write("sriov_numvfs", 0), host.write("sriov_numvfs", 9)) == ("OK", "ERANGE")
        assert host.put("/sys/bus/pci/drivers/igb/bind", host.subject.pf) == "OK"
        assert host.read("sriov_totalvfs") == "7"

    def test_a_rebound_pf_is_down_with_default_values(self, host):
        host.subject.perform(SetLink(name=host.name, mtu=9000, up=True))
        assert host.unbind(host.subject.pf, "igb") == "OK"
        assert host.put("/sys/bus/pci/drivers/igb/bind", host.subject.pf) == "OK"
        assert (host.info().up, host.info().mtu) == (False, 1500)

    def test_unbinding_the_pf_removes_its_vfs(self, host):
        vf = host.vfs(2)[0]
        assert host.unbind(host.subject.pf, "igb") == "OK"
        assert not host.exists(f"{DEVICES}/{vf}")
        assert host.read("sriov_numvfs") == "0"

    def test_a_pf_on_vfio_has_no_link_and_creates_no_vfs(self, host):
        assert host.unbind(host.subject.pf, "igb") == "OK"
        host.bind(host.subject.pf)
        assert (host.driver(host.subject.pf), host.names(host.subject.pf)) == ("vfio-pci", [])
        assert host.write("sriov_numvfs", 2) == "ENOENT"
        assert host.unbind(host.subject.pf, "vfio-pci") == "OK"
        host.bind(host.subject.pf, "\n")
        assert host.driver(host.subject.pf) == "igb"

    def test_zero_clears_override_and_attributes(self, host):
        vf = host.vfs(1)[0]
        host.bind(vf)
        assert host.set_vf(0, mac=MAC, vlan=100, qos=3) == "OK"
        assert host.write("sriov_numvfs", 0) == "OK"
        host.vfs(1)
        assert (host.get(f"{DEVICES}/{vf}/driver_override"), host.driver(vf)) == ("(null)", "")
        assert (host.vf_infos()[0].vlan, host.vf_infos()[0].mac == MAC) == (0, False)

    def test_autoprobe_survives_a_change_of_the_count(self, host):
        host.vfs(1)
        assert host.write("sriov_numvfs", 0) == "OK"
        assert host.read("sriov_drivers_autoprobe") == "0"

    def test_a_change_of_the_count_resets_the_channels(self, host):
        assert host.try_(SetChannels(host.name, 1)) == "OK"
        host.vfs(1)
        channels = host.channels()
        assert (channels.combined, channels.max_combined) == (2, 2)
        assert host.write("sriov_numvfs", 0) == "OK"
        assert host.channels().max_combined == 8

    def test_a_change_of_the_count_keeps_mtu_and_link_state(self, host):
        host.bring_up()
        assert host.try_(SetLink(name=host.name, mtu=9000)) == "OK"
        host.vfs(2)
        wait_for("the link is back", lambda: host.info().carrier)
        assert (host.info().mtu, host.info().up) == (9000, True)

    def test_a_pf_with_its_link_in_another_netns_still_creates_vfs(self, host):
        name = host.name
        host.subject.control({"move_link": name})
        assert (host.names(host.subject.pf), host.has_link(name)) == ([], False)
        assert host.try_(SetLink(name=name, up=True)) == "ENODEV"
        assert host.vfs(2)
        host.subject.control({"bring_links_back": None})
        wait_for("the link is back", lambda: host.names(host.subject.pf) == [name])
