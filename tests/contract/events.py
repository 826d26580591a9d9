"""The host contract for events, which are uevents of PCI functions and netlink messages about links."""

from __future__ import annotations

import pytest

from tests.harness.api import wait_for
from vmnic.host.ops import SetChannels, SetLink

from .subject import MAC, Contract, Host, Subject


class Listener(Host):
    """A host whose events are recorded in a short form."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._told: list[tuple[str, str]] = []
        subject.heard()

    def functions(self) -> list[str]:
        """Return the events of this PF and its VFs since the last call, in order."""
        bus = self.subject.pf.rsplit(":", 1)[0]
        self._listen()
        return self._take(lambda what, name: not what.endswith("link") and name.startswith(bus))

    def links(self, *names: str) -> list[str]:
        """Return the events of links since the last call.

        The kernel may report one change twice. Such repetitions are removed.
        """
        self._listen()
        told = self._take(lambda what, name: what.endswith("link") and name in names)
        return [one for number, one in enumerate(told) if [one] != told[number - 1 : number]]

    def _listen(self) -> None:
        events = self.subject.heard()
        self._told += [(one.what, one.link if one.what.endswith("link") else one.address) for one in events]

    def _take(self, which):
        found = [f"{what} {name}" for what, name in self._told if which(what, name)]
        self._told = [one for one in self._told if not which(*one)]
        return found


class EventContract(Contract):
    @pytest.fixture
    def host(self, subject: Subject) -> Listener:
        return Listener(subject)

    def test_vfs_without_a_driver_are_added_one_by_one(self, host):
        vfs = host.vfs(3)
        assert host.functions() == [*(f"{what} {vf}" for vf in vfs for what in ("add", "change")), f"change {host.subject.pf}"]

    def test_vfs_are_bound_as_they_are_added_with_autoprobe(self, host):
        vfs = host.vfs(2, autoprobe=True)
        told = [f"{what} {vf}" for vf in vfs for what in ("add", "change", "bind")]
        assert host.functions() == [*told, f"change {host.subject.pf}"]

    def test_zero_reports_unbind_and_remove_of_each_vf(self, host):
        driven, free = host.vfs(2)
        host.bind(driven)
        host.functions()
        assert host.write("sriov_numvfs", 0) == "OK"
        assert host.functions() == [f"unbind {driven}", f"remove {driven}", f"remove {free}"]

    def test_a_held_vf_is_unbound_and_removed_once_released(self, host):
        vf = host.held_vfs(1, 0)[0]
        host.functions()
        writer = host.start(f"{host.path}/sriov_numvfs", "0")
        assert not host.subject.settled(writer)
        seen = host.functions()
        host.release(vf)
        assert writer.result(20) is None
        assert (seen, host.functions()) == ([], [f"unbind {vf}", f"remove {vf}"])

    def test_bind_and_unbind_are_reported(self, host):
        vf = host.vfs(1)[0]
        host.functions()
        host.bind(vf)
        seen = host.functions()
        assert host.unbind(vf, "vfio-pci") == "OK"
        assert (seen, host.functions()) == ([f"bind {vf}"], [f"unbind {vf}"])

    def test_a_write_without_effect_is_not_reported(self, host):
        vf = host.vfs(1)[0]
        host.functions()
        assert (host.write("sriov_numvfs", 1), host.write("sriov_numvfs", 5)) == ("OK", "EBUSY")
        assert (host.override(vf, "no-such-driver"), host.probe(vf)) == ("OK", "OK")
        assert (host.functions(), host.links(host.name)) == ([], [])

    def test_the_links_of_vfs_appear_and_disappear(self, host):
        vf = host.vfs(1, autoprobe=True)[0]
        (name,) = host.names(vf)
        came = host.links(name, "eth0")
        assert host.write("sriov_numvfs", 0) == "OK"
        assert (came[-1], host.links(name)) == (f"newlink {name}", [f"dellink {name}"])

    def test_a_change_of_the_count_is_reported_if_the_pf_link_is_up(self, host):
        host.bring_up()
        name = host.name
        for count in (1, 0):
            host.links(name)
            assert host.write("sriov_numvfs", count) == "OK"
            wait_for("it is told", lambda: host.links(name) == [f"newlink {name}"])
            wait_for("the link is back", lambda: host.info().carrier)

    def test_removal_of_a_vf_link_in_another_netns_is_not_reported(self, host):
        (name,) = host.names(host.vfs(1, autoprobe=True)[0])
        host.subject.control({"move_link": name})
        host.links(name)
        assert host.write("sriov_numvfs", 0) == "OK"
        assert host.links(name) == []

    def test_the_link_of_a_pf_appears_and_disappears_with_its_driver(self, host):
        name = host.name
        assert host.unbind(host.subject.pf, "igb") == "OK"
        assert (host.functions(), host.links(name)) == ([f"unbind {host.subject.pf}"], [f"dellink {name}"])
        assert host.put("/sys/bus/pci/drivers/igb/bind", host.subject.pf) == "OK"
        assert host.functions() == [f"bind {host.subject.pf}"]
        assert host.links(host.name) == [f"newlink {host.name}"]

    def test_a_change_of_a_link_is_reported(self, host):
        name, seen = host.name, []
        for change in ({"mtu": 9000}, {"up": True}, {"up": False}):
            host.subject.perform(SetLink(name=name, **change))
            seen.append(host.links(name))
        assert seen == [[f"newlink {name}"]] * 3

    def test_a_renamed_link_is_reported_by_new_name_and_function(self, host):
        host.subject.control({"rename_link": {"link": host.name, "name": "fast7"}})
        told = [event for event in host.subject.heard() if event.what == "newlink" and event.link == "fast7"]
        assert {event.address for event in told} == {host.subject.pf}

    @pytest.mark.parametrize(
        "attributes", [{"mac": MAC}, {"vlan": 7, "qos": 3}, {"trust": True}, {"spoof_check": False}], ids=str
    )
    def test_a_vf_attribute_is_reported_if_the_pf_link_is_up(self, host, attributes):
        host.vfs(1)
        host.bring_up()
        host.links(host.name)
        assert host.set_vf(0, **attributes) == "OK"
        assert host.links(host.name) == [f"newlink {host.name}"]

    def test_a_vf_attribute_is_not_reported_if_the_pf_link_is_down(self, host):
        host.vfs(1)
        host.links(host.name)
        assert (host.set_vf(0, vlan=7), host.links(host.name)) == ("OK", [])

    def test_a_refused_attribute_and_those_before_are_not_reported(self, host):
        host.vfs(1)
        host.bring_up()
        host.links(host.name)
        assert host.set_vf(0, vlan=7, link_state="enable") == "EOPNOTSUPP"
        assert (host.vf_infos()[0].vlan, host.links(host.name)) == (7, [])

    def test_channels_of_a_link_that_is_down_are_not_reported(self, host):
        assert host.try_(SetChannels(host.name, 1)) == "OK"
        assert host.links(host.name) == []

    def test_a_pulled_cable_is_reported(self, host):
        host.bring_up()
        name = host.name
        host.links(name)
        host.subject.control({"set_cable": {"link": name, "plugged": False}})
        wait_for("it is told", lambda: host.links(name) == [f"newlink {name}"])

    def test_a_link_in_another_netns_disappears_until_it_returns(self, host):
        name = host.name
        host.subject.control({"move_link": name})
        assert host.links(name)[-1] == f"dellink {name}"
        host.subject.control({"bring_links_back": None})
        wait_for("it is told", lambda: host.links(name) == [f"newlink {name}"])

    def test_an_upper_device_appears_and_disappears(self, host):
        host.subject.control({"add_upper": {"name": "over7", "kind": "macvtap", "lower": host.name}})
        came = host.links("over7")
        assert host.unbind(host.subject.pf, "igb") == "OK"
        assert (came[-1], host.links("over7")[-1]) == ("newlink over7", "dellink over7")
