"""Installs vmnic in a kind cluster with the README's own commands."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from tests.harness.api import wait_for
from tests.harness.cluster import AGENT_NAMESPACE, NAMESPACE, ROOT

from .cluster import KindCluster

__all__ = ["OVERLAY", "README", "install", "wait_until_it_works"]

OVERLAY = "deploy/overlays/simulated"
"""What takes the place of the README's overlay, since the nodes have no such NICs."""


@dataclass(frozen=True)
class _Commands:
    """What the README says to type."""

    kubectl: list[str]
    helm: list[str]


def _read_commands() -> _Commands:
    section = (ROOT / "README.md").read_text().split("## Install\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]
    kubectl, helm = (
        next(shlex.split(line, comments=True) for line in lines if line.startswith(word))
        for word in ("kubectl apply", "helm install")
    )
    return _Commands(kubectl, helm)


README = _read_commands()


def install(cluster: KindCluster) -> None:
    """Install with kubectl, and wait until everything is up."""
    cluster.kubectl(*(OVERLAY if word.startswith("deploy/overlays/") else word for word in README.kubectl[1:]))
    wait_until_it_works(cluster)


def wait_until_it_works(cluster: KindCluster) -> None:
    """Wait until the controller is trusted and every agent has told what NICs its node has."""
    cluster.kubectl("rollout", "status", "deployment/vmnic-controller", "-n", NAMESPACE, "--timeout=180s")
    cluster.kubectl("rollout", "status", "daemonset/vmnic-agent", "-n", AGENT_NAMESPACE, "--timeout=180s")
    wait_for("the webhook is trusted", lambda: _is_trusted(cluster), 60)
    wait_for("every worker's NICs are told", lambda: all(cluster.pf(node) for node in cluster.workers), 60)


def _is_trusted(cluster: KindCluster) -> bool:
    configuration = cluster.api.get("MutatingWebhookConfiguration", "vmnic") or {"webhooks": [{"clientConfig": {}}]}
    return all("caBundle" in webhook["clientConfig"] for webhook in configuration["webhooks"])
