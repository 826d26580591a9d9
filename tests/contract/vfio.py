"""The host contract for VFIO, with the signs of an open device and the effects of a group that is open without a device."""

from __future__ import annotations

from vmnic.host.ops import ListDir, UnloadModule

from .subject import DEVICES, Contract, Host


def _told(host: Host, vf: str) -> tuple[str, str]:
    return host.get(f"{DEVICES}/{vf}/enable"), host.get(f"{DEVICES}/{vf}/power/runtime_status")


_OPEN, _CLOSED = ("1", "active"), ("0", "suspended")


class VfioContract(Contract):
    def test_enable_and_runtime_status_follow_an_open_device(self, host):
        vf = host.vfs(1)[0]
        host.bind(vf)
        seen = [_told(host, vf)]
        host.hold(vf)
        seen.append(_told(host, vf))
        host.release(vf)
        assert [*seen, _told(host, vf)] == [_CLOSED, _OPEN, _CLOSED]

    def test_enable_and_runtime_status_show_a_kernel_driver(self, host):
        vf = host.vfs(1, autoprobe=True)[0]
        assert _told(host, vf) == _OPEN

    def test_a_vf_without_a_driver_is_disabled_but_active(self, host):
        vf = host.vfs(1)[0]
        assert _told(host, vf) == ("0", "active")

    def test_a_vf_without_a_driver_cannot_be_held(self, host):
        vf = host.vfs(1)[0]
        try:
            host.hold(vf)
        except OSError:
            return
        raise AssertionError("it was opened")

    def test_a_group_with_a_closed_vf_can_be_held_again(self, host):
        vf = host.held_vfs(1, 0)[0]
        host.release(vf)
        host.hold(vf)
        assert _told(host, vf) == _OPEN
        assert vf in host.subject.perform(ListDir("/sys/bus/pci/drivers/vfio-pci"))

    def test_an_open_group_alone_is_invisible_and_excludes_others(self, host):
        vf = self._vf_with_open_group(host)
        assert _told(host, vf) == _CLOSED
        assert host.control("hold", vf) == "EBUSY"
        host.release(vf)
        assert host.control("hold", vf) == "OK"

    def test_an_open_group_alone_does_not_keep_a_vf(self, host):
        vf = self._vf_with_open_group(host)
        assert host.write("sriov_numvfs", 0) == "OK"
        assert not host.exists(f"{DEVICES}/{vf}")
        host.release(vf)

    def test_an_open_group_alone_does_not_survive_an_unbind(self, host):
        vf = self._vf_with_open_group(host)
        group = host.link(f"{DEVICES}/{vf}/iommu_group")
        assert host.unbind(vf, "vfio-pci") == "OK"
        assert group not in host.subject.perform(ListDir("/dev/vfio"))
        host.bind(vf)
        assert host.control("hold", vf) == "OK"

    def test_an_open_group_alone_does_not_keep_the_module(self, host):
        vf = self._vf_with_open_group(host)
        assert host.try_(UnloadModule("vfio_pci")) == "OK"
        assert host.driver(vf) == ""

    def _vf_with_open_group(self, host: Host) -> str:
        vf = host.vfs(1)[0]
        host.bind(vf)
        assert host.control("hold_group", vf) == "OK"
        return vf
