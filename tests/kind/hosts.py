"""The simulated hosts beside a cluster's nodes: each serves a socket and a `/sys`, in a directory that its node sees as /fuse."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

import yaml

from tests.harness.api import wait_for
from tests.harness.processes import Processes, stop_recorded
from vmnic.host.socket import SocketPort

from .engine import Engine

__all__ = ["SimulatedHosts"]

_COUNT = 64
"""IOMMU groups and functions that a node has device files for: each the null device, which opens and holds nothing."""


class SimulatedHosts:
    """The hosts of one cluster. Their processes and mounts outlive the one that starts them."""

    def __init__(self, directory: pathlib.Path, engine: Engine) -> None:
        self.directory = directory
        self._engine = engine
        self._processes: Processes | None = None

    def of(self, node: str) -> pathlib.Path:
        """Give the directory that the node sees as /fuse."""
        return self.directory / node

    def share(self, nodes: tuple[str, ...]) -> None:
        """Make the directories shared mounts, so that what is mounted there later shows in nodes and running pods."""
        for node in nodes:
            (self.of(node) / "sys").mkdir(parents=True, exist_ok=True)
        if not _is_mounted(self.directory):
            _run("mount", "--bind", self.directory, self.directory)
            _run("mount", "--make-shared", self.directory)

    def start(self, node: str, spec: dict[str, Any]) -> None:
        """Start a node's host, or start it again."""
        if self._processes is None:
            self._processes = Processes(self.directory.parent, die_with_parent=False)
        if self._processes.running(f"simhost-{node}"):
            self._processes.kill(f"simhost-{node}")
        self._unmount(node)
        description = self.directory.parent / f"{node}.yaml"
        description.write_text(yaml.safe_dump(spec))
        place = self.of(node)
        command = [sys.executable, "-m", "vmnic", "simhost", "--spec", description, "--socket", place / "host.sock"]
        self._processes.start(f"simhost-{node}", [*command, "--fuse", place / "sys"])
        wait_for(f"the /sys of {node} is mounted", (place / "sys" / "bus").exists, 20)

    def make_devices(self, node: str) -> None:
        """Give a node what the kernel's vfio-pci would: a device file for each IOMMU group and for each function."""
        names = ["vfio", *map(str, range(1, _COUNT + 1)), *(f"devices/vfio{number}" for number in range(_COUNT))]
        script = (
            f"mkdir -p /dev/vfio/devices && cd /dev/vfio && for name in {' '.join(names)}; do mknod -m 666 $name c 1 3; done"
        )
        self._engine.run("exec", node, "sh", "-c", script)

    def control(self, node: str, command: dict[str, Any]) -> Any:
        """Give a command to a node's host."""
        port = SocketPort(self.of(node) / "host.sock")
        try:
            return port.control(command)
        finally:
            port.close()

    def stop(self) -> None:
        """Stop all of them and unmount everything."""
        if self._processes is not None:
            self._processes.stop_all()
        stop_recorded(self.directory.parent)
        if self.directory.exists():
            for node in self.directory.iterdir():
                self._unmount(node.name)
        while _is_mounted(self.directory):
            _run("umount", "-l", self.directory)

    def _unmount(self, node: str) -> None:
        """Unmount what a killed host left; a plain `stat` of it fails."""
        if _is_mounted(self.of(node) / "sys"):
            _run("umount", "-l", self.of(node) / "sys")


def _is_mounted(path: pathlib.Path) -> bool:
    """Ask the kernel's own list: a directory that is bound to itself looks like any other."""
    return f" {path} " in pathlib.Path("/proc/self/mounts").read_text()


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True)
