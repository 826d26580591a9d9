"""A kind cluster with one control plane and two workers, each with a simulated host.

kind's nodes change kernel settings of the machine. They are restored when the cluster is deleted.
"""

from __future__ import annotations

import base64
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import yaml

from tests.harness.api import Api, wait_for
from tests.harness.cluster import ROOT
from tests.harness.programs import NodePrograms, Programs

from .engine import Engine
from .hosts import SimulatedHosts
from .neighbours import Neighbours
from .node_image import ETCD_TAG

__all__ = ["ClusterFailed", "KindCluster"]

_WORKERS = ("worker", "worker2")
"""Suffixes that kind appends to the cluster's name."""
_SYSCTLS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")
"""Settings that a kubelet and kind write."""
_READY = "180s"


class ClusterFailed(Exception):
    """The cluster did not start. The message has kind's output."""


class KindCluster:
    """One cluster, in a directory that outlives the process."""

    def __init__(self, name: str, directory: pathlib.Path, engine: Engine, programs: Programs, nodes: NodePrograms) -> None:
        self.name = name
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.engine = engine
        self.hosts = SimulatedHosts(directory / "hosts", engine)
        self.programs = programs
        self._kind = nodes.kind
        self.kubeconfig = directory / "kubeconfig"
        self.neighbours = Neighbours(self)

    def connect(self) -> None:
        """Read the kubeconfig and create a token of an administrator's account for plain requests."""
        entry = yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]
        self.authority.write_bytes(base64.b64decode(entry["certificate-authority-data"]))
        binding = ("clusterrolebinding", "test-admin", "--clusterrole=cluster-admin", "--serviceaccount=kube-system:test-admin")
        for words in (("serviceaccount", "test-admin", "-n", "kube-system"), binding):
            self.kubectl("create", *words, check=False)
        self.api = Api(entry["server"], self.authority, self.token("kube-system", "test-admin"))

    def token(self, namespace: str, account: str) -> str:
        """Create a token of a service account."""
        return self.kubectl("create", "token", account, "-n", namespace, "--duration", "24h").strip()

    def gateway(self) -> str:
        """Return the address of this machine as seen from the nodes."""
        return self.run_in(self.control_plane, "ip", "-4", "route", "show", "default").split()[2]

    @property
    def authority(self) -> pathlib.Path:
        """Return the file of the API server's certificate authority."""
        return self.directory / "cluster.crt"

    @property
    def control_plane(self) -> str:
        """Return the name of the control-plane node."""
        return f"{self.name}-control-plane"

    @property
    def nodes(self) -> tuple[str, ...]:
        """Return the names of all nodes."""
        return (self.control_plane, *self.workers)

    @property
    def workers(self) -> tuple[str, ...]:
        """Return the names of the worker nodes."""
        return tuple(f"{self.name}-{role}" for role in _WORKERS)

    def create(self, image: str) -> None:
        """Create the cluster with a simulated host beside every node, and wait until the nodes are Ready.

        Raises:
            ClusterFailed: kind failed; the message has its output.
        """
        self._save_sysctls()
        # The engines refuse to bind a missing directory, and kind binds this one.
        pathlib.Path("/lib/modules").mkdir(exist_ok=True)
        self.hosts.share(self.nodes)
        configuration = self.directory / "kind.yaml"
        configuration.write_text(yaml.safe_dump(self._configuration(image)))
        self.kind("create", "cluster", "--config", configuration, "--wait", _READY)
        self.route_pods()
        for node in self.nodes:
            self.hosts.make_devices(node)
        self.connect()

    def delete(self) -> None:
        """Delete the cluster with everything beside it, and restore the machine's settings."""
        self.neighbours.stop()
        self.kind("delete", "cluster")
        self.hosts.stop()
        self._restore_sysctls()

    def load(self, image: str) -> None:
        """Copy an image into every node."""
        archive = self.directory / "image.tar"
        archive.unlink(missing_ok=True)
        self.engine.run("save", "-o", archive, image)
        self.kind("load", "image-archive", archive)
        archive.unlink()

    def kind(self, *arguments: object) -> str:
        """Run kind for this cluster.

        Raises:
            ClusterFailed: it failed.
        """
        command = [str(word) for word in (self._kind, *arguments, "--name", self.name)]
        env = os.environ | self.engine.environment | {"KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise ClusterFailed(f"kind {' '.join(command[1:3])} failed:\n{done.stdout[-6000:]}")
        return done.stdout

    def kubectl(self, *arguments: object, check: bool = True, input: str | None = None) -> str:  # noqa: A002 - subprocess' word
        """Run kubectl as the administrator and return its output."""
        command = [str(word) for word in (self.programs.kubectl, f"--kubeconfig={self.kubeconfig}", *arguments)]
        done = subprocess.run(
            command, text=True, input=input, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, cwd=ROOT
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(command[2:])} failed:\n{done.stdout}")
        return done.stdout

    def vmnic(self, *arguments: str) -> str:
        """Run `kubectl vmnic` as the administrator and return its output."""
        command = [str(pathlib.Path(sys.executable).with_name("kubectl-vmnic")), *arguments]
        env = os.environ | {"KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def run_in(self, node: str, *command: object, check: bool = True) -> str:
        """Run a command in a node."""
        return self.engine.run("exec", node, *command, check=check)

    def pf(self, node: str, address: str = "0000:0b:00.0") -> dict[str, Any]:
        """Return what a node's agent reports of a PF; empty if nothing."""
        state = self.api.get("NodeNicState", node) or {}
        return next((pf for pf in state.get("status", {}).get("pfs", []) if pf["pciAddress"] == address), {})

    def vfs(self, node: str, address: str = "0000:0b:00.0") -> list[str]:
        """Return the addresses of the VFs that a node's simulated host has now."""
        function = self.hosts.of(node) / "sys" / "bus" / "pci" / "devices" / address
        return [link.resolve().name for link in function.glob("virtfn*")]

    def pod_on(self, node: str, namespace: str, app: str) -> str:
        """Return the name of an application's pod on a node."""
        pods = self.api.list("Pod", namespace, f"?labelSelector=app.kubernetes.io/name%3D{app}")
        return next(str(pod["metadata"]["name"]) for pod in pods if pod["spec"].get("nodeName") == node)

    def kill_container(self, node: str, pod: str) -> None:
        """Kill a pod's container like the kernel's OOM killer. The kubelet starts another one."""
        self._task(node, pod, "kill", "-s", "SIGKILL")

    def freeze_container(self, node: str, pod: str) -> None:
        """Freeze a pod's container."""
        self._task(node, pod, "pause")

    def resume_container(self, node: str, pod: str) -> None:
        """Resume a frozen container if it still exists."""
        self._task(node, pod, "resume")

    def switch_off(self, node: str) -> None:
        """Stop a node and reset its simulated host to the state after a boot."""
        self.engine.run("stop", "-t", "5", node)
        self.hosts.control(node, {"reboot": None})

    def switch_on(self, node: str) -> None:
        """Start a node again."""
        self.engine.run("start", node)
        self.hosts.make_devices(node)
        wait_for(
            f"{node} answers", lambda: self.run_in(node, "systemctl", "is-active", "kubelet", check=False).strip() == "active"
        )
        self.route_pods()

    def _task(self, node: str, pod: str, *command: str) -> None:
        wanted = f'labels."io.kubernetes.pod.name"=={pod},labels."io.cri-containerd.kind"==container'
        verb, *options = command
        for container in self.run_in(node, "ctr", "-n", "k8s.io", "containers", "list", "-q", wanted).split():
            # containerd still lists containers that have ended.
            self.run_in(node, "ctr", "-n", "k8s.io", "tasks", verb, *options, container, check=False)

    def route_pods(self) -> None:
        """Set each node's routes to the pod networks of the others, as kindnetd would."""
        nodes = json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]
        for here in nodes:
            for there in nodes:
                if there is not here:
                    addresses = {one["type"]: one["address"] for one in there["status"]["addresses"]}
                    route = (there["spec"]["podCIDR"], "via", addresses["InternalIP"])
                    self.run_in(here["metadata"]["name"], "ip", "route", "replace", *route)

    def _configuration(self, image: str) -> dict[str, object]:
        def node(role: str, name: str) -> dict[str, object]:
            mount = {"hostPath": str(self.hosts.of(name)), "containerPath": "/fuse", "propagation": "HostToContainer"}
            return {"role": role, "image": image, "extraMounts": [mount]}

        cluster = {"kind": "ClusterConfiguration", "etcd": {"local": {"imageTag": ETCD_TAG}}}
        # Otherwise a kubelet exits at start on machines with cgroup v1.
        kubelet = {"kind": "KubeletConfiguration", "failCgroupV1": False}
        # kind skips the preflight too. CoreDNS is not needed, because Services are reached by their address.
        start = {"kind": "InitConfiguration", "skipPhases": ["preflight", "addon/coredns"]}
        return {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "name": self.name,
            "networking": {"disableDefaultCNI": True},
            "kubeadmConfigPatches": [yaml.safe_dump(patch) for patch in (cluster, kubelet, start)],
            "nodes": [node("control-plane", self.control_plane), *(node("worker", name) for name in self.workers)],
        }

    def _save_sysctls(self) -> None:
        saved = self.directory / "sysctls.json"
        if not saved.exists():
            saved.write_text(json.dumps({name: _sysctl(name).read_text().strip() for name in _SYSCTLS}))

    def _restore_sysctls(self) -> None:
        saved = self.directory / "sysctls.json"
        if saved.exists():
            for name, value in json.loads(saved.read_text()).items():
                _sysctl(name).write_text(value)
            saved.unlink()


def _sysctl(name: str) -> pathlib.Path:
    return pathlib.Path("/proc/sys", name)
