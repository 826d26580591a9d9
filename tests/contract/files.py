"""The host contract for files and modules."""

from __future__ import annotations

import pytest

from vmnic.host.ops import ListDir, LoadModule, PutFile, ReadFile, ReadLink, UnloadModule, WriteFile

from .subject import DEVICES, Contract

_CONF = "/etc/modprobe.d/vmnic-contract.conf"


class FileContract(Contract):
    def test_an_absent_file_is_ENOENT(self, host):
        assert host.try_(ReadFile(f"{host.path}/no-such-file")) == "ENOENT"
        assert host.write("no-such-file", 1) in ("ENOENT", "EACCES")
        assert host.try_(ListDir(f"{DEVICES}/0000:ff:1f.7")) == "ENOENT"
        assert host.try_(ReadLink(f"{host.path}/no-such-link")) == "ENOENT"

    def test_a_read_only_file_cannot_be_written_by_root(self, host):
        assert host.write("sriov_totalvfs", 1) == "EACCES"
        assert host.write("vendor", 1) == "EACCES"

    def test_a_write_only_file_cannot_be_read_by_root(self, host):
        assert host.try_(ReadFile("/sys/bus/pci/drivers_probe")) == "EACCES"

    def test_a_directory_is_no_file_and_a_file_is_no_directory(self, host):
        assert host.try_(ReadFile(host.path)) == "EISDIR"
        assert host.try_(ListDir(f"{host.path}/vendor")) == "ENOTDIR"
        assert host.try_(ReadFile(f"{host.path}/vendor/x")) == "ENOTDIR"
        assert host.try_(ReadLink(f"{host.path}/vendor")) == "EINVAL"

    def test_all_links_lead_to_the_same_function(self, host):
        number = host.vfs(1)[0]
        for path in (f"{host.path}/virtfn0", f"{DEVICES}/{number}", f"{host.path}/virtfn0/physfn/virtfn0"):
            assert host.get(f"{path}/device") == "0x10ca"
        assert host.get(f"/sys/class/net/{host.name}/device/sriov_numvfs") == "1"

    def test_the_kernel_reports_release_and_boot_id(self, host):
        assert host.get("/proc/sys/kernel/osrelease")
        assert len(host.get("/proc/sys/kernel/random/boot_id")) == 36

    def test_a_file_is_created_replaced_and_removed(self, host):
        for text in ("options igb max_vfs=7\n", "options igb max_vfs=3\n"):
            assert host.try_(PutFile(_CONF, text)) == "OK"
            assert host.get(_CONF) == text.strip()
        assert [host.try_(PutFile(_CONF, "")) for _ in (1, 2)] == ["OK", "OK"]
        assert host.try_(ReadFile(_CONF)) == "ENOENT"

    def test_a_write_to_a_directory_is_EISDIR(self, host):
        assert host.try_(WriteFile(host.path, "1")) == "EISDIR"


class ModuleContract(Contract):
    def test_an_available_module_loads_even_twice(self, host):
        assert [host.try_(LoadModule("macvtap")) for _ in (1, 2)] == ["OK", "OK"]
        assert host.exists("/sys/module/macvtap")

    @pytest.mark.parametrize(("module", "device"), [("tun", "tun"), ("vhost_net", "vhost-net"), ("vfio_pci", "vfio")])
    def test_the_kernel_lists_the_device_of_a_module(self, host, module, device):
        assert host.try_(LoadModule(module)) == "OK"
        assert device in [line.split()[1] for line in host.get("/proc/misc").splitlines()]

    @pytest.mark.parametrize(
        ("module", "path"), [("macvtap", "/sys/class/macvtap"), ("vfio_pci", "/sys/bus/pci/drivers/vfio-pci")]
    )
    def test_a_module_has_a_class_or_a_driver(self, host, module, path):
        assert host.try_(LoadModule(module)) == "OK"
        assert host.exists(path)

    def test_an_unknown_module_is_ENOENT(self, host):
        assert host.try_(LoadModule("no_such_module")) == "ENOENT"

    @pytest.mark.parametrize("name", ["vfio-pci", "vfio_pci"])
    def test_dashes_and_underscores_name_the_same_module(self, host, name):
        assert host.try_(LoadModule(name)) == "OK"
        assert host.exists("/sys/module/vfio_pci")

    def test_a_module_unloads_even_if_it_is_not_loaded(self, host):
        assert host.try_(LoadModule("dummy")) == "OK"
        assert [host.try_(UnloadModule("dummy")) for _ in (1, 2)] == ["OK", "OK"]
        assert not host.exists("/sys/module/dummy")

    def test_a_module_in_use_stays_loaded_and_is_EBUSY(self, host):
        vf = host.vfs(1)[0]
        host.bind(vf)
        host.hold(vf)
        assert host.try_(UnloadModule("vfio_pci")) == "EBUSY"
        assert host.exists("/sys/module/vfio_pci")
        assert host.driver(vf) == "vfio-pci"

    def test_vhost_net_has_a_device_node_while_loaded(self, host):
        seen = []
        for change in (UnloadModule("vhost_net"), LoadModule("vhost_net")):
            assert host.try_(change) == "OK"
            seen.append("vhost-net" in host.subject.perform(ListDir("/dev")))
        assert seen == [False, True]

    def test_unloading_the_driver_removes_links_and_vfs_until_reload(self, host):
        name, vf = host.name, host.vfs(2)[0]
        assert host.try_(UnloadModule("igb")) == "OK"
        assert (host.driver(host.subject.pf), host.exists(f"{DEVICES}/{vf}"), host.has_link(name)) == ("", False, False)
        assert host.read("sriov_totalvfs") == "8"
        assert host.try_(LoadModule("igb")) == "OK"
        assert (host.driver(host.subject.pf), host.read("sriov_numvfs"), len(host.names(host.subject.pf))) == ("igb", "0", 1)

    def test_max_vfs_creates_vfs_on_every_pf_at_driver_load(self, host):
        assert host.try_(PutFile(_CONF, "options igb max_vfs=2\n")) == "OK"
        try:
            assert (host.try_(UnloadModule("igb")), host.try_(LoadModule("igb"))) == ("OK", "OK")
            assert (host.read("sriov_numvfs"), host.get(f"{host.other}/sriov_numvfs")) == ("2", "2")
            assert host.driver(host.link(f"{host.path}/virtfn0")) == "igbvf"
        finally:
            host.subject.perform(PutFile(_CONF, ""))
