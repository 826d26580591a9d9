"""Every command of the tutorial runs in its order on this tier's cluster, and prints what the page shows."""

import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

from tests.harness.api import wait_for
from tests.harness.cluster import ROOT
from tests.harness.pages import read_steps

PAGES = (
    "docs/tutorial.md",
    "docs/kinds/sriovnetworkpool.md",
    "docs/kinds/vmnicpolicy.md",
    "docs/kinds/nodenicstate.md",
    "docs/kinds/vmnicstate.md",
    "docs/troubleshooting.md",
    "docs/gitops.md",
)
"""In this order, because the later pages build on the first one. `tests/unit/test_docs.py` checks that every other page with
commands that are not run says why.
"""


@pytest.mark.timeout(300)  # About fifty commands, each a process of its own.
def test_tutorial_and_later_pages_run_as_shown(cluster):
    answers = []
    try:
        cluster.kubectl("create", "namespace", "argocd")
        for page in PAGES:
            answers += [answer_as_shown(cluster, page, step) for step in read_steps(ROOT / page)]
        wait_for("db's node is done as well", lambda: all(cluster.pf(node).get("numVfs") == 3 for node in ("n1", "n2")))
    finally:
        cluster.kubectl("delete", "namespace", "argocd", "--wait=false", check=False)
        cluster.kubectl("delete", "vm", "--all", "-n", "tenants", check=False)
        cluster.kubectl("delete", "-f", "examples/policies", "--ignore-not-found")
        cluster.kubectl("patch", "snp", "tenant-fast", "--type=merge", "-p", '{"spec": {"numVfs": 0}}', check=False)
        wait_for("no VFs are left", lambda: not any(cluster.pf(node.name).get("numVfs") for node in cluster.nodes))
        cluster.kubectl("delete", "-f", "examples/pools", "--ignore-not-found")
        wait_for(
            "no node is asked for anything", lambda: not any(s["spec"].get("pfs") for s in cluster.api.list("NodeNicState"))
        )
    for step in read_steps(ROOT / "README.md"):
        assert any(step.is_shown_by(answer.stdout) for answer in answers if answer.args[-1] == step.command), step
    assert len(answers) > 20


def answer_as_shown(cluster, page, step):
    """Run a step's command.

    One that only reads is repeated until it shows what the page shows.
    """
    wait_for(f"the controller has caught up before: {step.command}", lambda: settled(cluster))
    answer = type_in(cluster, step.command)
    reads = re.match(r"kubectl (get|describe|vmnic (?!approve|revert))", step.command)
    deadline = time.monotonic() + 20
    while reads and not step.is_shown_by(answer.stdout) and time.monotonic() < deadline:
        answer = type_in(cluster, step.command)
    assert answer.returncode == step.code, f"{page}: {step.command}\n{answer.stdout}{answer.stderr}"
    assert step.is_shown_by(answer.stdout), f"{page} shows something else for {step.command}:\n{answer.stdout}"
    return answer


def type_in(cluster, command):
    """Run a command as a reader would who has set the variables that `make demo` prints."""
    path = f"{cluster.programs.kubectl.parent}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"KUBECONFIG": str(cluster.plane.kubeconfig), "PATH": path}
    return subprocess.run(["bash", "-c", command], env=env, cwd=ROOT, capture_output=True, text=True, check=False)


def settled(cluster):
    """Return whether every policy and pool is reconciled and every grant has ended.

    A spent grant may stay for a while.
    """
    objects = [*cluster.api.list("SriovNetworkPool"), *cluster.api.list("VmNicPolicy")]
    seen = all(one.get("status", {}).get("observedGeneration") == one["metadata"]["generation"] for one in objects)
    return seen and not any(
        is_open(state, pf) for state in cluster.api.list("NodeNicState") for pf in state["spec"].get("pfs", [])
    )


def is_open(state, pf):
    found = next((one for one in state["status"]["pfs"] if one["pciAddress"] == pf["pciAddress"]), {}).get("apply", {})
    ended = found.get("digest") == pf.get("grant") and found.get("state") not in ("Claimed", "Applying")
    return bool(pf.get("grant")) and not ended


def test_every_example_is_accepted_by_the_api_server(cluster, namespace):
    for file in sorted((ROOT / "examples").rglob("*.yaml")):
        text = file.read_text().replace("namespace: tenants", f"namespace: {namespace}")
        done = subprocess.run(
            [str(cluster.programs.kubectl), f"--kubeconfig={cluster.plane.kubeconfig}", "apply", "--dry-run=server", "-f", "-"],
            input=text, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{file}: {done.stderr}"


def manifests(page):
    """Return vmnic's objects in the page's YAML blocks."""
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        if "apiVersion: vmnic.dev/" in block:
            yield block


def test_every_manifest_in_the_docs_is_accepted(cluster):
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    found = [(page.name, text) for page in pages for text in manifests(page)]
    for page, text in found:
        done = subprocess.run(
            [str(cluster.programs.kubectl), f"--kubeconfig={cluster.plane.kubeconfig}", "apply", "--dry-run=server", "-f", "-"],
            input=text, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{page}: {done.stderr}"
    assert len(found) > 4
