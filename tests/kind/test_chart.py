"""Installation, operation and removal with Helm."""

import subprocess

import pytest

from tests.harness.api import wait_for
from tests.harness.cluster import AGENT_NAMESPACE, ROOT
from tests.harness.packaging import ensure_helm, make_chart

from .installation import HELM, wait_until_it_works
from .pods import POOL, wait_for_vfs

_POOL = ROOT / "examples" / "pools" / f"{POOL}.yaml"


@pytest.fixture(scope="module")
def helm(cluster):
    """Return a function that runs Helm as the administrator."""
    program = ensure_helm()

    def run(*arguments):
        command = [program, f"--kubeconfig={cluster.kubeconfig}", *arguments]
        done = subprocess.run([str(word) for word in command], text=True, capture_output=True, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_chart_works_like_the_overlay(cluster, helm):
    make_chart(ROOT / "build" / "chart" / "vmnic")
    (_, *install), (_, *label) = HELM
    helm(*install, "--set=simulated=true")
    cluster.kubectl(*label)
    wait_until_it_works(cluster)
    cluster.kubectl("apply", "-f", _POOL)
    wait_for_vfs(cluster, 7)


def test_uninstalling_the_chart_leaves_pools_and_vfs(cluster, helm):
    helm("uninstall", "vmnic", "--namespace=vmnic-system", "--wait")
    wait_for("no agent is left", lambda: not cluster.api.list("Pod", AGENT_NAMESPACE), 60)
    assert [len(cluster.vfs(node)) for node in cluster.workers] == [7, 7]
    assert cluster.api.get("SriovNetworkPool", POOL)
