"""The node player: plays scheduler, kubelet, Multus and virt-handler for nodes that do not exist.

    python -m tests.harness.player --server URL --ca FILE --node n1=SIMHOST_SOCKET=POD_RESOURCES_SOCKET …

It binds launcher pods, makes pods and VMIs Running and ends them, and holds a VF of the node's simulated host for a pod that
asks for a device `vmnic.dev/…`, as QEMU would; the kubelet's pod-resources socket names the pod.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import hashlib
import json
import pathlib
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import urllib3
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream

from vmnic.agent.podresources import message_classes
from vmnic.host.socket import SocketPort

from .api import Api, ApiFailure

_TICK_S = 0.1
_HEARTBEAT_S = 30
_PREFIX = "vmnic.dev/"
_GUEST = "player.vmnic.dev/guest-os"
"""Annotation of a VM's template: what the guest agent says the guest is."""
_STARTS = "player.vmnic.dev/starts"
"""Annotation of a VM's template: how many times its pod finds a node."""
_STATUS = "k8s.v1.cni.cncf.io/network-status"


@dataclass
class _Taken:
    """A VF that a pod holds."""

    vf: str
    resource: str
    namespace: str
    pod: str


@dataclass
class _Node:
    """One node that is played."""

    name: str
    host: pathlib.Path
    pod_resources: pathlib.Path
    taken: dict[str, _Taken] = field(default_factory=dict)
    """By pod uid."""
    heartbeat: float = 0.0


class Player:
    """Plays some nodes of one cluster."""

    def __init__(self, api: Api, nodes: list[_Node]) -> None:
        self._api = api
        self._nodes = {node.name: node for node in nodes}
        self._turn = 0
        self._starts: Counter[tuple[str, str]] = Counter()

    async def run(self) -> None:
        """Play until killed; an API server that is away is waited for."""
        servers = [await _serve_pod_resources(node) for node in self._nodes.values()]
        assert servers
        while True:
            try:
                await asyncio.to_thread(self.tick)
            except (ApiFailure, urllib3.exceptions.HTTPError, OSError) as error:
                print(f"player: {error}", file=sys.stderr, flush=True)
            await asyncio.sleep(_TICK_S)

    def tick(self) -> None:
        """Look at everything once."""
        for node in self._nodes.values():
            if time.monotonic() - node.heartbeat > _HEARTBEAT_S:
                self._beat(node)
                node.heartbeat = time.monotonic()
        pods = self._api.list("Pod", query="?labelSelector=kubevirt.io%3Dvirt-launcher")
        alive = {pod["metadata"]["uid"] for pod in pods}
        for node in self._nodes.values():
            for uid in [uid for uid in node.taken if uid not in alive]:
                self._release(node, uid)
        for pod in pods:
            self._play_pod(pod)
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
        status = {"capacity": capacity, "allocatable": capacity, "conditions": [ready]}
        self._api.merge("Node", node.name, {"status": status}, sub="status")

    def _play_pod(self, pod: dict[str, Any]) -> None:
        meta, spec = pod["metadata"], pod["spec"]
        if meta.get("deletionTimestamp"):
            self._api.delete("Pod", meta["name"], meta["namespace"], "?gracePeriodSeconds=0")
        elif not spec.get("nodeName"):
            self._bind(pod)
        elif pod["status"].get("phase") == "Pending":
            self._make_running(pod)

    def _bind(self, pod: dict[str, Any]) -> None:
        """Bind to the next node that the pod may use and that has the devices it asks for."""
        meta = pod["metadata"]
        machine = (meta["namespace"], meta["labels"].get("vm.kubevirt.io/name", ""))
        if self._starts[machine] >= int(meta["annotations"].get(_STARTS, 1_000_000)):
            return
        wanted = pod["spec"].get("nodeSelector", {}).get("kubernetes.io/hostname")
        names = [wanted] if wanted in self._nodes else list(self._nodes)
        self._turn += 1
        for name in names[self._turn % len(names) :] + names[: self._turn % len(names)]:
            if self._take(self._nodes[name], pod):
                target = {"apiVersion": "v1", "kind": "Node", "name": name}
                body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": meta["name"]}, "target": target}
                self._api.request("POST", f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/binding", body)
                self._starts[machine] += 1
                return

    def _take(self, node: _Node, pod: dict[str, Any]) -> bool:
        """Hold a VF for each device resource that the pod asks for; False where the node has none free."""
        resources = {
            name
            for container in pod["spec"]["containers"]
            for name in container.get("resources", {}).get("requests", {})
            if name.startswith(_PREFIX)
        }
        meta = pod["metadata"]
        for resource in resources:
            try:
                vf = _command(node.host, {"take": None})
            except OSError:
                return False
            node.taken[meta["uid"]] = _Taken(vf, resource, meta["namespace"], meta["name"])
            device = {"name": resource, "device-info": {"type": "pci", "version": "1.0.0", "pci": {"pci-address": vf}}}
            body = {"metadata": {"annotations": {_STATUS: json.dumps([device])}}}
            self._api.merge("Pod", meta["name"], body, meta["namespace"])
        return True

    def _release(self, node: _Node, uid: str) -> None:
        _command(node.host, {"release": node.taken.pop(uid).vf})

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
            # An instance without a node has no virt-handler; virt-controller ends it.
            if status.get("nodeName") and status.get("phase") not in ("Succeeded", "Failed"):
                self._as_handler(instance, {"status": {"phase": "Succeeded"}})
            for pod in pods:
                if pod["metadata"]["labels"].get("kubevirt.io/created-by") == meta["uid"]:
                    self._api.delete("Pod", pod["metadata"]["name"], meta["namespace"], "?gracePeriodSeconds=0")
        elif status.get("phase") == "Scheduled":
            self._as_handler(instance, {"status": _running_status(instance)})

    def _as_handler(self, instance: dict[str, Any], body: dict[str, Any]) -> None:
        """Patch a VMI as the virt-handler of its node."""
        meta = instance["metadata"]
        headers = {
            "Impersonate-User": "system:serviceaccount:kubevirt:kubevirt-handler",
            "Impersonate-Group": "system:masters",
            "Impersonate-Extra-authentication.kubernetes.io%2fnode-name": instance.get("status", {}).get("nodeName", ""),
        }
        self._api.merge("VirtualMachineInstance", meta["name"], body, meta["namespace"], **headers)


def _running_status(instance: dict[str, Any]) -> dict[str, Any]:
    """What virt-handler reports of a VM that has started."""
    now = _now()
    conditions = [
        {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
        for kind in ("Ready", "LiveMigratable")
    ]
    guest = instance["metadata"].get("annotations", {}).get(_GUEST)
    devices = instance["spec"]["domain"]["devices"]
    status: dict[str, Any] = {
        "phase": "Running",
        # Without this KubeVirt takes the end of the instance for a failed start, and waits before the next.
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


async def _serve_pod_resources(node: _Node) -> Server:
    """Serve the kubelet's List for one node."""
    classes = message_classes()

    async def list_pods(stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        answer = classes["ListPodResourcesResponse"]()
        for taken in list(node.taken.values()):
            pod = answer.pod_resources.add(name=taken.pod, namespace=taken.namespace)
            container = pod.containers.add(name="compute")
            container.devices.add(resource_name=taken.resource, device_ids=[taken.vf])
        await stream.send_message(answer)

    class Lister:
        def __mapping__(self) -> dict[str, Handler]:
            request, response = classes["ListPodResourcesRequest"], classes["ListPodResourcesResponse"]
            return {"/v1.PodResourcesLister/List": Handler(list_pods, Cardinality.UNARY_UNARY, request, response)}

    server = Server([Lister()])
    node.pod_resources.unlink(missing_ok=True)
    await server.start(path=str(node.pod_resources))
    return server


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
        name, host, pod_resources = text.split("=")
        nodes.append(_Node(name, pathlib.Path(host), pathlib.Path(pod_resources)))
    asyncio.run(Player(Api(chosen.server, chosen.ca, "player-token"), nodes).run())


if __name__ == "__main__":
    main()
