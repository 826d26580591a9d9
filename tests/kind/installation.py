"""Installation of vmnic in a kind cluster with the README's own commands."""

from __future__ import annotations

import os
import pathlib
import shlex
import subprocess
import tempfile

from tests.harness.api import wait_for
from tests.harness.cluster import AGENT_NAMESPACE, NAMESPACE, ROOT
from tests.harness.pages import script_below

from .cluster import KindCluster

__all__ = ["HELM", "OVERLAY", "install", "wait_until_it_works"]

OVERLAY = "deploy/overlays/simulated"
_HERE = {"deploy/overlays/default": OVERLAY, "registry.example/vmnic": "vmnic"}
"""Replacements for the overlay of the pages, since the nodes have no such NICs, and for their registry."""


def _as_here(script: str) -> str:
    for theirs, ours in _HERE.items():
        script = script.replace(theirs, ours)
    return script


HELM = [shlex.split(line) for line in _as_here(script_below(ROOT / "docs" / "install.md", "With Helm", "helm")).splitlines()]
"""The commands of the page about installation."""


def install(cluster: KindCluster) -> None:
    """Install with the README's own commands, and wait until everything runs."""
    script = _as_here(script_below(ROOT / "README.md", "Install", "kubectl apply"))
    path = f"{cluster.programs.kubectl.parent}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as clone:
        (pathlib.Path(clone) / "deploy").symlink_to(ROOT / "deploy")
        command = ["bash", "-euc", script]
        env = os.environ | {"KUBECONFIG": str(cluster.kubeconfig), "PATH": path}
        done = subprocess.run(command, env=env, cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wait_until_it_works(cluster)


def wait_until_it_works(cluster: KindCluster) -> None:
    """Wait until the webhook is trusted and every agent has reported its node's NICs."""
    cluster.kubectl("rollout", "status", "deployment/vmnic-controller", "-n", NAMESPACE, "--timeout=180s")
    cluster.kubectl("rollout", "status", "daemonset/vmnic-agent", "-n", AGENT_NAMESPACE, "--timeout=180s")
    wait_for("the webhook is trusted", lambda: _is_trusted(cluster), 60)
    wait_for("every worker's NICs are told", lambda: all(cluster.pf(node) for node in cluster.workers), 60)


def _is_trusted(cluster: KindCluster) -> bool:
    configuration = cluster.api.get("MutatingWebhookConfiguration", "vmnic") or {"webhooks": [{"clientConfig": {}}]}
    return all("caBundle" in webhook["clientConfig"] for webhook in configuration["webhooks"])
