"""Rendering of the manifests with kubectl's kustomize and with Helm, which is built once like the other programs."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import Any

import yaml

from .programs import Go, _build, _locked, cache_directory, ensure

__all__ = [
    "CHART_VALUES",
    "OVERLAYS",
    "RENDERED",
    "ensure_helm",
    "kustomize",
    "make_chart",
    "make_release",
    "rendered",
    "template",
]

HELM = "4.3.1"
ROOT = pathlib.Path(__file__).parents[2]
OVERLAYS = ROOT / "deploy" / "overlays"
RENDERED = ROOT / "tests" / "cluster" / "rendered.txt"
"""Golden file of `rendered`."""
CHART_VALUES = {
    "module-options": ("--set=agent.moduleOptions=true",),
    "udev-rules": ("--set=agent.udevRules=true",),
    "libvirt": ("--set=agent.libvirt=true",),
    "no-modules": ("--set=agent.loadModules=false",),
    "apparmor-unconfined": ("--set=agent.appArmorUnconfined=true",),
    "privileged": ("--set=agent.privileged=true",),
    "simulated": ("--set=simulated=true",),
    "prometheus": ("--set=prometheus=true",),
    "client-ca": ("--set=controller.clientCa=true",),
}
"""Helm flags that correspond to a kustomize component."""


def ensure_helm() -> pathlib.Path:
    """Return Helm's path, building it if it is missing."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"helm-{HELM}"
    with _locked(cache / "programs.lock"):
        if not target.is_dir():
            _build(target, f"building Helm {HELM} (about 1 min)", _build_helm)
    return target / "helm"


def _build_helm(go: Go, work: pathlib.Path, out: pathlib.Path) -> None:
    (work / "go.mod").write_text(f"module testdeps\n\ngo 1.26.0\n\nrequire helm.sh/helm/v4 v{HELM}\n")
    go.build(work, out / "helm", "helm.sh/helm/v4/cmd/helm")


def kustomize(directory: pathlib.Path) -> list[dict[str, Any]]:
    """Render a kustomization."""
    return _documents(str(ensure().kubectl), "kustomize", str(directory))


def rendered() -> str:
    """Return a line for each object of each overlay, with a digest of its content."""
    lines = []
    for overlay in sorted(OVERLAYS.iterdir()):
        for body in kustomize(overlay):
            digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
            lines.append(f"{overlay.name} {body['kind']} {body['metadata']['name']} {digest}\n")
    return "".join(lines)


def make_chart(target: pathlib.Path) -> pathlib.Path:
    """Create the Helm chart."""
    subprocess.run([sys.executable, ROOT / "deploy" / "make_chart.py", ensure().kubectl, target], check=True)
    return target


def template(chart: pathlib.Path, *flags: str) -> list[dict[str, Any]]:
    """Render the Helm chart.

    The last of repeated flags wins.
    """
    return _documents(str(ensure_helm()), "template", "vmnic", str(chart), "--namespace=vmnic-system", *flags)


def _documents(*command: str) -> list[dict[str, Any]]:
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return [document for document in yaml.load_all(done.stdout, yaml.CSafeLoader) if document]


def make_release(image: str, digest: str, target: pathlib.Path) -> None:
    """Write the files of a release, `install.yaml` and the chart, both of which name the image by digest."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as directory:
        here = pathlib.Path(directory).resolve()
        overlay = os.path.relpath(OVERLAYS / "default", here)
        images = [{"name": "vmnic", "newName": image, "digest": digest}]
        (here / "kustomization.yaml").write_text(yaml.safe_dump({"resources": [overlay], "images": images}))
        (target / "install.yaml").write_text(yaml.dump_all(kustomize(here), Dumper=yaml.CSafeDumper, sort_keys=False))
        chart = make_chart(here / "vmnic")
        values = (chart / "values.yaml").read_text()
        values = values.replace("repository: vmnic", f"repository: {image}").replace('digest: ""', f"digest: {digest}")
        (chart / "values.yaml").write_text(values)
        subprocess.run([ensure_helm(), "package", chart, "--destination", target], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    if sys.argv[1:]:
        make_release(sys.argv[1], sys.argv[2], ROOT / "build" / "release")
    else:
        print(f"made {make_chart(ROOT / 'build' / 'chart' / 'vmnic').relative_to(ROOT)}; helm is {ensure_helm()}")
