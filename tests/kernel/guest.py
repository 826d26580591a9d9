"""Runs in the guest: performs operations with the Linux adapters and answers over a virtio port.

Each is done in a thread of its own: one that is stuck in the kernel keeps nobody waiting. Besides operations it takes the
lab's commands: `hold`, `release` and `reset`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vmnic.host.linux import LinuxFiles, LinuxModules
from vmnic.host.linux_links import LinuxLinks
from vmnic.host.ops import Op, Value
from vmnic.host.ports import Host
from vmnic.host.socket import answer

_DEVICES = pathlib.Path("/sys/bus/pci/devices")
_SET_IOMMU, _SET_CONTAINER, _GET_DEVICE = 0x3B66, 0x3B68, 0x3B6A
"""ioctl numbers of linux/vfio.h."""
_TYPE1 = 1


class _OneThread:
    """Netlink sockets belong to one thread."""

    def __init__(self) -> None:
        self._links = LinuxLinks()
        self._executor = ThreadPoolExecutor(1)

    def perform(self, op: Op) -> Value:
        return self._executor.submit(self._links.perform, op).result()


class Guest:
    """The lab's commands."""

    def __init__(self) -> None:
        self._held: dict[str, list[int]] = {}
        self.pfs = sorted(path.parent.name for path in _DEVICES.glob("*/sriov_totalvfs"))

    def control(self, command: dict[str, Any]) -> Any:
        ((name, argument),) = command.items()
        return getattr(self, f"_{name}")(argument)

    def _pfs(self, _: Any) -> list[str]:
        return self.pfs

    def _hold(self, vf: str) -> None:
        """Open a VF's VFIO device, as QEMU does."""
        group = (_DEVICES / vf / "iommu_group").readlink().name
        container = os.open("/dev/vfio/vfio", os.O_RDWR)
        descriptor = os.open(f"/dev/vfio/{group}", os.O_RDWR)
        fcntl.ioctl(descriptor, _SET_CONTAINER, container.to_bytes(4, "little"))
        fcntl.ioctl(container, _SET_IOMMU, _TYPE1)
        device = fcntl.ioctl(descriptor, _GET_DEVICE, vf.encode() + b"\0")
        assert isinstance(device, bytes)
        self._held[vf] = [_device_descriptor(), descriptor, container]

    def _release(self, vf: str) -> None:
        for descriptor in self._held.pop(vf, []):
            os.close(descriptor)

    def _reset(self, _: Any) -> None:
        """Undo whatever a case left behind."""
        for vf in list(self._held):
            self._release(vf)
        for pf in self.pfs:
            path = _DEVICES / pf
            if not (path / "driver").exists():
                pathlib.Path("/sys/bus/pci/drivers/igb/bind").write_text(pf)
            if (path / "sriov_numvfs").read_text().strip() != "0":
                (path / "sriov_numvfs").write_text("0")
            (path / "sriov_drivers_autoprobe").write_text("1")
            name = next((path / "net").iterdir()).name
            subprocess.run(["ip", "link", "set", name, "down", "mtu", "1500"], check=True)


def _device_descriptor() -> int:
    """Give the descriptor that the last ioctl opened: its return value is lost when a buffer is passed."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - likewise
        with contextlib.suppress(OSError):  # the listing's own descriptor is gone by now
            if "vfio-device" in os.readlink(f"/proc/self/fd/{name}"):  # noqa: PTH115 - no path, a kernel's name
                found.append(int(name))
    return max(found)


def _open_port() -> int:
    for path in pathlib.Path("/sys/class/virtio-ports").iterdir():
        if (path / "name").exists() and (path / "name").read_text().strip() == "vmnic":
            return os.open(f"/dev/{path.name}", os.O_RDWR)
    raise SystemExit("the virtio port is not there")


def main() -> None:
    guest = Guest()
    host = Host(files=LinuxFiles(), links=_OneThread(), modules=LinuxModules())
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
    """Read what there is; nothing comes while no one is connected at the other end."""
    while True:
        data = os.read(port, 65536)
        if data:
            return data
        threading.Event().wait(0.1)


if __name__ == "__main__":
    main()
