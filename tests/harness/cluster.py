"""A complete cluster for tests and the demo: control plane, KubeVirt, simulated nodes, and vmnic's own processes."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import urllib3
import yaml

from .api import wait_for
from .controlplane import ControlPlane
from .kubevirt import KubeVirt
from .processes import Processes, free_port
from .programs import Programs

ROOT = pathlib.Path(__file__).parents[2]
NAMESPACE = "vmnic-system"
AGENT_NAMESPACE = "vmnic-agents"

_NICS = [
    {"address": "0000:0b:00.0", "profile": "82576", "name": "ens1f0", "mac": "52:54:00:0b:00:00", "numaNode": 0},
    {"address": "0000:0c:00.0", "profile": "I350", "name": "ens2f0", "mac": "52:54:00:0c:00:00", "numaNode": 0},
]
_SECOND_PORT = _NICS[0] | {"address": "0000:0b:00.1", "name": "ens1f1", "mac": "52:54:00:0b:00:01"}


@dataclass(frozen=True)
class SimulatedNode:
    """One node: a simulated host, its agent, and the node's state in the player."""

    name: str
    iommu: bool = True
    address: str = ""
    """IP address of the node's I350."""
    second_port: bool = False
    """Whether the 82576 has another port."""

    def spec(self) -> dict[str, Any]:
        """Return the description of the simulated host."""
        first, second = (dict(nic) for nic in _NICS)
        if self.address:
            second |= {"addresses": [self.address], "defaultRoute": True}
        return {"iommu": self.iommu, "pfs": [first, *([_SECOND_PORT] if self.second_port else []), second]}


DEFAULT_NODES = (
    SimulatedNode("n1", address="192.0.2.1/24"),
    SimulatedNode("n2", address="192.0.2.2/24"),
    SimulatedNode("n3", address="192.0.2.3/24", iommu=False),
)


class Cluster:
    """The complete cluster, in one directory."""

    def __init__(
        self,
        directory: pathlib.Path,
        programs: Programs,
        *,
        nodes: tuple[SimulatedNode, ...] = DEFAULT_NODES,
        die_with_parent: bool = True,
    ) -> None:
        self.directory = directory
        self.nodes = nodes
        self.programs = programs
        self.processes = Processes(directory, die_with_parent=die_with_parent)
        self.plane = ControlPlane(self.processes, programs)
        self.webhook_port = free_port()
        self.metrics_ports: dict[str, int] = {}
        """Metrics port of each vmnic process, by name."""
        self.probe_ports: dict[str, int] = {}

    def start_plane(self) -> None:
        """Start Kubernetes and KubeVirt."""
        self.plane.start()
        self.api = self.plane.api
        self.kubevirt = KubeVirt(self.plane)
        self.kubevirt.start()

    def start_nodes(self) -> None:
        """Start the simulated hosts and the node player."""
        for node in self.nodes:
            (self.directory / node.name / "state").mkdir(parents=True, exist_ok=True)
            self.start_host(node)
        flags = [
            f"--node={node.name}={self.socket(node.name)}={self._pod_resources(node.name)}={self._plugins(node.name)}"
            for node in self.nodes
        ]
        command = [
            sys.executable,
            "-m",
            "tests.harness.player",
            "--server",
            self.plane.server,
            "--ca",
            self.plane.pki / "ca.crt",
        ]
        self.processes.start("player", [*command, *flags], cwd=ROOT)
        wait_for("the nodes are there", lambda: len(self.api.list("Node")) == len(self.nodes))

    def install(self) -> None:
        """Apply `deploy/base` as a user would.

        The webhook is reached by URL, because Services do not work here.
        """
        self.kubectl("apply", "--server-side", "-k", str(ROOT / "deploy" / "base"))
        configuration = self.api.get("MutatingWebhookConfiguration", "vmnic")
        assert configuration is not None
        operations = []
        for number, webhook in enumerate(configuration["webhooks"]):
            url = f"https://127.0.0.1:{self.webhook_port}{webhook['clientConfig']['service']['path']}"
            operations.append({"op": "remove", "path": f"/webhooks/{number}/clientConfig/service"})
            operations.append({"op": "add", "path": f"/webhooks/{number}/clientConfig/url", "value": url})
        self.api.patch("MutatingWebhookConfiguration", "vmnic", operations)
        wait_for("the CRDs are served", lambda: self.api.list("SriovNetworkPool") == [])

    def start_host(self, node: SimulatedNode) -> None:
        """Start a node's simulated host."""
        spec = self.directory / node.name / "host.yaml"
        spec.write_text(yaml.safe_dump(node.spec()))
        command = [sys.executable, "-m", "vmnic", "simhost", "--spec", spec, "--socket", self.socket(node.name)]
        self.processes.start(f"simhost-{node.name}", command)
        wait_for(f"the host {node.name} is there", self.socket(node.name).exists)

    def replace_host(self, node: SimulatedNode) -> None:
        """Put other hardware into a node whose functions nobody uses."""
        self.kill(f"agent-{node.name}")
        self.kill(f"simhost-{node.name}")
        self.socket(node.name).unlink(missing_ok=True)
        self.start_host(node)
        self.start_agent(node.name)

    def start_agent(self, name: str, *, observe_interval_s: float = 1) -> None:
        """Start a node's agent with a token of its own."""
        command = [
            sys.executable, "-m", "vmnic", "agent", "--node", name, "--host", f"sim:{self.socket(name)}",
            "--state-dir", self.directory / name / "state", "--pod-resources", self._pod_resources(name),
            "--device-plugins", self._plugins(name), "--device-info", self.directory / name / "info",
            "--observe-interval-s", observe_interval_s, "--metrics-address", f"127.0.0.1:{self._metrics_port(f'agent-{name}')}",
        ]  # fmt: skip
        env = os.environ | self.plane.service_account(AGENT_NAMESPACE, "vmnic-agent", name)
        self.processes.start(f"agent-{name}", command, env=env)

    def start_agents(self) -> None:
        """Start the agent of every node."""
        for node in self.nodes:
            self.start_agent(node.name)

    def start_controller(
        self,
        name: str = "controller-1",
        *,
        lease_duration_s: float = 4.0,
        certificate_days: float = 90,
        program: tuple[object, ...] = ("-m", "vmnic"),
    ) -> None:
        """Start a replica of the controller.

        Args:
            name: Name of the replica.
            lease_duration_s: Duration of its lease, in seconds.
            certificate_days: Validity of its certificates, in days.
            program: Python program to run. A test may wrap vmnic to inject a fault.
        """
        self.probe_ports[name] = free_port()
        command = [
            sys.executable, *program, "controller", "--identity", name, "--lease-duration-s", lease_duration_s,
            "--webhook-port", self.webhook_port, "--webhook-hosts", "127.0.0.1", "--probe-port", self.probe_ports[name],
            "--metrics-port", self._metrics_port(name), "--state-directory", self.directory / f"{name}-state",
            "--restart-timeout-s", 5, "--webhook-certificate-days", certificate_days, "--client-ca", self.plane.webhook_ca,
        ]  # fmt: skip
        env = os.environ | self.plane.service_account(NAMESPACE, "vmnic-controller")
        self.processes.start(name, command, env=env)

    def _metrics_port(self, process: str) -> int:
        self.metrics_ports[process] = free_port()
        return self.metrics_ports[process]

    def scrape(self, process: str) -> str:
        """Return the metrics of a vmnic process."""
        url = f"http://127.0.0.1:{self.metrics_ports[process]}/metrics"
        return urllib3.request("GET", url, retries=False, timeout=5).data.decode()

    def wait_for_webhook(self) -> None:
        """Wait until the API server trusts the webhook and the webhook answers."""

        def trusted() -> bool:
            configuration = self.api.get("MutatingWebhookConfiguration", "vmnic")
            assert configuration is not None
            return bool(configuration["webhooks"][0]["clientConfig"].get("caBundle"))

        wait_for("the webhook is trusted", trusted)

    def stop(self) -> None:
        """Stop every process."""
        self.processes.stop_all()

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        """Run kubectl as the administrator and return its output."""
        done = subprocess.run(
            [str(self.programs.kubectl), f"--kubeconfig={self.plane.kubeconfig}", *arguments],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, cwd=ROOT,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)} failed:\n{done.stdout}")
        return done.stdout

    def control(self, node: str, command: dict[str, Any]) -> Any:
        """Send a command to a node's simulated host."""
        from vmnic.host.socket import SocketPort

        port = SocketPort(self.socket(node))
        try:
            return port.control(command)
        finally:
            port.close()

    def pf(self, node: str, address: str = "0000:0b:00.0") -> dict[str, Any]:
        """Return what a node's agent publishes about a function, or an empty dictionary."""
        state = self.api.get("NodeNicState", node) or {}
        return next((pf for pf in state.get("status", {}).get("pfs", []) if pf["pciAddress"] == address), {})

    def socket(self, node: str) -> pathlib.Path:
        """Return the socket of a node's simulated host."""
        return self.directory / node / "host.sock"

    def _plugins(self, node: str) -> pathlib.Path:
        return self.directory / node / "dp"

    def _pod_resources(self, node: str) -> pathlib.Path:
        return self.directory / node / "pods.sock"

    def kill(self, name: str) -> None:
        """Kill a process and everything that it has started."""
        os.killpg(self.processes.pid(name), signal.SIGKILL)
        self.processes.kill(name)
