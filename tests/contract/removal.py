"""The host contract for a NIC that is removed from its slot and inserted again."""

from __future__ import annotations

import pytest

from tests.harness.api import wait_for

from .events import Listener
from .subject import DEVICES, Contract, Subject


class RemovalContract(Contract):
    @pytest.fixture
    def host(self, subject: Subject) -> Listener:
        return Listener(subject)

    def test_removed_nic_waits_for_held_vf_and_returns_as_new(self, host):
        pf, name = host.subject.pf, host.name
        vfs = host.held_vfs(2, 0)
        host.functions()
        host.subject.control({"remove_device": pf})
        wait_for("the VF's driver lets go", lambda: host.driver(vfs[0]) == "")
        assert (host.driver(pf), host.names(pf), host.functions(), host.links(name)) == ("", [name], [], [])
        host.release(vfs[0])
        wait_for("it is gone", lambda: not host.exists(host.path))
        self._check_gone(host, name, vfs)
        host.subject.control({"add_device": pf})
        wait_for("its driver has it", lambda: host.names(pf) == [name])
        assert (host.read("sriov_numvfs"), host.read("sriov_drivers_autoprobe"), host.info().up) == ("0", "1", False)
        wait_for("it is told", lambda: host.links(name)[-1:] == [f"newlink {name}"])
        assert host.functions() == [f"add {pf}", f"bind {pf}"]

    def _check_gone(self, host: Listener, name: str, vfs: list[str]) -> None:
        pf = host.subject.pf
        assert not any(host.exists(f"{DEVICES}/{vf}") for vf in vfs)
        assert (host.has_link(name), host.links(name)) == (False, [f"dellink {name}"])
        first, second = vfs
        gone = [f"unbind {first}", f"remove {first}", f"remove {second}", f"unbind {pf}", f"remove {pf}"]
        wait_for("it is told", lambda: host.functions() == gone)
