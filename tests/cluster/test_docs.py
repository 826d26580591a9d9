"""Every command of the tutorial is run, in its order, on the cluster of this tier."""

import os
import pathlib
import re
import subprocess
import sys

from tests.harness.api import wait_for
from tests.harness.cluster import ROOT


def commands(page):
    """The lines that begin with `$` in the page's console blocks, with the exit code that the page names."""
    for reason, block in re.findall(r"(<!-- not run: [^\n]*\n)?```console\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        for line in () if reason else re.findall(r"^\$ (.*)$", block, re.MULTILINE):
            command, _, note = line.partition(" # exits with ")
            yield command, int(note or 0)


PAGES = ("docs/tutorial.md", "docs/troubleshooting.md", "docs/gitops.md")
"""In this order: the later ones are about what the first one leaves. `tests/unit/test_docs.py` holds that no other page has
commands that are not run and do not say why."""


def test_the_tutorial_and_what_builds_on_it_run_as_they_stand(cluster):
    path = f"{cluster.programs.kubectl.parent}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"KUBECONFIG": str(cluster.plane.kubeconfig), "PATH": path}
    ran = 0
    try:
        cluster.kubectl("create", "namespace", "argocd")
        for command, expected in [one for page in PAGES for one in commands(page)]:
            wait_for(f"the controller has caught up before: {command}", lambda: settled(cluster))
            done = subprocess.run(["bash", "-c", command], env=env, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == expected, f"{command}\n{done.stdout}{done.stderr}"
            ran += 1
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
    assert ran > 20


def settled(cluster):
    """Whether every policy and pool was looked at and every grant has come to its end; a used one may stand for a while."""
    objects = [*cluster.api.list("SriovNetworkPool"), *cluster.api.list("VmNicPolicy")]
    seen = all(one.get("status", {}).get("observedGeneration") == one["metadata"]["generation"] for one in objects)
    return seen and not any(
        is_open(state, pf) for state in cluster.api.list("NodeNicState") for pf in state["spec"].get("pfs", [])
    )


def is_open(state, pf):
    found = next((one for one in state["status"]["pfs"] if one["pciAddress"] == pf["pciAddress"]), {}).get("apply", {})
    ended = found.get("digest") == pf.get("grant") and found.get("state") not in ("Claimed", "Applying")
    return bool(pf.get("grant")) and not ended


def test_every_example_is_taken_by_the_api_server(cluster, namespace):
    for file in sorted((ROOT / "examples").rglob("*.yaml")):
        text = file.read_text().replace("namespace: tenants", f"namespace: {namespace}")
        done = subprocess.run(
            [str(cluster.programs.kubectl), f"--kubeconfig={cluster.plane.kubeconfig}", "apply", "--dry-run=server", "-f", "-"],
            input=text, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{file}: {done.stderr}"


def manifests(page):
    """The objects of vmnic in the page's YAML blocks."""
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        if "apiVersion: vmnic.dev/" in block:
            yield block


def test_every_manifest_in_the_documentation_is_taken_by_the_api_server(cluster):
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    found = [(page.name, text) for page in pages for text in manifests(page)]
    for page, text in found:
        done = subprocess.run(
            [str(cluster.programs.kubectl), f"--kubeconfig={cluster.plane.kubeconfig}", "apply", "--dry-run=server", "-f", "-"],
            input=text, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{page}: {done.stderr}"
    assert len(found) > 4
