"""Installs vmnic in a kind cluster as the README says, and takes it out again."""

from __future__ import annotations

from tests.harness.api import wait_for
from tests.harness.cluster import AGENT_NAMESPACE, NAMESPACE, ROOT

from .cluster import KindCluster

__all__ = ["OVERLAY", "install", "wait_until_it_works"]

OVERLAY = ROOT / "deploy" / "overlays" / "simulated"


def install(cluster: KindCluster) -> None:
    """Apply the overlay for simulated nodes, and wait until everything is up."""
    cluster.kubectl("apply", "--server-side", "-k", OVERLAY)
    wait_until_it_works(cluster)


def wait_until_it_works(cluster: KindCluster) -> None:
    """Wait until the controller is trusted and every agent has told what NICs its node has."""
    cluster.kubectl("rollout", "status", "deployment/vmnic-controller", "-n", NAMESPACE, "--timeout=120s")
    cluster.kubectl("rollout", "status", "daemonset/vmnic-agent", "-n", AGENT_NAMESPACE, "--timeout=120s")
    wait_for("the webhook is trusted", lambda: _is_trusted(cluster))
    wait_for("every worker's NICs are told", lambda: all(cluster.pf(node) for node in cluster.workers), 60)


def _is_trusted(cluster: KindCluster) -> bool:
    configuration = cluster.api.get("MutatingWebhookConfiguration", "vmnic") or {"webhooks": []}
    return all("caBundle" in webhook["clientConfig"] for webhook in configuration["webhooks"])
