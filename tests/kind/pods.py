"""Pods that ask for VFs, and what they see of their VFs."""

from __future__ import annotations

import json
from typing import Any

from tests.harness.api import wait_for

from .cluster import KindCluster
from .image import IMAGE

__all__ = ["POOL", "RESOURCE", "Pods", "allocatable", "ask_for", "wait_for_vfs"]

POOL = "tenant-fast"
RESOURCE = f"vmnic.dev/{POOL}"
_PYTHON = "/opt/vmnic/bin/python"
_LOOK = """
import json, os
files = [f"{place}/{name}" for place, _, names in os.walk("/dev/vfio") for name in names]
print(json.dumps([os.environ["PCIDEVICE_VMNIC_DEV_TENANT-FAST"].split(","), sorted(files)]))
[open(name).close() for name in files]
"""


class Pods:
    """The pods of one test, in the namespace `default`."""

    def __init__(self, cluster: KindCluster) -> None:
        self._cluster = cluster
        self.names: list[str] = []

    def start(self, name: str, *, vfs: int = 1, node: str = "") -> None:
        """Create a pod that sleeps."""
        resources = {"limits": {RESOURCE: str(vfs)}} if vfs else {}
        sleep = {
            "name": "sleep",
            "image": IMAGE,
            "command": [_PYTHON, "-c", "import signal; signal.pause()"],
            "resources": resources,
        }
        spec: dict[str, Any] = {"containers": [sleep], "terminationGracePeriodSeconds": 0, "restartPolicy": "Always"}
        if node:
            spec["nodeSelector"] = {"kubernetes.io/hostname": node}
        self._cluster.api.create(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}
        )
        self.names.append(name)

    def run(self, name: str, *, node: str) -> int:
        """Create a pod until one runs, as a ReplicaSet does, and return how often the kubelet refused it.

        The scheduler learns of withdrawn devices only with the kubelet's next status. Until then the kubelet refuses pods that
        the
        scheduler sends.
        """
        refused = 0
        self.start(name, node=node)
        while self.settled(name) != "Running":
            assert self.settled(name) == "Failed UnexpectedAdmissionError"
            refused += 1
            self.end(name)
            self.start(name, node=node)
        return refused

    def running(self, name: str) -> str:
        """Wait until a pod runs, and return its node."""
        pod = wait_for(f"{name} runs", lambda: self._in_phase(name, "Running"), 40)
        return str(pod["spec"]["nodeName"])

    def settled(self, name: str) -> str:
        """Wait until a pod runs or has failed, and return its phase with the reason."""
        status = wait_for(
            f"{name} runs or fails", lambda: self._in_phase(name, "Running") or self._in_phase(name, "Failed"), 60
        )["status"]
        return " ".join(filter(None, (status["phase"], status.get("reason"))))

    def vfs(self, name: str) -> list[str]:
        """Return the addresses of a pod's VFs after opening each device file."""
        return self.look(name)[0]

    def look(self, name: str) -> tuple[list[str], list[str]]:
        """Return the addresses and the device files of a pod."""
        addresses, files = json.loads(self._cluster.kubectl("exec", name, "--", _PYTHON, "-c", _LOOK))
        return addresses, files

    def end(self, *names: str) -> None:
        """Delete pods and wait until they are gone. Without names, delete all of them."""
        ending = list(names or self.names)
        for name in ending:
            self._cluster.api.delete("Pod", name, "default")
            self.names.remove(name)
        wait_for("the pods are gone", lambda: not any(self._cluster.api.get("Pod", name, "default") for name in ending), 60)

    def _in_phase(self, name: str, phase: str) -> dict[str, Any] | None:
        pod = self._cluster.api.get("Pod", name, "default") or {}
        status = pod.get("status", {})
        ready = phase != "Running" or all(one.get("ready") for one in status.get("containerStatuses", [{}]))
        return pod if status.get("phase") == phase and ready else None


def allocatable(cluster: KindCluster, node: str, resource: str = RESOURCE) -> int:
    """Return the number of devices that a node has allocatable; -1 if the node has no such resource."""
    found = cluster.api.get("Node", node) or {}
    return int(found.get("status", {}).get("allocatable", {}).get(resource, -1))


def ask_for(cluster: KindCluster, vfs: int) -> None:
    """Set the pool's number of VFs."""
    cluster.api.merge("SriovNetworkPool", POOL, {"spec": {"numVfs": vfs}})


def wait_for_vfs(cluster: KindCluster, vfs: int, timeout_s: float = 60) -> None:
    """Wait until both workers have a number of VFs and the API server shows it as allocatable.

    A value of an earlier status may still be shown at first.
    """
    for node in cluster.workers:
        wait_for(f"{node} has {vfs} VFs", lambda node=node: cluster.pf(node).get("numVfs") == vfs, timeout_s)
    for node in cluster.workers:
        wait_for(f"{node} offers {vfs}", lambda node=node: allocatable(cluster, node) == vfs, timeout_s)
