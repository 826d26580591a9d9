"""The host contract for VFs with holders, with who waits for whom, what still answers, and the order in which waits end."""

from __future__ import annotations

from .subject import DEVICES, Contract


class HolderContract(Contract):
    def test_the_writer_of_zero_waits_for_a_held_vf(self, host):
        vfs = host.held_vfs(1, 0)
        writer = host.start(f"{host.path}/sriov_numvfs", "0")
        assert not host.subject.settled(writer)
        assert host.driver(vfs[0]) == ""
        host.release(vfs[0])
        assert writer.result(20) is None
        assert (host.read("sriov_numvfs"), host.exists(f"{DEVICES}/{vfs[0]}")) == ("0", False)

    def test_vfs_are_removed_in_order_up_to_the_held_one(self, host):
        vfs = host.held_vfs(3, 1)
        writer = host.start(f"{host.path}/sriov_numvfs", "0")
        assert not host.subject.settled(writer)
        assert [host.exists(f"{DEVICES}/{vf}") for vf in vfs] == [False, True, True]
        host.release(vfs[1])
        writer.result(20)
        assert not any(host.exists(f"{DEVICES}/{vf}") for vf in vfs)

    def test_a_writer_of_zero_waits_for_every_holder(self, host):
        vfs = host.vfs(2)
        for vf in vfs:
            host.bind(vf)
            host.hold(vf)
        writer = host.start(f"{host.path}/sriov_numvfs", "0")
        assert not host.subject.settled(writer)
        host.release(vfs[0])
        assert not host.subject.settled(writer)
        host.release(vfs[1])
        assert writer.result(20) is None

    def test_a_waiting_write_blocks_other_vf_changes_and_rescan(self, host):
        vf = host.held_vfs(2, 1)[1]
        writer = host.start(f"{host.path}/sriov_numvfs", "0")
        assert not host.subject.settled(writer)
        neighbour = host.start(f"{host.other}/sriov_numvfs", "1")
        rescan = host.start("/sys/bus/pci/rescan", "1")
        assert not any(host.subject.settled(pending) for pending in (neighbour, rescan))
        # Now that a write waits there too, the neighbour's own count cannot be read either.
        reader = host.start(f"{host.other}/sriov_numvfs")
        assert not host.subject.settled(reader)
        host.release(vf)
        assert [pending.result(20) for pending in (writer, neighbour, rescan, reader)] == [None, None, None, "1"]

    def test_a_waiting_write_blocks_only_reads_of_the_count(self, host):
        vf = host.held_vfs(2, 1)[1]
        writer = host.start(f"{host.path}/sriov_numvfs", "0")
        assert not host.subject.settled(writer)
        reader = host.start(f"{host.path}/sriov_numvfs")
        assert not host.subject.settled(reader)
        assert (host.read("sriov_totalvfs"), host.read("sriov_drivers_autoprobe")) == ("7", "0")
        assert (host.driver(vf), host.get(f"{DEVICES}/{vf}/enable")) == ("", "1")
        assert host.info().name == host.name
        assert host.get(f"{host.other}/sriov_numvfs") == "0"
        host.release(vf)
        assert (writer.result(20), reader.result(20)) == (None, "0")

    def test_a_second_writer_waits_for_the_first_and_then_succeeds(self, host):
        vf = host.held_vfs(1, 0)[0]
        first = host.start(f"{host.path}/sriov_numvfs", "0")
        assert not host.subject.settled(first)
        second = host.start(f"{host.path}/sriov_numvfs", "3")
        assert not host.subject.settled(second)
        host.release(vf)
        assert (first.result(20), second.result(20)) == (None, None)
        assert host.read("sriov_numvfs") == "3"

    def test_a_refused_count_does_not_wait_for_a_held_vf(self, host):
        vf = host.held_vfs(2, 0)[0]
        assert [host.write("sriov_numvfs", count) for count in (5, 99, 2)] == ["EBUSY", "ERANGE", "OK"]
        assert host.driver(vf) == "vfio-pci"

    def test_unbinding_a_held_vf_waits_without_affecting_a_pf(self, host):
        vf = host.held_vfs(2, 0)[0]
        writer = host.start("/sys/bus/pci/drivers/vfio-pci/unbind", vf)
        assert not host.subject.settled(writer)
        assert (host.read("sriov_numvfs"), host.put(f"{host.other}/sriov_numvfs", 1)) == ("2", "OK")
        host.release(vf)
        assert writer.result(20) is None
        assert host.driver(vf) == ""

    def test_unbinding_the_pf_waits_for_the_holder_of_a_vf(self, host):
        vf = host.held_vfs(2, 1)[1]
        writer = host.start("/sys/bus/pci/drivers/igb/unbind", host.subject.pf)
        assert not host.subject.settled(writer)
        # The link to the driver disappears first. The driver releases the PF after its VFs.
        assert (host.driver(host.subject.pf), len(host.names(host.subject.pf)), host.read("sriov_totalvfs")) == ("", 1, "7")
        host.release(vf)
        assert writer.result(20) is None
        assert (host.driver(host.subject.pf), host.exists(f"{DEVICES}/{vf}")) == ("", False)

    def test_unbinding_a_held_pf_waits_for_its_holder(self, host):
        pf = host.subject.pf
        assert host.unbind(pf, "igb") == "OK"
        host.bind(pf)
        host.hold(pf)
        assert host.read("enable") == "1"
        writer = host.start("/sys/bus/pci/drivers/vfio-pci/unbind", pf)
        assert not host.subject.settled(writer)
        host.release(pf)
        assert writer.result(20) is None

    def test_a_vf_link_in_another_netns_is_removed_with_the_vf(self, host):
        vf = host.vfs(1, autoprobe=True)[0]
        (name,) = host.names(vf)
        host.subject.control({"move_link": name})
        assert host.names(vf) == []
        assert host.driver(vf) == "igbvf"
        assert host.write("sriov_numvfs", 0) == "OK"
        host.subject.control({"bring_links_back": None})
        assert not host.has_link(name)

    def test_a_macvtap_on_a_vf_is_removed_with_the_vf(self, host):
        (name,) = host.names(host.vfs(1, autoprobe=True)[0])
        host.subject.control({"add_upper": {"name": "tap7", "kind": "macvtap", "lower": name, "mode": "bridge"}})
        assert host.has_link("tap7")
        assert host.write("sriov_numvfs", 0) == "OK"
        assert not host.has_link("tap7")

    def test_vfs_of_another_pf_can_be_bound_while_a_write_waits(self, host):
        assert host.put(f"{host.other}/sriov_drivers_autoprobe", 0) == "OK"
        assert host.put(f"{host.other}/sriov_numvfs", 1) == "OK"
        free = host.link(f"{host.other}/virtfn0")
        vf = host.held_vfs(1, 0)[0]
        writer = host.start(f"{host.path}/sriov_numvfs", "0")
        assert not host.subject.settled(writer)
        host.bind(free)
        assert host.driver(free) == "vfio-pci"
        host.release(vf)
        writer.result(20)
