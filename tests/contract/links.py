"""The host contract for links, with attributes of VFs, MTU, channels, carriers and addresses."""

from __future__ import annotations

import pytest

from tests.harness.api import wait_for
from vmnic.host.ops import (
    Channels,
    CheckGateway,
    ReadChannels,
    ReadEswitchMode,
    ReadFile,
    ReadUnicast,
    ReadVfs,
    SetChannels,
    SetLink,
)

from .subject import DEVICES, MAC, Contract


class LinkContract(Contract):
    def test_vf_attributes_are_set_and_read_back(self, host):
        host.vfs(2)
        assert host.set_vf(1, mac=MAC, vlan=100, qos=3, spoof_check=False, trust=True) == "OK"
        vf = host.vf_infos()[1]
        assert (vf.mac, vf.vlan, vf.qos, vf.spoof_check, vf.trust) == (MAC, 100, 3, False, True)
        assert host.vf_infos()[0].vlan == 0

    @pytest.mark.parametrize(
        ("attributes", "answer"),
        [
            ({"mac": "01:00:5e:00:00:01"}, "EINVAL"),
            ({"vf": 5, "mac": MAC}, "EINVAL"),
            ({"vlan": 100, "vlan_protocol": "802.1ad"}, "EPROTONOSUPPORT"),
            ({"vlan": 100, "vlan_protocol": "802.1q"}, "OK"),
            ({"vlan": 4095}, "OK"),
            ({"vlan": 4096}, "EINVAL"),
            ({"vlan": 100, "qos": 8}, "EINVAL"),
            ({"link_state": "enable"}, "EOPNOTSUPP"),
            ({"link_state": "disable"}, "EOPNOTSUPP"),
            ({"link_state": "auto"}, "EOPNOTSUPP"),
            ({"min_tx_rate_mbit": 10}, "EINVAL"),
            ({"max_tx_rate_mbit": 99999}, "EINVAL"),
            ({"max_tx_rate_mbit": 100}, "EINVAL"),
        ],
        ids=[
            "multicast MAC", "a VF too far", "QinQ", "802.1Q named", "the last VLAN", "a VLAN too far", "a priority too high",
            "link state enable", "link state disable", "link state auto", "least rate", "a rate too high",
            "a rate while the link is down",
        ],
    )  # fmt: skip
    def test_attributes_that_igb_accepts_or_refuses(self, host, attributes, answer):
        host.vfs(1)
        assert host.set_vf(**({"vf": 0} | attributes)) == answer

    def test_several_attributes_are_not_set_atomically(self, host):
        host.vfs(1)
        assert host.set_vf(0, mac=MAC, vlan=7, link_state="enable") == "EOPNOTSUPP"
        assert (host.vf_infos()[0].mac, host.vf_infos()[0].vlan) == (MAC, 7)

    def test_attributes_after_a_refused_one_are_not_set(self, host):
        host.vfs(1)
        assert host.set_vf(0, trust=True, link_state="enable") == "EOPNOTSUPP"
        assert host.vf_infos()[0].trust is False

    def test_a_new_vf_has_no_admin_mac_and_a_random_link_address(self, host):
        vf = host.vfs(1, autoprobe=True)[0]
        none = "00:00:00:00:00:00"
        assert (host.vf_infos()[0].mac, host.info_of(host.names(vf)[0]).mac == none) == (none, False)

    def test_vlan_zero_removes_the_vlan(self, host):
        host.vfs(1)
        assert (host.set_vf(0, vlan=100, qos=3), host.set_vf(0, vlan=0, qos=0)) == ("OK", "OK")
        assert (host.vf_infos()[0].vlan, host.vf_infos()[0].qos) == (0, 0)

    def test_a_rate_needs_a_link_that_is_up_and_zero_removes_it(self, host):
        host.vfs(1)
        host.bring_up()
        assert host.set_vf(0, max_tx_rate_mbit=100) == "OK"
        assert host.vf_infos()[0].max_tx_rate_mbit == 100
        assert host.set_vf(0, max_tx_rate_mbit=0) == "OK"
        assert host.vf_infos()[0].max_tx_rate_mbit == 0

    def test_min_rate_or_rate_above_link_speed_is_EINVAL_when_up(self, host):
        host.vfs(1)
        host.bring_up()
        refused = ({"min_tx_rate_mbit": 10}, {"max_tx_rate_mbit": 1001}, {"max_tx_rate_mbit": 99999})
        assert [host.set_vf(0, **rate) for rate in refused] == ["EINVAL"] * 3
        assert host.vf_infos()[0].max_tx_rate_mbit == 0

    def test_down_and_up_keep_the_vf_attributes(self, host):
        host.vfs(1)
        assert host.set_vf(0, mac=MAC, vlan=100, qos=3, trust=True) == "OK"
        host.bring_up()
        assert host.try_(SetLink(name=host.name, up=False)) == "OK"
        host.bring_up()
        vf = host.vf_infos()[0]
        assert (vf.mac, vf.vlan, vf.qos, vf.trust) == (MAC, 100, 3, True)

    def test_a_vf_link_gets_its_new_address_when_its_driver_rebinds(self, host):
        vf = host.vfs(1, autoprobe=True)[0]
        host.bring_up()
        assert host.set_vf(0, mac=MAC) == "OK"
        before = host.info_of(host.names(vf)[0]).mac
        assert host.unbind(vf, "igbvf") == "OK"
        assert host.probe(vf) == "OK"
        assert (before == MAC, host.info_of(host.names(vf)[0]).mac) == (False, MAC)

    def test_attributes_survive_a_change_of_the_vf_driver(self, host):
        vf = host.vfs(1)[0]
        assert host.set_vf(0, mac=MAC, vlan=100) == "OK"
        host.bind(vf)
        assert host.unbind(vf, "vfio-pci") == "OK"
        assert (host.vf_infos()[0].mac, host.vf_infos()[0].vlan) == (MAC, 100)

    def test_an_absent_link_is_ENODEV(self, host):
        assert host.try_(SetLink(name="no-such-link", up=True)) == "ENODEV"
        assert host.try_(ReadChannels("no-such-link")) == "ENODEV"
        assert host.try_(ReadVfs("no-such-link")) == host.try_(ReadUnicast("no-such-link")) == "ENODEV"

    def test_a_nic_is_an_ethernet_link_with_its_own_address(self, host):
        link = host.info()
        assert (link.type, link.permanent_mac, link.phys_port_name) == ("ether", link.mac, "")

    def test_a_driver_without_an_e_switch_has_no_mode(self, host):
        # A kernel without devlink answers ENOENT.
        assert host.try_(ReadEswitchMode(host.subject.pf)) in ("ENODEV", "ENOENT")

    def test_creating_vfs_takes_queues_from_the_pf(self, host):
        before = host.channels()
        assert (before.max_combined, host.try_(SetChannels(host.name, 4))) == (8, "OK")
        assert host.channels() == Channels(combined=4, max_combined=8)
        host.vfs(1)
        assert host.channels().max_combined == 2

    @pytest.mark.parametrize("count", [0, 9])
    def test_channels_have_bounds(self, host, count):
        assert host.try_(SetChannels(host.name, count)) == "EINVAL"

    def test_a_pf_with_vfs_has_two_channels_and_a_vf_has_none(self, host):
        vf = host.vfs(1, autoprobe=True)[0]
        assert [host.try_(SetChannels(host.name, count)) for count in (1, 2, 3)] == ["OK", "OK", "EINVAL"]
        assert host.try_(ReadChannels(host.names(vf)[0])) == "EOPNOTSUPP"

    @pytest.mark.parametrize(("mtu", "answer"), [(67, "EINVAL"), (68, "OK"), (9000, "OK"), (9216, "OK"), (9217, "EINVAL")])
    def test_the_mtu_has_bounds(self, host, mtu, answer):
        assert host.try_(SetLink(name=host.name, mtu=mtu)) == answer
        assert host.info().mtu == (mtu if answer == "OK" else 1500)

    def test_carrier_and_speed_of_a_link_that_is_down_are_EINVAL(self, host):
        for name in ("carrier", "speed"):
            assert host.try_(ReadFile(f"/sys/class/net/{host.name}/{name}")) == "EINVAL"

    def test_a_function_has_its_permanent_address(self, host):
        assert host.get(f"/sys/class/net/{host.name}/addr_assign_type") == "0"

    def test_the_carrier_follows_the_cable(self, host):
        host.bring_up()
        for plugged in (False, True):
            host.subject.control({"set_cable": {"link": host.name, "plugged": plugged}})
            wait_for("the carrier follows", lambda plugged=plugged: host.info().carrier is plugged)
        assert host.get(f"/sys/class/net/{host.name}/speed") == "1000"

    def test_an_address_is_reported_with_its_prefix(self, host):
        host.subject.control({"assign_address": {"link": host.name, "address": "192.0.2.7/24"}})
        assert host.info().addresses == ("192.0.2.7/24",)
        host.subject.control({"remove_addresses": host.name})
        assert host.info().addresses == ()

    def test_a_host_without_a_default_route_has_no_gateway(self, host):
        assert host.subject.perform(CheckGateway()) == ""

    def test_a_pf_reports_only_the_vfs_that_exist(self, host):
        assert host.vf_infos() == ()
        host.vfs(3)
        assert [vf.vf for vf in host.vf_infos()] == [0, 1, 2]
        assert host.get(f"{DEVICES}/{host.subject.pf}/sriov_numvfs") == "3"
