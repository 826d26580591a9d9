"""A Linux guest inside the emulated machine: its initial file system, and its shell.

It says what the guest itself sees of a NIC that vmnic gave it.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass

from .lab import Lab, copy_modules, pack_initrd
from .node import Node

__all__ = ["Inner", "Nic", "make_inner_initrd", "system_xml"]

_MODULES = ("virtio_pci", "virtio_console", "virtio_net", "igbvf", "igb", "e1000e")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_UP_S = 240
"""Seconds until the guest's shell must answer. It takes 20 to 60."""
_INIT = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin; export PATH=/sbin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for name in {modules}; do insmod /mod/$name || echo "$name does not load"; done
# It stays open, because the last close would switch the terminal's echo on again.
exec 3<>/dev/hvc0
stty raw -echo <&3
(while true; do sh <&3 2>&1 | cat >&3; done) &
while true; do sleep 1000; done
"""
_NICS = (
    "for d in /sys/class/net/*; do [ -e $d/device ] && echo $(basename $d) $(basename $(readlink $d/device/driver))"
    " $(cat $d/address $d/mtu) $(ls $d/queues | grep -c rx); done"
)


def make_inner_initrd(lab: Lab, target: pathlib.Path) -> None:
    """Pack busybox, ip and ethtool with their libraries, the drivers of all NICs, and an init that serves a shell."""
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        tree = pathlib.Path(work)
        for name in ("bin", "sbin", "proc", "sys", "dev", "mod", "lib64", "lib/x86_64-linux-gnu"):
            (tree / name).mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "/bin/busybox", tree / "bin" / "busybox")
        for program in (pathlib.Path(shutil.which("ip") or "/sbin/ip").resolve(), lab.tools / "sbin" / "ethtool"):
            shutil.copy(program, tree / "sbin")
            for library in _libraries(lab, program):
                place = "lib64" if "ld-linux" in library.name else "lib/x86_64-linux-gnu"
                shutil.copy(library, tree / place)
        order = copy_modules(lab, _MODULES, tree / "mod")
        (tree / "init").write_text(_INIT.format(modules=" ".join(order)))
        (tree / "init").chmod(0o755)
        pack_initrd(tree, target)


def _libraries(lab: Lab, program: pathlib.Path) -> list[pathlib.Path]:
    """Return the shared libraries of a program, which may be in the lab's tools."""
    env = {"LD_LIBRARY_PATH": f"{lab.tools / _LIBRARIES}"}
    shown = subprocess.run(["ldd", str(program)], env=env, capture_output=True, text=True, check=True).stdout
    return [pathlib.Path(path) for path in re.findall(r"/\S+", shown)]


def system_xml(lab: Lab) -> tuple[str, str]:
    """Return the parts of a domain's XML that boot the guest, below `<os>` and below `<devices>`."""
    words = "console=ttyS0 quiet panic=-1 net.ifnames=0 no_timer_check mitigations=off"
    system = f"<kernel>{lab.kernel}</kernel><initrd>/keep/inner.img</initrd><cmdline>{words}</cmdline>"
    devices = (
        "<serial type='file'><source path='/keep/NAME.console'/></serial>"
        "<console type='unix'><source mode='bind' path='/run/NAME.shell'/><target type='virtio'/></console>"
    )
    return system, devices


@dataclass(frozen=True)
class Nic:
    """A NIC as the guest sees it."""

    name: str
    driver: str
    mac: str
    mtu: int
    queues: int


class Inner:
    """The guest of a running domain."""

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self._path = f"/run/{name}.shell"

    def wait_until_up(self) -> None:
        """Wait until the shell answers."""
        self._node.wait_for("the inner guest answers", lambda: self._ask("echo up", 5) == "up", _UP_S)

    def run(self, command: str, timeout_s: float = 60) -> str:
        """Run a shell command in the guest and return its output."""
        answer = self._ask(command, timeout_s)
        assert answer is not None, f"the inner guest does not answer {command!r}"
        return answer

    def nics(self) -> dict[str, Nic]:
        """Return the NICs by MAC address."""
        rows = (line.split() for line in self.run(_NICS).splitlines())
        found = [Nic(name, driver, mac, int(mtu), int(queues)) for name, driver, mac, mtu, queues in rows]
        return {nic.mac: nic for nic in found}

    def bring_up(self, name: str, address: str) -> None:
        """Set a link up and give it an address."""
        self.run(f"ip link set {name} up; /sbin/ip address add {address} dev {name}")

    def reaches(self, target: str, *, size: int = 56) -> bool:
        """Return whether a target answers one of ten pings. The first ones may be lost while a link comes up."""
        script = f"for n in 1 2 3 4 5 6 7 8 9 10; do ping -c 1 -W 2 -s {size} {target} >/dev/null && echo yes && break; done"
        return self.run(script, 90) == "yes"

    def _ask(self, command: str, timeout_s: float) -> str | None:
        asked = {"path": self._path, "command": command, "timeout_s": timeout_s}
        found: str | None = self._node.guest.control({"ask_inner": asked}, timeout_s + 120)
        return found
