"""The host contract for drivers, with bindings, probes and the values that files accept."""

from __future__ import annotations

import pytest

from vmnic.host.ops import ListDir

from .subject import DEVICES, Contract


class DriverContract(Contract):
    def test_autoprobe_on_binds_new_vfs_to_the_kernel_driver(self, host):
        assert host.driver(host.vfs(1, autoprobe=True)[0]) == "igbvf"

    def test_autoprobe_off_leaves_new_vfs_unbound(self, host):
        vf = host.vfs(1)[0]
        assert (host.driver(vf), host.names(vf)) == ("", [])

    @pytest.mark.parametrize(("text", "answer"), [("y", "1"), ("on", "1"), ("N", "0"), ("off", "0"), ("1\n", "1")])
    def test_autoprobe_accepts_words(self, host, text, answer):
        assert host.write("sriov_drivers_autoprobe", text) == "OK"
        assert host.read("sriov_drivers_autoprobe") == answer

    @pytest.mark.parametrize("text", ["2", "\n", "o", "x"])
    def test_autoprobe_accepts_only_a_boolean(self, host, text):
        assert host.write("sriov_drivers_autoprobe", text) == "EINVAL"

    def test_autoprobe_applies_only_when_vfs_are_created(self, host):
        vf = host.vfs(1)[0]
        assert host.write("sriov_drivers_autoprobe", 1) == "OK"
        assert host.driver(vf) == ""
        assert host.probe(vf) == "OK"
        assert host.driver(vf) == "igbvf"

    @pytest.mark.parametrize("driver", ["vfio-pci", "igbvf"])
    def test_an_override_and_a_probe_bind_without_autoprobe(self, host, driver):
        vf = host.vfs(1)[0]
        host.bind(vf, driver)
        assert host.driver(vf) == driver

    def test_a_probe_needs_an_override_or_autoprobe(self, host):
        vf = host.vfs(1)[0]
        assert host.probe(vf) == "OK"
        assert host.driver(vf) == ""

    def test_a_probe_with_a_missing_driver_does_nothing(self, host):
        vf = host.vfs(1)[0]
        host.bind(vf, "no-such-driver")
        assert host.driver(vf) == ""

    def test_a_probe_with_an_unsuitable_driver_binds_nothing(self, host):
        vf = host.vfs(1)[0]
        host.bind(vf, "igb")
        assert host.driver(vf) == ""

    def test_a_probe_of_a_bound_function_does_nothing(self, host):
        vf = host.vfs(1, autoprobe=True)[0]
        assert (host.override(vf, "vfio-pci"), host.probe(vf)) == ("OK", "OK")
        assert host.driver(vf) == "igbvf"

    @pytest.mark.parametrize(("address", "answer"), [("0000:ff:1f.7", "ENODEV"), ("nonsense", "ENODEV"), ("\n", "ENODEV")])
    def test_a_probe_of_an_unknown_address_is_refused(self, host, address, answer):
        assert host.probe(address) == answer

    def test_bind_to_vfio_without_an_override_is_ENODEV(self, host):
        vf = host.vfs(1)[0]
        assert host.put("/sys/bus/pci/drivers/vfio-pci/bind", vf) == "ENODEV"

    def test_bind_to_vfio_with_an_override_binds(self, host):
        vf = host.vfs(1)[0]
        assert host.override(vf, "vfio-pci") == "OK"
        assert host.put("/sys/bus/pci/drivers/vfio-pci/bind", vf) == "OK"
        assert host.driver(vf) == "vfio-pci"

    def test_bind_of_a_bound_function_is_EBUSY(self, host):
        vf = host.vfs(1, autoprobe=True)[0]
        assert host.override(vf, "vfio-pci") == "OK"
        assert host.put("/sys/bus/pci/drivers/vfio-pci/bind", vf) == "EBUSY"

    def test_bind_to_the_kernel_driver_without_autoprobe_is_ENODEV(self, host):
        vf = host.vfs(1)[0]
        assert host.put("/sys/bus/pci/drivers/igbvf/bind", vf) == "ENODEV"

    def test_bind_of_unknown_address_or_to_unknown_driver_fails(self, host):
        assert host.put("/sys/bus/pci/drivers/vfio-pci/bind", "0000:ff:1f.7") == "ENODEV"
        assert host.put("/sys/bus/pci/drivers/no-such-driver/bind", host.subject.pf) == "ENOENT"

    def test_unbind_frees_a_function_and_a_second_unbind_is_ENODEV(self, host):
        vf = host.vfs(1, autoprobe=True)[0]
        assert host.unbind(vf, "igbvf") == "OK"
        assert host.driver(vf) == ""
        assert host.unbind(vf, "igbvf") == "ENODEV"

    def test_unbind_from_another_driver_is_ENODEV(self, host):
        vf = host.vfs(1, autoprobe=True)[0]
        assert host.unbind(vf, "vfio-pci") == "ENODEV"
        assert host.driver(vf) == "igbvf"

    def test_a_vf_changes_from_the_kernel_driver_to_vfio_and_back(self, host):
        vf = host.vfs(1, autoprobe=True)[0]
        for before, after in (("igbvf", "vfio-pci"), ("vfio-pci", "igbvf")):
            assert host.unbind(vf, before) == "OK"
            host.bind(vf, after)
            assert host.driver(vf) == after

    def test_an_override_survives_an_unbind(self, host):
        vf = host.vfs(1)[0]
        host.bind(vf)
        assert host.unbind(vf, "vfio-pci") == "OK"
        assert host.get(f"{DEVICES}/{vf}/driver_override") == "vfio-pci"

    def test_an_override_is_below_a_page_and_newline_clears_it(self, host):
        vf = host.vfs(1)[0]
        path = f"{DEVICES}/{vf}/driver_override"
        assert [host.override(vf, "x" * count) for count in (5000, 4095, 4094)] == ["EINVAL", "EINVAL", "OK"]
        assert host.override(vf, "vfio-pci\n") == "OK"
        assert host.get(path) == "vfio-pci"
        assert host.override(vf, "\n") == "OK"
        assert host.get(path) == "(null)"

    def test_drivers_list_the_functions_bound_to_them(self, host):
        vfs = host.vfs(2)
        host.bind(vfs[0])
        listed = host.subject.perform(ListDir("/sys/bus/pci/drivers/vfio-pci"))
        assert (vfs[0] in listed, vfs[1] in listed) == (True, False)

    def test_each_vf_has_an_iommu_group_of_its_own(self, host):
        vfs = host.vfs(3)
        assert len({host.link(f"{DEVICES}/{vf}/iommu_group") for vf in vfs}) == 3
        assert list(host.subject.perform(ListDir(f"{DEVICES}/{vfs[0]}/iommu_group/devices"))) == [vfs[0]]

    def test_a_group_has_its_device_node_while_vfio_drives_a_member(self, host):
        vf = host.vfs(1)[0]
        group = host.link(f"{DEVICES}/{vf}/iommu_group")
        seen = [group in host.subject.perform(ListDir("/dev/vfio"))]
        host.bind(vf)
        seen.append(group in host.subject.perform(ListDir("/dev/vfio")))
        assert host.unbind(vf, "vfio-pci") == "OK"
        assert [*seen, group in host.subject.perform(ListDir("/dev/vfio"))] == [False, True, False]

    def test_a_vf_on_vfio_pci_names_its_vfio_device(self, host):
        vf, other = host.vfs(2)
        host.bind(vf)
        (name,) = host.subject.perform(ListDir(f"{DEVICES}/{vf}/vfio-dev"))
        assert name.startswith("vfio")
        assert host.try_(ListDir(f"{DEVICES}/{other}/vfio-dev")) == "ENOENT"

    def test_a_group_lists_its_reserved_regions(self, host):
        text = host.get(f"{DEVICES}/{host.subject.pf}/iommu_group/reserved_regions")
        assert "0x00000000fee00000 0x00000000feefffff msi" in text.splitlines()
        assert not [line for line in text.splitlines() if line.endswith(" direct")]

    def test_a_port_without_acs_is_a_bridge_on_pcieport(self, host):
        group = f"{DEVICES}/{host.subject.crowded_pf}/iommu_group/devices"
        (port,) = set(host.subject.perform(ListDir(group))) - {host.subject.crowded_pf}
        assert host.get(f"{group}/{port}/class").startswith("0x0604")
        assert host.link(f"{group}/{port}/driver") == "pcieport"

    def test_a_whole_nic_below_a_port_can_be_opened(self, host):
        crowded = host.subject.crowded_pf
        assert host.unbind(crowded, "igb") == "OK"
        try:
            host.bind(crowded)
            host.hold(crowded)
            assert host.get(f"{DEVICES}/{crowded}/enable") == "1"
        finally:
            host.release(crowded)
            assert host.unbind(crowded, "vfio-pci") == "OK"
            assert host.override(crowded, "\n") == "OK"
            assert host.probe(crowded) == "OK"

    def test_without_acs_vfs_share_a_group_and_vfio_cannot_open_them(self, host):
        path = f"{DEVICES}/{host.subject.crowded_pf}"
        assert host.put(f"{path}/sriov_drivers_autoprobe", 0) == "OK"
        assert host.put(f"{path}/sriov_numvfs", 1) == "OK"
        vf = host.link(f"{path}/virtfn0")
        members = set(host.subject.perform(ListDir(f"{DEVICES}/{vf}/iommu_group/devices")))
        assert members > {vf, host.subject.crowded_pf}
        host.bind(vf)
        assert host.driver(vf) == "vfio-pci"
        with pytest.raises(PermissionError):
            host.hold(vf)


class NoIommuContract(Contract):
    """The contract of a machine without an IOMMU, which needs its own host."""

    def test_functions_have_no_group_and_no_iommu_is_listed(self, host):
        assert not host.exists(f"{host.path}/iommu_group/devices")
        assert list(host.subject.perform(ListDir("/sys/class/iommu"))) == []

    def test_vfio_binds_no_vf_and_the_probe_still_succeeds(self, host):
        vf = host.vfs(1)[0]
        host.bind(vf)
        assert host.driver(vf) == ""

    def test_bind_to_vfio_is_EINVAL(self, host):
        vf = host.vfs(1)[0]
        assert host.override(vf, "vfio-pci") == "OK"
        assert host.put("/sys/bus/pci/drivers/vfio-pci/bind", vf) == "EINVAL"
