"""Simulated hosts of a cluster's nodes.

Each serves a socket and a `/sys` in a directory that its node sees as /fuse.
"""

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
"""Number of IOMMU groups and functions with device files on a node. Each file is the null device, which can be opened and holds
nothing."""


class SimulatedHosts:
    """The hosts of one cluster. Their processes and mounts outlive the process that starts them."""

    def __init__(self, directory: pathlib.Path, engine: Engine) -> None:
        self.directory = directory
        self._engine = engine
        self._processes: Processes | None = None

    def of(self, node: str) -> pathlib.Path:
        """Return the directory that the node sees as /fuse."""
        return self.directory / node

    def share(self, nodes: tuple[str, ...]) -> None:
        """Make the directories shared mounts, so that later mounts in them are visible in nodes and running pods."""
        for node in nodes:
            (self.of(node) / "sys").mkdir(parents=True, exist_ok=True)
        if not _is_mounted(self.directory):
            _run("mount", "--bind", self.directory, self.directory)
            _run("mount", "--make-shared", self.directory)

    def start(self, node: str, spec: dict[str, Any]) -> None:
        """Start or restart a node's host."""
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
        """Create the device files of vfio-pci on a node, one for each IOMMU group and each function."""
        names = ["vfio", *map(str, range(1, _COUNT + 1)), *(f"devices/vfio{number}" for number in range(_COUNT))]
        script = (
            f"mkdir -p /dev/vfio/devices && cd /dev/vfio && for name in {' '.join(names)}; do mknod -m 666 $name c 1 3; done"
        )
        self._engine.run("exec", node, "sh", "-c", script)

    def control(self, node: str, command: dict[str, Any]) -> Any:
        """Send a command to a node's host."""
        port = SocketPort(self.of(node) / "host.sock")
        try:
            return port.control(command)
        finally:
            port.close()

    def stop(self) -> None:
        """Stop all hosts and unmount everything."""
        if self._processes is not None:
            self._processes.stop_all()
        stop_recorded(self.directory.parent)
        if self.directory.exists():
            for node in self.directory.iterdir():
                self._unmount(node.name)
        while _is_mounted(self.directory):
            _run("umount", "-l", self.directory)

    def _unmount(self, node: str) -> None:
        """Unmount what a killed host left. A plain `stat` of such a mount fails."""
        if _is_mounted(self.of(node) / "sys"):
            _run("umount", "-l", self.of(node) / "sys")


def _is_mounted(path: pathlib.Path) -> bool:
    """Read the kernel's mount list, because a bind mount of a directory on itself is not visible otherwise."""
    return f" {path} " in pathlib.Path("/proc/self/mounts").read_text()


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True)
