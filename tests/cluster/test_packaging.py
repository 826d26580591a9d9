"""kustomize and Helm render the same objects for every choice of options."""

import itertools
import json
import os
import re
import subprocess

import msgspec
import pytest
import yaml

from tests.harness.packaging import (
    CHART_VALUES,
    OVERLAYS,
    RENDERED,
    ROOT,
    ensure_helm,
    kustomize,
    make_chart,
    make_release,
    rendered,
    template,
)
from vmnic.nodes.nics import NicModel

DIGEST = "sha256:" + "0" * 64
COMPONENTS = sorted(CHART_VALUES)


@pytest.fixture(scope="session")
def chart(tmp_path_factory):
    return make_chart(tmp_path_factory.mktemp("chart") / "vmnic")


def comparable(documents):
    """Return objects by kind and name, without empty fields, fields that only Helm needs, and the order of lists."""
    found = {}
    for body in documents:
        if body["kind"] == "CustomResourceDefinition":
            body["metadata"].get("annotations", {}).pop("helm.sh/resource-policy", None)
        if (body["kind"], body["metadata"]["name"]) != ("Namespace", "vmnic-system"):
            found[body["kind"], body["metadata"].get("namespace"), body["metadata"]["name"]] = plain(body)
    return found


def plain(tree):
    if isinstance(tree, dict):
        return {
            key: value for key, value in ((key, plain(value)) for key, value in tree.items()) if value not in ({}, [], None)
        }
    if isinstance(tree, list):
        return sorted((plain(item) for item in tree), key=lambda item: json.dumps(item, sort_keys=True))
    return tree


@pytest.mark.parametrize("overlay", sorted(entry.name for entry in OVERLAYS.iterdir()))
def test_overlay_and_its_helm_value_give_the_same_objects(chart, overlay):
    rendered = template(chart, *CHART_VALUES.get(overlay, ()))
    assert comparable(rendered) == comparable(kustomize(OVERLAYS / overlay))


def test_overlays_match_the_golden_file():
    assert rendered() == RENDERED.read_text(), "if the change is wanted: make golden"


@pytest.mark.parametrize("pair", list(itertools.combinations(COMPONENTS, 2)), ids="+".join)
def test_two_components_can_be_combined(chart, tmp_path, pair):
    base, *components = (
        os.path.relpath(ROOT / "deploy" / name, tmp_path) for name in ("base", *(f"components/{name}" for name in pair))
    )
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"resources": [base], "components": components}))
    flags = [flag for name in pair for flag in CHART_VALUES[name]]
    assert comparable(template(chart, *flags)) == comparable(kustomize(tmp_path))


def overlay_of(page, directory):
    """Render the overlay that a page shows, with the file that it shows beside it."""
    (directory / "deploy").symlink_to(ROOT / "deploy")
    mine = directory / "my-overlay"
    mine.mkdir()
    for block in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL):
        (mine / ("kustomization.yaml" if "kind: Kustomization" in block else "nics.yaml")).write_text(block)
    return comparable(kustomize(mine))


def test_overlay_of_the_install_page_names_the_image(tmp_path):
    found = overlay_of("install.md", tmp_path)
    (controller,) = found["Deployment", "vmnic-system", "vmnic-controller"]["spec"]["template"]["spec"]["containers"]
    assert controller["image"] == "registry.example/vmnic:0.1.0"
    assert ("PodMonitor", "vmnic-system", "vmnic-controller") in found


def test_overlay_of_the_nics_page_reaches_controller_and_agents(tmp_path):
    found = overlay_of("nics.md", tmp_path)
    for kind, namespace, name in (
        ("Deployment", "vmnic-system", "vmnic-controller"), ("DaemonSet", "vmnic-agents", "vmnic-agent"),
    ):  # fmt: skip
        pod = found[kind, namespace, name]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert {"name": "VMNIC_NIC_DATA", "value": "/etc/vmnic/nics.yaml"} in container["env"]
        (file,) = (volume["configMap"]["name"] for volume in pod["volumes"] if volume["name"] == "nics")
        data = found["ConfigMap", namespace, file]["data"]["nics.yaml"]
        assert msgspec.convert(yaml.safe_load(data), tuple[NicModel, ...])


def test_chosen_values_reach_the_objects(chart):
    flags = ("--set=image.repository=registry.example/vmnic,image.digest=" + DIGEST, "--set=controller.replicas=3")
    found = comparable(template(chart, *flags, "--set=agent.logLevel=debug,imagePullSecrets[0].name=pull"))
    controller = found["Deployment", "vmnic-system", "vmnic-controller"]["spec"]
    agent = found["DaemonSet", "vmnic-agents", "vmnic-agent"]["spec"]["template"]["spec"]
    assert controller["replicas"] == 3
    assert agent["containers"][0]["image"] == f"registry.example/vmnic@{DIGEST}"
    assert {"name": "VMNIC_LOG_LEVEL", "value": "debug"} in agent["containers"][0]["env"]
    assert agent["imagePullSecrets"] == [{"name": "pull"}]
    assert not any(kind == "CustomResourceDefinition" for kind, *_ in comparable(template(chart, "--set=crds.install=false")))


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--set=agent.privilege=true", "privilege"),
        ("--set=controller.replicas=0", "replicas"),
        ("--set=controller.logLevel=loud", "logLevel"),
        ("--set-string=simulated=yes", "simulated"),
        ("--namespace=default", "vmnic-system"),
    ],
)
def test_invalid_value_is_refused_by_its_name(chart, flag, named):
    with pytest.raises(RuntimeError, match=named):
        template(chart, flag)


def test_helm_lint_finds_nothing(chart):
    done = subprocess.run(
        [ensure_helm(), "lint", "--strict", chart, "--namespace=vmnic-system"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_release_names_its_image_by_digest(tmp_path):
    make_release("registry.example/vmnic", DIGEST, tmp_path / "release")
    (packed,) = (tmp_path / "release").glob("vmnic-*.tgz")
    installed = list(yaml.load_all((tmp_path / "release" / "install.yaml").read_text(), yaml.CSafeLoader))
    assert comparable(template(packed)) == comparable(installed)
    (agent,) = (body for body in installed if body["kind"] == "DaemonSet")
    assert agent["spec"]["template"]["spec"]["containers"][0]["image"] == f"registry.example/vmnic@{DIGEST}"
