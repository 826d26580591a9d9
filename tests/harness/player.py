"""The node player, which plays scheduler, kubelet, Multus and virt-handler for nodes that do not exist.

    python -m tests.harness.player --server URL --ca FILE --node n1=SIMHOST_SOCKET=POD_RESOURCES_SOCKET=PLUGINS_DIRECTORY …

It binds launcher pods, sets pods and VMIs to Running and ends them. Devices come from the device plugins that register with the
node's kubelet double. The node's status shows them, a pod gets them by the kubelet's calls, and a started pod opens them on the
node's simulated host, as QEMU would.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import datetime as dt
import hashlib
import json
import pathlib
import sys
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import urllib3

from vmnic.host.socket import SocketPort

from .api import Api, ApiFailure
from .kubelet import AdmissionError, ContainerStartError, Kubelet, Pod

_TICK_S = 0.1
_HEARTBEAT_S = 30
_PREFIX = "vmnic.dev/"
_GUEST = "player.vmnic.dev/guest-os"
"""Annotation of a VM's template: the guest OS that the guest agent reports."""
_STARTS = "player.vmnic.dev/starts"
"""Annotation of a VM's template: how many times its pod finds a node."""
_STATUS = "k8s.v1.cni.cncf.io/network-status"


_CALL_S = 10.0


@dataclass
class _Taken:
    """Devices of a pod."""

    pod: Pod
    start: concurrent.futures.Future[None] | None = None
    """The start of its container, if it is in progress."""
    opened: list[str] = field(default_factory=list)


@dataclass
class _Node:
    """One node that is played."""

    name: str
    host: pathlib.Path
    kubelet: Kubelet
    taken: dict[str, _Taken] = field(default_factory=dict)
    """By pod uid."""
    heartbeat: float = 0.0
    reported: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Capacity and allocatable of device resources in the node's status."""


class Player:
    """Plays some nodes of one cluster."""

    def __init__(self, api: Api, nodes: list[_Node]) -> None:
        self._api = api
        self._nodes = {node.name: node for node in nodes}
        self._turn = 0
        self._closed: set[str] = set()
        """Nodes that are cordoned."""
        self._starts: Counter[tuple[str, str]] = Counter()

    async def run(self) -> None:
        """Play until killed.

        While the API server is away, wait for it.
        """
        self._loop = asyncio.get_running_loop()
        for node in self._nodes.values():
            await node.kubelet.start()
        while True:
            try:
                await asyncio.to_thread(self.tick)
            except (ApiFailure, urllib3.exceptions.HTTPError, OSError) as error:
                print(f"player: {error}", file=sys.stderr, flush=True)
            await asyncio.sleep(_TICK_S)

    def tick(self) -> None:
        """Handle all objects once."""
        for node in self._nodes.values():
            if time.monotonic() - node.heartbeat > _HEARTBEAT_S or node.kubelet.resources() != node.reported:
                self._beat(node)
                node.heartbeat = time.monotonic()
        pods = self._api.list("Pod", query="?labelSelector=kubevirt.io%3Dvirt-launcher")
        alive = {pod["metadata"]["uid"] for pod in pods}
        for node in self._nodes.values():
            for uid in [uid for uid in node.taken if uid not in alive]:
                self._release(node, uid)
        cordoned = self._api.list("Node", query="?fieldSelector=spec.unschedulable%3Dtrue")
        self._closed = {node["metadata"]["name"] for node in cordoned}
        for pod in pods:
            self._play_pod(pod, pods)
        for instance in self._api.list("VirtualMachineInstance"):
            self._play_instance(instance, pods)

    def _beat(self, node: _Node) -> None:
        labels = {
            "kubernetes.io/hostname": node.name,
            "kubernetes.io/arch": "amd64",
            "kubevirt.io/schedulable": "true",
            "machine-type.node.kubevirt.io/q35": "true",
        }
        meta = {"name": node.name, "labels": labels, "annotations": {"kubevirt.io/heartbeat": _now()}}
        self._api.apply({"apiVersion": "v1", "kind": "Node", "metadata": meta})
        capacity = {"cpu": "64", "memory": "256Gi", "pods": "250", "devices.kubevirt.io/kvm": "1k"}
        capacity |= {"devices.kubevirt.io/tun": "1k", "devices.kubevirt.io/vhost-net": "1k"}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": _now()}
        devices = node.kubelet.resources()
        gone: dict[str, Any] = dict.fromkeys(node.reported.keys() - devices.keys())
        there, usable = ({name: str(both[at]) for name, both in devices.items()} for at in (0, 1))
        status = {"capacity": capacity | there | gone, "allocatable": capacity | usable | gone, "conditions": [ready]}
        self._api.merge("Node", node.name, {"status": status}, sub="status")
        if not node.heartbeat:
            # The API server adds a taint to new nodes, which the node lifecycle controller removes when they are ready.
            self._api.merge("Node", node.name, {"spec": {"taints": None}})
        node.reported = devices

    def _play_pod(self, pod: dict[str, Any], pods: list[dict[str, Any]]) -> None:
        meta, spec = pod["metadata"], pod["spec"]
        if meta.get("deletionTimestamp"):
            self._api.delete("Pod", meta["name"], meta["namespace"], "?gracePeriodSeconds=0")
        elif not spec.get("nodeName"):
            self._bind(pod, pods)
        elif pod["status"].get("phase") == "Pending" and self._is_started(pod):
            self._make_running(pod)

    def _bind(self, pod: dict[str, Any], pods: list[dict[str, Any]]) -> None:
        """Bind a pod to the next node that it may use and that has the devices it requests.

        The target of a migration goes to a node without another pod of the VM.
        """
        meta = pod["metadata"]
        machine = (meta["namespace"], meta["labels"].get("vm.kubevirt.io/name", ""))
        if self._starts[machine] >= int(meta["annotations"].get(_STARTS, 1_000_000)):
            return
        wanted = pod["spec"].get("nodeSelector", {}).get("kubernetes.io/hostname")
        owner = meta["labels"].get("kubevirt.io/created-by")
        taken = {
            one["spec"].get("nodeName") for one in pods if one["metadata"]["labels"].get("kubevirt.io/created-by") == owner
        }
        names = [name for name in self._nodes if wanted in (None, name) and name not in taken | self._closed]
        if not names:
            return
        self._turn += 1
        for name in names[self._turn % len(names) :] + names[: self._turn % len(names)]:
            if self._take(self._nodes[name], pod):
                target = {"apiVersion": "v1", "kind": "Node", "name": name}
                body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": meta["name"]}, "target": target}
                self._api.request("POST", f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/binding", body)
                self._starts[machine] += 1
                return

    def _take(self, node: _Node, pod: dict[str, Any]) -> bool:
        """Allocate the devices that a pod requests, and return whether the node has enough."""
        meta, wanted = pod["metadata"], Counter[str]()
        for container in pod["spec"]["containers"]:
            for name, count in container.get("resources", {}).get("requests", {}).items():
                if name.startswith(_PREFIX):
                    wanted[name] += int(count)
        if not wanted or meta["uid"] in node.taken:
            return True
        taken = _Taken(Pod(meta["name"], meta["namespace"]))
        for name, count in wanted.items():
            try:
                taken.pod = self._soon(node.kubelet.admit(meta["name"], name, count, namespace=meta["namespace"])).result(
                    _CALL_S
                )
            except AdmissionError:
                node.kubelet.end(taken.pod)
                return False
        node.taken[meta["uid"]] = taken
        devices = [
            {"name": one.resource, "device-info": {"type": "pci", "version": "1.0.0", "pci": {"pci-address": device}}}
            for one in taken.pod.allocations
            for device in one.devices
        ]
        self._api.merge("Pod", meta["name"], {"metadata": {"annotations": {_STATUS: json.dumps(devices)}}}, meta["namespace"])
        return True

    def _is_started(self, pod: dict[str, Any]) -> bool:
        """Start the pod's container, with retries, and return whether it has its devices open."""
        node = self._nodes.get(pod["spec"]["nodeName"])
        taken = node.taken.get(pod["metadata"]["uid"]) if node is not None else None
        if node is None or taken is None:
            return True
        if taken.start is None:
            taken.start = self._soon(node.kubelet.start_container(taken.pod))
        if not taken.start.done():
            return False
        start, taken.start = taken.start, None
        try:
            start.result()
        except ContainerStartError as error:
            print(f"player: {pod['metadata']['name']} waits: {error}", file=sys.stderr, flush=True)
            return False
        for device in taken.pod.devices:
            if device not in taken.opened:
                _command(node.host, {"hold": device})
                taken.opened.append(device)
        return True

    def _release(self, node: _Node, uid: str) -> None:
        taken = node.taken.pop(uid)
        for device in taken.opened:
            _command(node.host, {"release": device})
        node.kubelet.end(taken.pod)

    def _soon(self, work: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]:
        """Run a kubelet's coroutine in the event loop, from a tick outside of it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _make_running(self, pod: dict[str, Any]) -> None:
        meta = pod["metadata"]
        containers = [
            {
                "name": container["name"], "image": container["image"], "imageID": "none", "ready": True, "started": True,
                "restartCount": 0, "state": {"running": {"startedAt": _now()}},
            }
            for container in pod["spec"]["containers"]
        ]  # fmt: skip
        conditions = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")]
        address = f"10.1.{int(meta['uid'][:2], 16)}.{int(meta['uid'][2:4], 16)}"
        status = {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "startTime": _now(),
            "containerStatuses": containers, "conditions": conditions,
        }  # fmt: skip
        self._api.merge("Pod", meta["name"], {"status": status}, meta["namespace"], "status")

    def _play_instance(self, instance: dict[str, Any], pods: list[dict[str, Any]]) -> None:
        meta, status = instance["metadata"], instance.get("status", {})
        if meta.get("deletionTimestamp"):
            # An instance without a node has no virt-handler. virt-controller ends it.
            if status.get("nodeName") and status.get("phase") not in ("Succeeded", "Failed"):
                self._as_handler(instance, {"status": {"phase": "Succeeded"}})
            for pod in pods:
                if pod["metadata"]["labels"].get("kubevirt.io/created-by") == meta["uid"]:
                    self._api.delete("Pod", pod["metadata"]["name"], meta["namespace"], "?gracePeriodSeconds=0")
        elif status.get("phase") == "Scheduled":
            self._as_handler(instance, {"status": _running_status(instance)})
        elif status.get("migrationState"):
            self._play_migration(instance, pods)

    def _play_migration(self, instance: dict[str, Any], pods: list[dict[str, Any]]) -> None:
        """Play both nodes' virt-handlers, one step per tick.

        The target becomes ready, the guest moves, and the source's pod ends.
        """
        state, namespace = instance["status"]["migrationState"], instance["metadata"]["namespace"]
        target = state.get("targetNode")
        if state.get("completed"):
            # This state stays until the target pod of another migration runs, so only the pod that this migration left may end.
            for pod in pods:
                if (pod["metadata"]["namespace"], pod["metadata"]["name"]) == (namespace, state.get("sourcePod")):
                    self._api.delete("Pod", pod["metadata"]["name"], namespace, "?gracePeriodSeconds=0")
        elif target and not state.get("targetNodeAddress"):
            ready = {"targetNodeAddress": "10.3.0.1", "targetDirectMigrationNodePorts": {"49152": 0}}
            self._as_handler(instance, {"status": {"migrationState": ready}}, target)
        elif target and not state.get("startTimestamp"):
            self._as_handler(instance, {"status": {"migrationState": {"startTimestamp": _now()}}})
        elif target:
            done = {"completed": True, "endTimestamp": _now()}
            done |= {"targetNodeDomainDetected": True, "targetNodeDomainReadyTimestamp": _now()}
            labels = {"kubevirt.io/nodeName": target, "kubevirt.io/migrationTargetNodeName": None}
            status = {"nodeName": target, "evacuationNodeName": None, "migrationState": done}
            self._as_handler(instance, {"metadata": {"labels": labels}, "status": status}, target)

    def _as_handler(self, instance: dict[str, Any], body: dict[str, Any], node: str = "") -> None:
        """Patch a VMI as the virt-handler of its node, or of another one."""
        meta = instance["metadata"]
        headers = {
            "Impersonate-User": "system:serviceaccount:kubevirt:kubevirt-handler",
            "Impersonate-Group": "system:masters",
            "Impersonate-Extra-authentication.kubernetes.io%2fnode-name": node
            or instance.get("status", {}).get("nodeName", ""),
        }
        self._api.merge("VirtualMachineInstance", meta["name"], body, meta["namespace"], **headers)


def _running_status(instance: dict[str, Any]) -> dict[str, Any]:
    """Return the status that virt-handler reports of a VM that has started."""
    now = _now()
    conditions = [
        {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
        for kind in ("Ready", "LiveMigratable")
    ]
    guest = instance["metadata"].get("annotations", {}).get(_GUEST)
    devices = instance["spec"]["domain"]["devices"]
    status: dict[str, Any] = {
        "phase": "Running",
        # Without this, KubeVirt takes the end of the instance for a failed start, and waits before the next one.
        "phaseTransitionTimestamps": [
            *instance.get("status", {}).get("phaseTransitionTimestamps", []),
            {"phase": "Running", "phaseTransitionTimestamp": now},
        ],
        "selinuxContext": "none",
        "interfaces": [_live_interface(instance, nic) for nic in devices.get("interfaces", [])],
    }
    if guest:
        conditions.append({"type": "AgentConnected", "status": "True", "lastProbeTime": now, "lastTransitionTime": now})
        status["guestOSInfo"] = {"id": guest, "name": guest}
    return status | {"conditions": conditions}


def _live_interface(instance: dict[str, Any], nic: dict[str, Any]) -> dict[str, Any]:
    digest = hashlib.sha256((instance["metadata"]["uid"] + nic["name"]).encode()).hexdigest()
    mac = nic.get("macAddress") or "02:" + ":".join(digest[i : i + 2] for i in range(0, 10, 2))
    return {"name": nic["name"], "mac": mac, "infoSource": "domain", "queueCount": 1, "linkState": "up"}


def _command(host: pathlib.Path, command: dict[str, Any]) -> Any:
    port = SocketPort(host)
    try:
        return port.control(command)
    finally:
        port.close()


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--ca", type=pathlib.Path, required=True)
    parser.add_argument("--node", action="append", required=True)
    chosen = parser.parse_args()
    nodes = []
    for text in chosen.node:
        name, host, pod_resources, plugins = text.split("=")
        nodes.append(_Node(name, pathlib.Path(host), Kubelet(pathlib.Path(plugins), pathlib.Path(pod_resources))))
    asyncio.run(Player(Api(chosen.server, chosen.ca, "player-token"), nodes).run())


if __name__ == "__main__":
    main()
