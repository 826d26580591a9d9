"""The program in the guest, which performs operations with the Linux adapters and answers over a virtio port.

Each operation runs in its own thread, so that one that is stuck in the kernel blocks no other. Besides operations it takes
commands, which are those of the simulated host, executed for real, and some that run programs.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vmnic.host.events import KernelEvents, encode_event
from vmnic.host.linux import LinuxFiles, LinuxModules
from vmnic.host.linux_links import LinuxLinks
from vmnic.host.ops import Op, Value
from vmnic.host.ports import Host
from vmnic.host.socket import answer

from .gate import Gate
from .shells import Shells
from .vfio import open_device, open_group
from .writers import Writers

_DEVICES = pathlib.Path("/sys/bus/pci/devices")


class _OneThread:
    """Links of one thread, to which the netlink sockets belong."""

    def __init__(self) -> None:
        self._links = LinuxLinks()
        self._executor = ThreadPoolExecutor(1)

    def perform(self, op: Op) -> Value:
        return self._executor.submit(self._links.perform, op).result()


class Guest:
    """The commands."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._gated: Gate | None = None
        self._zygote: subprocess.Popen[bytes] | None = None
        self._held: dict[str, contextlib.ExitStack] = {}
        self._uppers: list[str] = []
        self._apart: list[str] = []
        self._addressed: list[str] = []
        self._renamed: list[tuple[str, str]] = []
        self._events: KernelEvents | None = None
        self._started: dict[int, subprocess.Popen[bytes]] = {}
        self._writers = Writers()
        self._shells = Shells()
        self.pfs = sorted(path.parent.name for path in _DEVICES.glob("*/sriov_totalvfs"))

    def control(self, command: dict[str, Any]) -> Any:
        ((name, argument),) = command.items()
        return getattr(self, f"_{name}")(argument)

    def _pfs(self, _: Any) -> list[str]:
        return self.pfs

    def _hold(self, vf: str) -> None:
        """Open a VF's VFIO device, as QEMU does."""
        self._held[vf] = open_device(_DEVICES / vf)

    def _hold_group(self, vf: str) -> None:
        """Open a VF's VFIO group and a container, but not its device."""
        self._held[vf] = open_group(_DEVICES / vf)

    def _release(self, vf: str) -> None:
        self._held.pop(vf, contextlib.ExitStack()).close()

    def _start_writer(self, argument: dict[str, str]) -> int:
        return self._writers.start(**argument)

    def _writer_state(self, pid: int) -> str:
        return self._writers.state(pid)

    def _kill_writer(self, pid: int) -> None:
        self._writers.kill(pid)

    def _add_upper(self, argument: dict[str, Any]) -> None:
        """Create a virtual link above another one, which is either a port of a bridge or the lower device."""
        name, kind, lower = argument["name"], argument["kind"], argument["lower"]
        if argument.get("is_master"):
            _ip("link", "add", name, "type", kind)
            _ip("link", "set", lower, "master", name)
        else:
            options = ("id", "7") if kind == "vlan" else ("mode", argument["mode"]) if "mode" in argument else ()
            _ip("link", "add", "link", lower, "name", name, "type", kind, *options)
        self._uppers.append(name)

    def _assign_address(self, argument: dict[str, str]) -> None:
        _ip("address", "add", argument["address"], "dev", argument["link"])
        self._addressed.append(argument["link"])

    def _remove_addresses(self, link: str) -> None:
        _ip("address", "flush", "dev", link)

    def _move_link(self, link: str) -> str:
        """Move a link to a new network namespace, as a CNI plugin does, and return the namespace's name."""
        name = f"apart{len(self._apart)}"
        _ip("netns", "add", name)
        self._apart.append(name)
        _ip("link", "set", link, "netns", name)
        return name

    def _rename_link(self, argument: dict[str, str]) -> None:
        _ip("link", "set", argument["link"], "name", argument["name"])
        self._renamed.append((argument["name"], argument["link"]))

    def _heard(self, _: Any) -> list[dict[str, str]]:
        """Return the kernel's events since the last call. The first call starts to listen."""
        if self._events is None:
            self._events = KernelEvents()
        return [encode_event(event) for event in self._events.heard()]

    def _bring_links_back(self, _: Any) -> None:
        """Delete the other namespaces, which returns the links of hardware a moment later."""
        while self._apart:
            _ip("netns", "delete", self._apart.pop())

    def _run(self, argument: dict[str, Any]) -> dict[str, Any]:
        """Run a program to its end and return its exit code and output."""
        done = subprocess.run(
            argument["argv"], env=os.environ | argument.get("env", {}), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
        )  # fmt: skip
        return {"code": done.returncode, "text": done.stdout}

    def _ask_inner(self, argument: dict[str, Any]) -> str | None:
        """Run a command in the shell of a domain's guest. The answer is None if there is none in time."""
        return self._shells.ask(**argument)

    def _start(self, argument: dict[str, Any]) -> int:
        """Start a program in the background, with its output in a file."""
        with pathlib.Path(argument["log"]).open("ab") as log:
            process = subprocess.Popen(
                argument["argv"], env=os.environ | argument.get("env", {}), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._started[process.pid] = process
        return process.pid

    def _signal(self, argument: dict[str, int]) -> None:
        """Send a signal to a started program."""
        self._started[argument["pid"]].send_signal(argument["number"])

    def _wait(self, pid: int) -> int:
        """Wait for the end of a started program and return its exit code."""
        return self._started.pop(pid).wait()

    def _reboot(self, _: Any) -> None:
        """Flush file systems, and reset the machine as its reset button does."""
        os.sync()
        pathlib.Path("/proc/sysrq-trigger").write_text("b")

    def _fork(self, argument: dict[str, Any]) -> int:
        """Start an agent as a fork of a process that has done its imports.

        Returns:
            Its process id, which is also that of its process group.
        """
        if self._zygote is None:
            command = [sys.executable, "-m", "tests.kernel.zygote"]
            self._zygote = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        asked, told = self._zygote.stdin, self._zygote.stdout
        assert asked is not None
        assert told is not None
        asked.write(json.dumps(argument).encode() + b"\n")
        asked.flush()
        return int(told.readline())

    def _gate(self, argument: dict[str, Any]) -> Any:
        """Execute a command of the gate, which the first one creates."""
        self._gated = self._gated or Gate(self._host)
        return self._gated.command(argument)

    def _let_go(self, _: Any) -> None:
        """Release all held devices."""
        for vf in list(self._held):
            self._release(vf)

    def _reset(self, _: Any) -> None:
        """Undo everything that a case left behind."""
        self._let_go(None)
        self._bring_links_back(None)
        if self._events is not None:
            self._events.close()
            self._events = None
        while self._renamed:
            present, former = self._renamed.pop()
            if pathlib.Path("/sys/class/net", present).exists():
                _ip("link", "set", present, "name", former)
        while self._uppers:
            name = self._uppers.pop()
            if pathlib.Path("/sys/class/net", name).exists():
                _ip("link", "delete", name)
        if not all(pathlib.Path("/sys/module", name).exists() for name in ("igb", "vfio_pci")):
            subprocess.run(["modprobe", "-a", "igb", "igbvf", "vfio-pci"], check=True)
        for pf in self.pfs:
            self._reset_pf(_DEVICES / pf)

    def _reset_pf(self, path: pathlib.Path) -> None:
        driver = path / "driver"
        if driver.exists() and driver.readlink().name != "igb":
            (driver / "unbind").write_text(path.name)
        if not driver.exists():
            (path / "driver_override").write_text("\n")
            pathlib.Path("/sys/bus/pci/drivers/igb/bind").write_text(path.name)
        if (path / "sriov_numvfs").read_text().strip() != "0":
            (path / "sriov_numvfs").write_text("0")
        (path / "sriov_drivers_autoprobe").write_text("1")
        link = next((path / "net").iterdir())
        if link.name in self._addressed:
            _ip("address", "flush", "dev", link.name)
            self._addressed.remove(link.name)
        if int((link / "flags").read_text(), 16) & 1 or (link / "mtu").read_text().strip() != "1500":
            _ip("link", "set", link.name, "down", "mtu", "1500")


def _ip(*words: str) -> None:
    """Run `ip`, whose last words name the kernel's refusal.

    Raises:
        OSError: The kernel refused.
    """
    done = subprocess.run(["ip", *words], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip()
        raise OSError(next((code for code in errno.errorcode if said.endswith(os.strerror(code))), errno.EIO), said)


def _open_port() -> int:
    for path in pathlib.Path("/sys/class/virtio-ports").iterdir():
        if (path / "name").exists() and (path / "name").read_text().strip() == "vmnic":
            return os.open(f"/dev/{path.name}", os.O_RDWR)
    raise SystemExit("the virtio port is not there")


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    host = Host(files=LinuxFiles(), links=_OneThread(), modules=LinuxModules())
    guest = Guest(host)
    port = _open_port()
    sending = threading.Lock()

    def serve(line: bytes) -> None:
        reply = json.dumps(answer(host, json.loads(line), guest.control)).encode() + b"\n"
        with sending:
            while reply:
                reply = reply[os.write(port, reply) :]

    rest = b""
    while True:
        *lines, rest = (rest + _read(port)).split(b"\n")
        for line in lines:
            threading.Thread(target=serve, args=(line,), daemon=True).start()


def _read(port: int) -> bytes:
    """Read what is available. Reads return nothing while no process is connected at the other end."""
    while True:
        data = os.read(port, 65536)
        if data:
            return data
        threading.Event().wait(0.1)


if __name__ == "__main__":
    main()
