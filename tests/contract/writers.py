"""The host contract for a writer that is killed while it waits in the kernel. Its write continues without it."""

from __future__ import annotations

from tests.harness.api import wait_for

from .subject import DEVICES, Contract, Host


class WriterContract(Contract):
    def test_a_killed_writer_of_zero_waits_for_the_holder_of_a_vf(self, host):
        vfs = host.held_vfs(2, 1)
        writer = self._killed(host, f"{host.path}/sriov_numvfs", "0", vfs[1])
        reader = host.start(f"{host.path}/sriov_numvfs")
        assert not host.subject.settled(reader)
        assert (host.subject.control({"writer_state": writer}), host.exists(f"{DEVICES}/{vfs[1]}")) == ("D", True)
        host.release(vfs[1])
        assert reader.result(20) == "0"
        wait_for("the writer ends", lambda: host.subject.control({"writer_state": writer}) == "")
        assert not any(host.exists(f"{DEVICES}/{vf}") for vf in vfs)

    def test_an_unbind_continues_after_its_writer_is_killed(self, host):
        vf = host.held_vfs(1, 0)[0]
        writer = self._killed(host, "/sys/bus/pci/drivers/vfio-pci/unbind", vf, vf)
        host.release(vf)
        wait_for("the writer ends", lambda: host.subject.control({"writer_state": writer}) == "")
        assert (host.driver(vf), host.read("sriov_numvfs")) == ("", "1")

    def _killed(self, host: Host, path: str, text: str, vf: str) -> int:
        """Start a writer that waits for the holder of a VF, and kill it."""
        writer = host.subject.control({"start_writer": {"path": path, "text": text}})
        wait_for("it waits", lambda: (host.driver(vf), host.subject.control({"writer_state": writer})) == ("", "S"))
        host.subject.control({"kill_writer": writer})
        wait_for("no signal reaches it", lambda: host.subject.control({"writer_state": writer}) == "D")
        return int(writer)
