"""The host contract for upper devices, which are bridges, VLANs, macvtaps and their modes."""

from __future__ import annotations

import pytest

from vmnic.host.ops import ReadUnicast, SetLink

from .subject import Contract, Host


def _put(host: Host, name: str, kind: str, **more: object) -> str:
    return host.control("add_upper", {"name": name, "kind": kind, "lower": host.name, **more})


class UpperContract(Contract):
    def test_a_bridge_is_the_master_of_its_port(self, host):
        assert _put(host, "br7", "bridge", is_master=True) == "OK"
        assert host.info().master == host.info_of("br7").index
        assert host.info_of("br7").kind == "bridge"

    @pytest.mark.parametrize("kind", ["macvtap", "macvlan", "vlan"])
    def test_an_upper_device_names_the_link_below_it(self, host, kind):
        assert _put(host, "over7", kind) == "OK"
        upper = host.info_of("over7")
        assert (upper.kind, upper.lower) == (kind, host.info().index)

    def test_uppers_of_a_pf_are_removed_with_its_driver(self, host):
        assert _put(host, "over7", "macvtap") == "OK"
        assert host.unbind(host.subject.pf, "igb") == "OK"
        assert not host.has_link("over7")

    def test_two_macvtaps_in_bridge_mode_share_a_link(self, host):
        assert [_put(host, name, "macvtap", mode="bridge") for name in ("tap7", "tap8")] == ["OK", "OK"]

    @pytest.mark.parametrize(
        "modes", [("bridge", "passthru"), ("passthru", "bridge"), ("passthru", "passthru")], ids=" then ".join
    )
    @pytest.mark.parametrize("kind", ["macvtap", "macvlan"])
    def test_passthru_mode_needs_exclusive_use_of_the_link(self, host, kind, modes):
        first = _put(host, "tap7", "macvtap", mode=modes[0])
        assert (first, _put(host, "tap8", kind, mode=modes[1]), host.has_link("tap8")) == ("OK", "EINVAL", False)

    @pytest.mark.parametrize("kind", ["macvtap", "macvlan"])
    def test_a_macvlan_that_is_up_is_in_the_filter_below_it(self, host, kind):
        host.bring_up()
        assert _put(host, "over7", kind, mode="bridge") == "OK"
        host.subject.perform(SetLink(name="over7", up=True))
        assert host.subject.perform(ReadUnicast(host.name)) == (host.info_of("over7").mac,)
        host.subject.perform(SetLink(name="over7", up=False))
        assert host.subject.perform(ReadUnicast(host.name)) == ()

    def test_a_passthru_macvtap_makes_the_link_below_promiscuous(self, host):
        host.bring_up()
        assert (host.info().promiscuity, _put(host, "tap7", "macvtap", mode="passthru")) == (0, "OK")
        host.subject.perform(SetLink(name="tap7", up=True))
        assert (host.info().promiscuity, host.subject.perform(ReadUnicast(host.name))) == (1, ())

    def test_a_port_of_a_bridge_is_promiscuous(self, host):
        assert _put(host, "br7", "bridge", is_master=True) == "OK"
        assert host.info().promiscuity == 1
