"""Uninstalled as `docs/install.md` says: nothing of vmnic is left, whatever went first. The last file of its tier, for that reason."""

import pytest

from tests.harness.api import wait_for
from tests.harness.cluster import AGENT_NAMESPACE, NAMESPACE, ROOT

BASE = str(ROOT / "deploy" / "base")
HOSTS = ("n1", "n2")


@pytest.fixture
def installed(cluster):
    """vmnic with a pool that has VFs; installed again at the end."""
    pool = {"nicSelector": {"models": ["82576"]}, "numVfs": 7, "rollout": {"maxConcurrent": 2}}
    body = {"apiVersion": "vmnic.dev/v1alpha1", "kind": "SriovNetworkPool", "metadata": {"name": "fast"}, "spec": pool}
    cluster.api.apply(body)
    wait_for("there are VFs", lambda: vfs(cluster) == [7, 7], 60)
    yield cluster
    for node in cluster.nodes:
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
    """What is there of vmnic: kinds, namespaces, cluster-wide objects."""
    found = [crd["metadata"]["name"] for crd in cluster.api.list("CustomResourceDefinition")]
    for kind in ("Namespace", "ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration"):
        found += [one["metadata"]["name"] for one in cluster.api.list(kind)]
    return [name for name in found if "vmnic" in name]


def end_pods(cluster):
    """End the agents' pods, as the kubelets would that this tier has not."""
    for pod in cluster.api.list("Pod", AGENT_NAMESPACE):
        cluster.api.delete("Pod", pod["metadata"]["name"], AGENT_NAMESPACE, "?gracePeriodSeconds=0")


def is_gone(cluster):
    """Let pools go as the page says where no controller does, and tell whether anything is left; the kind itself may be gone by then."""
    for name in cluster.kubectl("get", "snp", "-o", "name", check=False).split():
        if name.startswith("sriovnetworkpool.vmnic.dev/"):
            cluster.kubectl("patch", name, "--type=merge", "-p", '{"metadata": {"finalizers": null}}', check=False)
    return leftovers(cluster) == []


def test_pools_first_resets_the_hosts_and_leaves_nothing(installed):
    installed.kubectl("delete", "snp,vnp", "--all", "--timeout=60s")
    assert vfs(installed) == [0, 0]
    end_pods(installed)
    installed.kubectl("delete", "-k", BASE, "--timeout=90s")
    assert leftovers(installed) == []


def test_all_at_once_leaves_nothing(installed):
    installed.kubectl("delete", "-k", BASE, "--wait=false")
    end_pods(installed)
    wait_for("nothing is left", lambda: is_gone(installed), 90)


def test_with_the_controller_gone_nothing_is_stuck(installed):
    installed.kill("controller-1")
    installed.kubectl("delete", f"namespace/{NAMESPACE}", "--wait=false")
    installed.kubectl("delete", "-k", BASE, "--wait=false", "--ignore-not-found")
    end_pods(installed)
    wait_for("nothing is left", lambda: is_gone(installed), 90)
