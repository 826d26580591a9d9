"""`make demo`: a real control plane on this machine, three simulated nodes, and vmnic at work, step by step.

Every step waits for what it shows. All of the output is read from the API server.
"""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape

from .api import wait_for
from .cluster import ROOT, Cluster
from .processes import stop_recorded
from .programs import cache_directory, ensure

_CONSOLE = Console(highlight=False, soft_wrap=True)
_STARTED = time.monotonic()


def demo_directory() -> pathlib.Path:
    """Return the directory of the demo's cluster."""
    return cache_directory() / "demo"


def main(arguments: list[str]) -> int:
    """Run the demo, or stop its remaining processes."""
    directory = demo_directory()
    if "down" in arguments:
        print("the demo's cluster is stopped" if stop_recorded(directory) else "no demo is running")
        return 0
    if stop_recorded(directory):
        print("stopped the cluster of an earlier demo")
    shutil.rmtree(directory, ignore_errors=True)
    print("Kubernetes' and KubeVirt's programs (built once, 6 to 11 minutes on two idle cores):")
    programs = ensure()
    cluster = Cluster(directory, programs, die_with_parent=False)
    try:
        _start(cluster)
        _show_pools(cluster)
        _show_machines(cluster)
        _show_protection(cluster)
    except (AssertionError, KeyboardInterrupt) as error:
        print(f"\nthe demo stopped: {error or 'interrupted'}\nlogs are in {directory}/log", file=sys.stderr)
        cluster.stop()
        return 1
    _show_next(cluster)
    return 0


def _step(text: str) -> None:
    _CONSOLE.print(f"\n[bold]== {text}[/bold] [dim]({time.monotonic() - _STARTED:.0f} s)[/dim]")


def _await(what: str, look: Callable[[], Any], timeout_s: float = 60) -> Any:
    """Wait for a condition, with a spinner on a terminal and a plain line elsewhere."""
    with _CONSOLE.status(what):
        seen = wait_for(what, look, timeout_s)
    _CONSOLE.print(f"   {what}: yes")
    return seen


def _run(cluster: Cluster, *words: str) -> None:
    """Print a command as a user would type it, and its output."""
    _CONSOLE.print(f"[cyan]$ {escape(shlex.join(words))}[/cyan]")
    env = os.environ | {"KUBECONFIG": str(cluster.plane.kubeconfig), "COLUMNS": "150"}
    program = {"kubectl": str(cluster.programs.kubectl)}
    if words[:2] == ("kubectl", "vmnic"):
        command = [str(pathlib.Path(sys.executable).with_name("kubectl-vmnic")), *words[2:]]
    else:
        command = [program.get(words[0], words[0]), *words[1:]]
    sys.stdout.flush()
    subprocess.run(command, env=env, cwd=ROOT, check=False)


def _start(cluster: Cluster) -> None:
    _step("A control plane: etcd, kube-apiserver, KubeVirt's virt-api and virt-controller")
    with _CONSOLE.status("starting"):
        cluster.start_plane()
    _step("Three simulated nodes with an 82576 and an I350 each; n3 has no IOMMU")
    with _CONSOLE.status("starting"):
        cluster.start_nodes()
        cluster.install()
        cluster.start_controller()
        cluster.start_agents()
        cluster.wait_for_webhook()
    _await("every agent has told what NICs its node has", lambda: _reported(cluster) == len(cluster.nodes))


def _reported(cluster: Cluster) -> int:
    return sum(bool(state.get("status", {}).get("pfs")) for state in cluster.api.list("NodeNicState"))


def _show_pools(cluster: Cluster) -> None:
    _step("A pool: seven VFs on every 82576, one node first")
    _run(cluster, "kubectl", "apply", "-f", "examples/pools/tenant-fast.yaml", "-f", "examples/pools/uplinks.yaml")
    _await("n1 has 7 VFs on vfio-pci", lambda: _vfs(cluster, "n1") == 7)
    _await("n2 has 7 VFs on vfio-pci", lambda: _vfs(cluster, "n2") == 7)
    _await("n3 says why it has none", lambda: cluster.pf("n3").get("problem", {}).get("reason") == "IommuOff")
    _await("the I350 that carries a node's address is refused", lambda: _refused(cluster, "n1"))
    _await(
        "the pools say so", lambda: _pool_nodes(cluster, "tenant-fast") == "2/3" and _pool_nodes(cluster, "uplinks") == "0/3"
    )
    _run(cluster, "kubectl", "get", "snp")
    _run(cluster, "kubectl", "vmnic", "nodes")


def _vfs(cluster: Cluster, node: str) -> int:
    pf = cluster.pf(node)
    return pf.get("numVfs", 0) if all(part.get("driver") == "vfio-pci" for part in pf.get("vfs", [])) else 0


def _refused(cluster: Cluster, node: str) -> bool:
    return cluster.pf(node, "0000:0c:00.0").get("problem", {}).get("reason") == "HostUsed"


def _pool_nodes(cluster: Cluster, name: str) -> str:
    return (cluster.api.get("SriovNetworkPool", name) or {}).get("status", {}).get("nodes", {}).get("summary", "")


def _show_machines(cluster: Cluster) -> None:
    _step("VMs that are there before any policy: a running Linux, a stopped Windows, an unknown one, one with a VF")
    _run(cluster, "kubectl", "apply", "-f", "examples/namespace.yaml", "-f", "examples/networks/fast.yaml")
    names = ("shop", "office", "legacy", "db")
    _run(cluster, "kubectl", "apply", *(word for name in names for word in ("-f", f"examples/vms/{name}.yaml")))
    for name in ("shop", "db"):
        _await(f"{name} runs", lambda name=name: _status(cluster, name) == "Running")
    _step("A policy: Linux on vhost, Windows on e1000e; and a new Linux VM that asks for e1000e")
    _run(cluster, "kubectl", "apply", "-f", "examples/policies/tenants.yaml")
    _await("the policy has looked at every VM", lambda: _matched(cluster) == 4)
    _run(cluster, "kubectl", "apply", "-f", "examples/vms/web.yaml")
    _await("web was patched to virtio as it was created", lambda: _model(cluster, "web") == "virtio")
    _await("office, which is stopped, was patched to e1000e", lambda: _model(cluster, "office") == "e1000e")
    _await("shop, which runs, is left alone", lambda: _model(cluster, "shop") == "e1000e")
    _await("the policy counts five VMs", lambda: _matched(cluster) == 5)
    _run(cluster, "kubectl", "vmnic", "plan")
    _run(cluster, "kubectl", "vmnic", "explain", "vm", "office", "-n", "tenants")


def _status(cluster: Cluster, name: str) -> str:
    return (cluster.api.get("VirtualMachine", name, "tenants") or {}).get("status", {}).get("printableStatus", "")


def _model(cluster: Cluster, name: str) -> str:
    machine = cluster.api.get("VirtualMachine", name, "tenants") or {}
    return machine["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0].get("model", "")


def _matched(cluster: Cluster) -> int:
    return (cluster.api.get("VmNicPolicy", "tenants") or {}).get("status", {}).get("vms", {}).get("matched", 0)


def _show_protection(cluster: Cluster) -> None:
    _step("An edit that would take VFs which the running VM db holds")
    _run(cluster, "kubectl", "patch", "snp", "tenant-fast", "--type=merge", "-p", '{"spec": {"numVfs": 3}}')
    node = _await("the plan names who is in the way", lambda: _blocked_node(cluster))
    free = "n2" if node == "n1" else "n1"
    _await(f"{free}, where nobody holds a VF, has 3 VFs", lambda: _vfs(cluster, free) == 3)
    _await(f"{node} still has its 7 VFs", lambda: _vfs(cluster, node) == 7)
    _run(cluster, "kubectl", "vmnic", "nodes", node)
    _step("The VM stops, and the plan goes on by itself")
    _run(cluster, "kubectl", "patch", "vm", "db", "-n", "tenants", "--type=merge", "-p", '{"spec": {"runStrategy": "Halted"}}')
    _await(f"{node} has 3 VFs", lambda: _vfs(cluster, node) == 3)
    _await("the pool says so", lambda: _pool_nodes(cluster, "tenant-fast") == "2/3")
    _run(cluster, "kubectl", "get", "snp,vnp")


def _blocked_node(cluster: Cluster) -> str:
    return next((node.name for node in cluster.nodes if cluster.pf(node.name).get("plan", {}).get("blockedBy")), "")


def _show_next(cluster: Cluster) -> None:
    _step("Done. The cluster goes on running; look around:")
    _CONSOLE.print(
        f"   export KUBECONFIG={cluster.plane.kubeconfig}\n"
        f"   export PATH={cluster.programs.kubectl.parent}:{pathlib.Path(sys.executable).parent}:$PATH\n"
        "   kubectl get snp,vnp,nicst                    # pools, policies, nodes\n"
        "   kubectl get snp tenant-fast -o yaml        # problems with their remedies\n"
        "   kubectl vmnic explain vm shop -n tenants   # why a VM is left alone\n"
        "   kubectl explain snp.spec                   # every field\n"
        "   make demo-down                             # stop it"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
