"""Pods that ask for VFs, and what they see of them."""

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
        """Make a pod; it sleeps."""
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
        """Make a pod until one runs, as a ReplicaSet does, and say how often the kubelet turned it down.

        The scheduler hears of devices that cannot be had with the kubelet's next status only, and the kubelet refuses what it
        sends until then.
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
        """Wait until a pod runs, and give its node."""
        pod = wait_for(f"{name} runs", lambda: self._in_phase(name, "Running"), 40)
        return str(pod["spec"]["nodeName"])

    def settled(self, name: str) -> str:
        """Wait until a pod runs or has failed, and say which, with the reason."""
        status = wait_for(
            f"{name} runs or fails", lambda: self._in_phase(name, "Running") or self._in_phase(name, "Failed"), 60
        )["status"]
        return " ".join(filter(None, (status["phase"], status.get("reason"))))

    def vfs(self, name: str) -> list[str]:
        """Give the addresses of a pod's VFs, having opened each device file."""
        return self.look(name)[0]

    def look(self, name: str) -> tuple[list[str], list[str]]:
        """Give the addresses and the device files that a pod has."""
        addresses, files = json.loads(self._cluster.kubectl("exec", name, "--", _PYTHON, "-c", _LOOK))
        return addresses, files

    def end(self, *names: str) -> None:
        """Delete pods, all of them if none is named, and wait until they are gone."""
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
    """Give how many devices the scheduler may still count on at a node; -1 where the node knows none."""
    found = cluster.api.get("Node", node) or {}
    return int(found.get("status", {}).get("allocatable", {}).get(resource, -1))


def ask_for(cluster: KindCluster, vfs: int) -> None:
    """Edit the pool."""
    cluster.api.merge("SriovNetworkPool", POOL, {"spec": {"numVfs": vfs}})


def wait_for_vfs(cluster: KindCluster, vfs: int, timeout_s: float = 60) -> None:
    """Wait until both workers have so many, and the scheduler has been told; what it was told before may be old."""
    for node in cluster.workers:
        wait_for(f"{node} has {vfs} VFs", lambda node=node: cluster.pf(node).get("numVfs") == vfs, timeout_s)
    for node in cluster.workers:
        wait_for(f"{node} offers {vfs}", lambda node=node: allocatable(cluster, node) == vfs, timeout_s)
