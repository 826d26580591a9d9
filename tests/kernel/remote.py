"""The outer end of the guest's virtio port, with many requests at a time over one connection, and QEMU's monitor."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent import futures
from typing import Any

from tests.harness.api import wait_for
from vmnic.host.codec import decode_error, decode_value, encode_op
from vmnic.host.events import HostEvent, decode_event
from vmnic.host.ops import ListDir, Op, ReadFile

from .machine import nic

__all__ = ["Monitor", "RemoteHost", "RemotePending"]


_ANSWER_S = 240
"""Seconds for the slowest program on a busy machine."""
_BOOT_ID = ReadFile("/proc/sys/kernel/random/boot_id")


class RemotePending:
    """A request that may still be blocked in the guest's kernel."""

    def __init__(self) -> None:
        self.future: futures.Future[Any] = futures.Future()

    def done(self) -> bool:
        return self.future.done()

    def result(self, timeout_s: float) -> Any:
        return decode_value(self.future.result(timeout_s))


class Monitor:
    """QEMU's monitor, which controls what the guest cannot."""

    def __init__(self, path: pathlib.Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")
        self._lines.readline()  # The greeting.
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: Any) -> Any:
        """Execute a command and return its answer. Events in between are skipped."""
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        for line in self._lines:
            reply = json.loads(line)
            if "error" in reply:
                raise OSError(reply["error"]["desc"])
            if "return" in reply:
                return reply["return"]
        raise OSError("QEMU is gone")

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


class RemoteHost:
    """A guest, which is a contract's subject and a machine to run programs on."""

    _PATIENCE_S = 4.0
    """Seconds after which an operation counts as blocked. An emulated machine needs up to 3 s for the slowest one."""

    def __init__(self, port: pathlib.Path, qmp: pathlib.Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(port))
        self._waiting: dict[int, RemotePending] = {}
        self._lock = threading.Lock()
        self._next = 0
        self.gone = False
        """Whether the machine has disconnected by itself."""
        self._closed = False
        self._receiver = threading.Thread(target=self._receive, daemon=True)
        self._receiver.start()
        self.monitor = Monitor(qmp)
        self.pfs: list[str] = []
        self._removed: list[str] = []

    def greet(self, timeout_s: float) -> None:
        """Read the PFs.

        Raises:
            TimeoutError: The guest does not answer.
        """
        self.pfs = self.control({"pfs": None}, timeout_s)

    @property
    def pf(self) -> str:
        return self.pfs[0]

    @property
    def other_pf(self) -> str:
        return self.pfs[1]

    @property
    def crowded_pf(self) -> str:
        """Return the PF that shares its IOMMU group, if the machine has it."""
        return self.pfs[-1]

    def perform(self, op: Op) -> Any:
        return self.start(op).result(_ANSWER_S)

    def start(self, op: Op) -> RemotePending:
        return self._send({"op": encode_op(op)})

    def control(self, command: Mapping[str, Any], timeout_s: float = _ANSWER_S) -> Any:
        if "set_cable" in command:
            return self._set_cable(**command["set_cable"])
        if "remove_device" in command:
            return self._remove_nic(command["remove_device"])
        if "add_device" in command:
            return self._add_nic(command["add_device"])
        return self._send({"control": command}).future.result(timeout_s)

    def run(self, *argv: str, env: Mapping[str, str] | None = None, timeout_s: float = _ANSWER_S) -> str:
        """Run a program in the guest and return its output. A failed program fails the test."""
        done = self.control({"run": {"argv": argv, "env": dict(env or {})}}, timeout_s)
        assert done["code"] == 0, f"{' '.join(argv)} ended with {done['code']}: {done['text'][-3000:]}"
        return str(done["text"])

    def try_run(self, *argv: str, timeout_s: float = _ANSWER_S) -> tuple[int, str]:
        """Run a program and return its exit code and output."""
        done = self.control({"run": {"argv": argv}}, timeout_s)
        return done["code"], done["text"]

    def start_program(self, argv: Sequence[str], *, log: str, env: Mapping[str, str] | None = None) -> int:
        return int(self.control({"start": {"argv": list(argv), "log": log, "env": dict(env or {})}}))

    def signal(self, pid: int, number: int) -> None:
        self.control({"signal": {"pid": pid, "number": int(number)}})

    def reboot(self, timeout_s: float = 150) -> None:
        """Reset the machine and wait until it answers after the boot."""
        boot = self.perform(_BOOT_ID)
        self._send({"control": {"reboot": None}})
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(futures.TimeoutError):
                if self.start(_BOOT_ID).result(5) != boot:
                    self.greet(60)
                    return
        raise AssertionError(f"the guest does not answer {timeout_s:g} s after its restart")

    def heard(self) -> list[HostEvent]:
        return [decode_event(one) for one in self.control({"heard": None})]

    def settled(self, pending: RemotePending) -> bool:
        try:
            pending.future.result(self._PATIENCE_S)
        except futures.TimeoutError:
            return False
        except OSError:
            return True
        return True

    def reset(self) -> None:
        while self._removed:
            self.control({"let_go": None})
            self._add_nic(self._removed[-1])
        for pf in self.pfs:
            self.monitor.ask("set_link", name=self._nic(pf), up=True)
        self.control({"reset": None})

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._receiver.join()
        self._socket.close()
        self.monitor.close()

    def _set_cable(self, link: str, plugged: bool) -> None:
        """Pull or plug the cable of a PF, named by its link."""
        pf = next(pf for pf in self.pfs if link in self.perform(ListDir(f"/sys/bus/pci/devices/{pf}/net")))
        self.monitor.ask("set_link", name=self._nic(pf), up=plugged)

    def _remove_nic(self, pf: str) -> None:
        """Press the button of the PF's slot. The kernel turns the slot off five seconds later."""
        self._removed.append(pf)
        self.monitor.ask("device_del", id=self._nic(pf))

    def _add_nic(self, pf: str) -> None:
        """Insert the NIC again once it is out, and wait for its driver."""
        name, number = self._nic(pf), self.pfs.index(pf) + 1
        wait_for("it is out", lambda: name not in self._plugged())
        self.monitor.ask("device_add", driver="igb", id=name, **nic(number))
        self._removed.remove(pf)
        wait_for("its driver has it", lambda: self.try_run("ls", f"/sys/bus/pci/devices/{pf}/net")[0] == 0)

    def _plugged(self) -> list[str]:
        return [part["name"] for part in self.monitor.ask("qom-list", path="/machine/peripheral")]

    def _nic(self, pf: str) -> str:
        """Return QEMU's name of a PF's NIC."""
        return f"igb{self.pfs.index(pf) + 1}"

    def _send(self, request: dict[str, Any]) -> RemotePending:
        pending = RemotePending()
        with self._lock:
            self._next += 1
            self._waiting[self._next] = pending
            self._socket.sendall(json.dumps({"id": self._next, **request}).encode() + b"\n")
        return pending

    def _receive(self) -> None:
        """Pass answers to waiting requests, until the guest or this end disconnects."""
        with contextlib.suppress(OSError, ValueError):
            self._hand_out()
        self.gone = not self._closed
        with self._lock:
            waiting = list(self._waiting.values())
        for pending in waiting:
            with contextlib.suppress(futures.InvalidStateError):
                pending.future.set_exception(OSError("the machine is gone"))

    def _hand_out(self) -> None:
        with self._socket.makefile("rb") as lines:
            self._hand_out_lines(lines)

    def _hand_out_lines(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            reply = json.loads(line)
            waiting = self._waiting.pop(reply["id"], None)
            if waiting is None:
                continue
            if "error" in reply:
                waiting.future.set_exception(decode_error(reply["error"]))
            else:
                waiting.future.set_result(reply.get("value"))
