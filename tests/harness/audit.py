"""Audit of the rendered manifests: `python -m tests.harness.audit CHECKOV`.

Every overlay must conform to Kubernetes' own schemas, in the oldest supported version and in the newest one. checkov's findings
in the default overlay must be exactly those that `deploy/exceptions.yaml` explains.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import kubernetes_validate
import yaml

from .packaging import OVERLAYS, ROOT, kustomize

EXCEPTIONS = ROOT / "deploy" / "exceptions.yaml"
AT_MOST = 6
VERSIONS = ("1.32", kubernetes_validate.latest_version())
_FOREIGN = ("vmnic.dev", "monitoring.coreos.com")
"""API groups that do not belong to Kubernetes."""


def main(checkov: str) -> int:
    """Print the faults and return 0 if there are none."""
    rendered = {overlay.name: kustomize(overlay) for overlay in sorted(OVERLAYS.iterdir())}
    wrong = [text for name, documents in rendered.items() for text in unknown_fields(name, documents)]
    wrong += unexplained(findings(checkov, rendered["default"]), yaml.safe_load(EXCEPTIONS.read_text()))
    print("\n".join(wrong) or f"audit: ok, {len(rendered)} overlays")
    return 1 if wrong else 0


def unknown_fields(overlay: str, documents: list[dict[str, Any]]) -> list[str]:
    """Return fields that Kubernetes' schemas do not define."""
    wrong = []
    for document in documents:
        if document["apiVersion"].split("/")[0] not in _FOREIGN:
            for version in VERSIONS:
                try:
                    kubernetes_validate.validate(document, version, strict=True)
                except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                    wrong.append(f"{overlay}: {document['kind']} {document['metadata']['name']}, Kubernetes {version}: {error}")
    return wrong


def findings(checkov: str, documents: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Return the objects in which each check of checkov finds a fault.

    Images are named by digest, as in a release.
    """
    with tempfile.TemporaryDirectory() as directory:
        text = yaml.safe_dump_all(documents).replace("image: vmnic:", f"image: vmnic@sha256:{'0' * 64} #")
        pathlib.Path(directory, "default.yaml").write_text(text)
        command = [checkov, "-d", directory, "--framework", "kubernetes", "-o", "json", "--quiet", "--skip-download"]
        done = subprocess.run(command, text=True, capture_output=True, check=False)
    found: dict[str, set[str]] = {}
    for failed in json.loads(done.stdout)["results"]["failed_checks"]:
        kind, _, name = failed["resource"].split(".", 2)
        found.setdefault(f"{failed['check_id']} ({failed['check_name']})", set()).add(f"{kind} {name}")
    return found


def unexplained(found: dict[str, set[str]], exceptions: list[dict[str, Any]]) -> list[str]:
    """Return findings without an explanation, and explanations without a finding."""
    explained = {entry["check"]: set(entry["objects"]) for entry in exceptions if entry["reason"]}
    ids = {check.split()[0] for check in found}
    wrong = [
        f"{check}: {', '.join(sorted(objects))}"
        for check, objects in found.items()
        if explained.get(check.split()[0]) != objects
    ]
    wrong += [f"{check} is explained in {EXCEPTIONS.name} and no longer found" for check in explained.keys() - ids]
    if len(exceptions) > AT_MOST:
        wrong.append(f"{len(exceptions)} exceptions are more than {AT_MOST}")
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
