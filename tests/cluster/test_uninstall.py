"""Uninstallation as in `docs/install.md` leaves nothing of vmnic, in any order.

This is the last file of its tier, because it removes vmnic.
"""

import pathlib
import subprocess
import sys

import pytest

from tests.harness.api import wait_for
from tests.harness.cluster import AGENT_NAMESPACE, ROOT

BASE = str(ROOT / "deploy" / "base")
HOSTS = ("n1", "n2")
PROGRAM = str(pathlib.Path(sys.executable).with_name("kubectl-vmnic"))


@pytest.fixture
def installed(cluster):
    """vmnic with a pool that has VFs.

    It is installed again at the end.
    """
    pool = {"nicSelector": {"models": ["82576"]}, "numVfs": 7, "rollout": {"maxConcurrent": 2}}
    body = {"apiVersion": "vmnic.dev/v1alpha1", "kind": "SriovNetworkPool", "metadata": {"name": "fast"}, "spec": pool}
    cluster.api.apply(body)
    wait_for("there are VFs", lambda: vfs(cluster) == [7, 7], 60)
    yield cluster
    for node in cluster.nodes:
        if cluster.processes.running(f"agent-{node.name}"):
            cluster.kill(f"agent-{node.name}")
    if cluster.processes.running("controller-1"):
        cluster.kill("controller-1")
    cluster.install()
    cluster.start_controller()
    cluster.start_agents()
    cluster.wait_for_webhook()
    wait_for("every agent has reported", lambda: all(cluster.pf(node.name) for node in cluster.nodes), 60)


def vfs(cluster):
    return [cluster.pf(node).get("numVfs", 0) for node in HOSTS]


def leftovers(cluster):
    """Return what exists of vmnic: kinds, namespaces, cluster-scoped objects."""
    found = [crd["metadata"]["name"] for crd in cluster.api.list("CustomResourceDefinition")]
    for kind in ("Namespace", "ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration"):
        found += [one["metadata"]["name"] for one in cluster.api.list(kind)]
    return [name for name in found if "vmnic" in name]


def end_pods(cluster):
    """End the agents' pods, as the kubelets would that this tier lacks."""
    for pod in cluster.api.list("Pod", AGENT_NAMESPACE):
        cluster.api.delete("Pod", pod["metadata"]["name"], AGENT_NAMESPACE, "?gracePeriodSeconds=0")


def uninstall(cluster, *flags):
    """Run `kubectl vmnic uninstall --apply`, which must end by itself."""
    command = [PROGRAM, "uninstall", "--apply", *flags, "--kubeconfig", str(cluster.plane.kubeconfig)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pools_first_resets_the_hosts_and_leaves_nothing(installed):
    installed.kubectl("delete", "snp,vnp", "--all", "--timeout=60s")
    assert vfs(installed) == [0, 0]
    end_pods(installed)
    installed.kubectl("delete", "-k", BASE, "--timeout=90s")
    assert leftovers(installed) == []


def test_hosts_are_reset_although_the_controller_is_gone(installed):
    installed.kill("controller-1")
    told = uninstall(installed)
    assert vfs(installed) == [0, 0]
    assert "waiting: node n1, 0000:0b:00.0: is being released" in told
    end_pods(installed)
    installed.kubectl("delete", "-k", BASE, "--timeout=90s")
    assert leftovers(installed) == []


@pytest.mark.parametrize("controller", ["there", "gone"])
def test_everything_at_once_leaves_nothing(installed, controller):
    if controller == "gone":
        installed.kill("controller-1")
    installed.kubectl("delete", "-k", BASE, "--wait=false")
    end_pods(installed)
    uninstall(installed)
    wait_for("nothing is left", lambda: leftovers(installed) == [], 90)


def test_abandon_leaves_nothing_although_no_process_runs(installed):
    installed.kill("controller-1")
    for node in installed.nodes:
        installed.kill(f"agent-{node.name}")
    uninstall(installed, "--abandon")
    assert installed.api.list("SriovNetworkPool") == []
    end_pods(installed)
    installed.kubectl("delete", "-k", BASE, "--timeout=90s")
    assert leftovers(installed) == []
