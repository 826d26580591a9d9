"""Real guests of a cluster, and what they see of their NICs."""

from __future__ import annotations

import pathlib
from typing import Any

import yaml

from tests.harness.api import ApiFailure, path_of, wait_for

from .cluster import KindCluster
from .engine import EngineError

__all__ = ["NAMESPACE", "Guest", "guest_vm", "missing_links"]

NAMESPACE = "guests"
_MANIFEST = pathlib.Path(__file__).parent / "guest" / "vm.yaml"
_LONG_S = 120
"""Longest wait for a guest. Its CPU is emulated, and the machine may be busy."""


def guest_vm(name: str, *, model: str, policy: str, os: str = "", arguments: str = "", **domain: Any) -> dict[str, Any]:
    """Return the manifest of a guest.

    Args:
        name: Name of the VM.
        model: Model of its NIC.
        policy: Label by which a policy selects it.
        os: Guest system that its annotation names. By default, there is no annotation.
        arguments: Arguments of the guest's kernel. `os=` is what the guest agent reports, `ping=` an address to ping.
        domain: Further fields of the domain.
    """
    machine: dict[str, Any] = yaml.safe_load(_MANIFEST.read_text())
    machine["metadata"] = {"name": name, "namespace": NAMESPACE, "labels": {"policy": policy}}
    template = machine["spec"]["template"]
    template["metadata"]["annotations"] = {"vm.kubevirt.io/os": os} if os else {}
    template["spec"]["domain"] |= domain
    template["spec"]["domain"]["devices"]["interfaces"][0]["model"] = model
    template["spec"]["domain"]["firmware"]["kernelBoot"]["kernelArgs"] += f" {arguments}"
    return machine


def missing_links(cluster: KindCluster) -> str:
    """Return why a node's kernel cannot create dummy links, which KubeVirt's bridge binding needs; empty if it can."""
    try:
        cluster.run_in(cluster.workers[0], "ip", "link", "add", "probe0", "type", "dummy")
    except EngineError as error:
        return str(error).rpartition(": ")[2]
    cluster.run_in(cluster.workers[0], "ip", "link", "delete", "probe0")
    return ""


class Guest:
    """One VM."""

    def __init__(self, cluster: KindCluster, manifest: dict[str, Any]) -> None:
        self._cluster = cluster
        self._api = cluster.api
        self.name = manifest["metadata"]["name"]
        self._booted = ""
        cluster.api.create(manifest)

    @property
    def machine(self) -> dict[str, Any]:
        """Return the VirtualMachine."""
        found = self._api.get("VirtualMachine", self.name, NAMESPACE)
        assert found is not None
        return found

    @property
    def spec_of_nic(self) -> dict[str, Any]:
        """Return the NIC as the VirtualMachine specifies it."""
        nic: dict[str, Any] = self.machine["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0]
        return nic

    @property
    def instance(self) -> dict[str, Any]:
        """Return the VirtualMachineInstance; empty if there is none."""
        return self._api.get("VirtualMachineInstance", self.name, NAMESPACE) or {}

    @property
    def uid(self) -> str:
        """Return what identifies the present instance; empty if there is none."""
        return str(self.instance.get("metadata", {}).get("uid", ""))

    @property
    def node(self) -> str:
        """Return the node of the guest."""
        return str(self.instance["status"].get("nodeName", ""))

    @property
    def pod(self) -> dict[str, Any]:
        """Return the pod on the guest's node."""
        pods = self._api.list("Pod", NAMESPACE, f"?labelSelector=kubevirt.io/created-by={self.uid}")
        return next(pod for pod in pods if pod["status"]["phase"] == "Running" and pod["spec"]["nodeName"] == self.node)

    def boot(self) -> dict[str, str]:
        """Wait until a new instance of the VM has booted, and return the NIC that its console shows."""
        wait_for(f"{self.name} starts", lambda: self.uid not in ("", self._booted), _LONG_S)
        self._booted = self.uid
        shown = wait_for(
            f"{self.name} prints its NIC", lambda: self._console(self._booted).partition("GUEST ready")[0], _LONG_S
        )
        return _fields(shown, "NIC")

    def nic(self) -> dict[str, str]:
        """Return the NIC as the guest sees it now."""
        return _fields(self._ask(""), "NIC")

    def pings(self) -> tuple[int, int]:
        """Return how many pings the guest has sent, and how many of them were lost."""
        counts = _fields(self._ask(""), "PINGS")
        return int(counts["sent"]), int(counts["lost"])

    def memory_bytes(self) -> int:
        """Return the memory (PSS) of all processes in the guest's pod."""
        uid = self.pod["metadata"]["uid"].replace("-", "[-_]")
        script = (
            f"for file in $(grep -l 'pod{uid}' /proc/[0-9]*/cgroup); do grep -h ^Pss: ${{file%/cgroup}}/smaps_rollup; done"
            " | awk '{sum += $2} END {print sum}'"
        )
        return int(self._cluster.run_in(self.node, "sh", "-c", script)) * 1024

    def set_queues(self, count: int) -> bool:
        """Set the number of queues with `ethtool -L`, and return whether the driver accepts it."""
        return _fields(self._ask(f"{self.nic()['name']}={count}"), "EXIT")["code"] == "0"

    def restart(self) -> None:
        """Restart the VM as `virtctl restart` does."""
        path = f"/apis/subresources.kubevirt.io/v1/namespaces/{NAMESPACE}/virtualmachines/{self.name}/restart"
        self._api.request("PUT", path, {})

    def migrate(self) -> None:
        """Migrate the guest, and wait until it is on another node."""
        before = self.node
        meta = {"generateName": f"{self.name}-", "namespace": NAMESPACE}
        body = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceMigration", "metadata": meta}
        self._api.create(body | {"spec": {"vmiName": self.name}})
        self.wait_until_moved(before)

    def evict(self) -> None:
        """Evict the guest's pod as `kubectl drain` does, and wait until KubeVirt has moved the guest."""
        before, name = self.node, self.pod["metadata"]["name"]
        path, meta = path_of("Pod", NAMESPACE, name, "eviction"), {"name": name, "namespace": NAMESPACE}
        try:
            self._api.request("POST", path, {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta})
        except ApiFailure as error:
            # KubeVirt refuses the eviction and migrates the VM.
            if error.status != 429:
                raise
        self.wait_until_moved(before)

    def wait_until_moved(self, before: str) -> None:
        """Wait until the guest answers on another node."""
        wait_for(f"{self.name} has left {before}", lambda: self._has_moved(before), _LONG_S)

    def delete(self) -> None:
        """Delete the VM and wait until its pods are gone."""
        self._api.delete("VirtualMachine", self.name, NAMESPACE)
        label = f"?labelSelector=vm.kubevirt.io/name={self.name}"
        wait_for(f"{self.name} is gone", lambda: not self._api.list("Pod", NAMESPACE, label), 60)

    def _console(self, uid: str) -> str:
        """Return what an instance has printed once its guest is ready, else nothing."""
        command = ("logs", "-n", NAMESPACE, "-l", f"kubevirt.io/created-by={uid}", "-c", "guest-console-log", "--tail=-1")
        shown = self._cluster.kubectl(*command, check=False)
        return shown if "GUEST ready" in shown else ""

    def _has_moved(self, before: str) -> bool:
        state = self.instance["status"].get("migrationState", {})
        assert not state.get("failed"), state
        return bool(state.get("completed")) and self.node != before and self._answer("").startswith("NIC")

    def _ask(self, query: str) -> str:
        return str(wait_for(f"{self.name} answers", lambda: self._answer(query), _LONG_S))

    def _answer(self, query: str) -> str:
        """Send a request to the guest over the pod network and return the text of its answer; empty if it does not come."""
        interfaces = self.instance["status"].get("interfaces", [{}])
        address = interfaces[0].get("ipAddress", "")
        script = f"exec 3<>/dev/tcp/{address}/80 && printf 'GET /cgi-bin/queues?{query} HTTP/1.0\\r\\n\\r\\n' >&3 && timeout 10 cat <&3"
        answer = self._cluster.run_in(self._cluster.control_plane, "timeout", "15", "bash", "-c", script, check=False)
        return answer.replace("\r", "").partition("\n\n")[2]


def _fields(text: str, word: str) -> dict[str, str]:
    """Return the fields of the first complete line that starts with a word."""
    line = next(line for line in text.splitlines() if line.startswith(f"{word} "))
    return dict(field.split("=", 1) for field in line.split()[1:])
