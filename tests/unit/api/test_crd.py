"""The committed CRDs match the models and are structural by Kubernetes' rules."""

import pathlib

import pytest
import yaml

from vmnic.api.crd import KINDS, render_crd, render_crd_yaml

CRDS = pathlib.Path(__file__).parents[3] / "crds"


def nodes_of(schema, path=""):
    """Yield every schema node with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes_of(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes_of(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes_of(schema["additionalProperties"], f"{path}{{}}")


def schema_of(kind):
    return render_crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def fields_of(kind):
    return [(path, node) for path, node in nodes_of(schema_of(kind)) if path.startswith((".spec", ".status"))]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_committed_crd_matches_the_models(kind):
    committed = (CRDS / f"{kind.PLURAL}.yaml").read_text()
    assert committed == render_crd_yaml(kind), "run `make crds`"
    assert yaml.safe_load(committed) == render_crd(kind)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_is_described(kind):
    bare = [path for path, node in fields_of(kind) if not path.endswith(("[]", "{}")) and not node.get("description")]
    assert bare == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_list_string_and_map_has_a_bound(kind):
    unbounded = [
        path
        for path, node in fields_of(kind)
        if (node.get("type") == "array" and "maxItems" not in node)
        or (node.get("type") == "object" and "additionalProperties" in node and "maxProperties" not in node)
        or (node.get("type") == "string" and not {"maxLength", "enum", "pattern"} & node.keys())
    ]
    assert unbounded == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_schema_is_structural(kind):
    forbidden = {"$ref", "anyOf", "allOf", "oneOf", "const", "title", "exclusiveMinimum"}
    assert [path for path, node in fields_of(kind) if forbidden & node.keys()] == []
    untyped = [path for path, node in fields_of(kind) if "type" not in node and not node.get("x-kubernetes-int-or-string")]
    assert untyped == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_status_has_no_defaults(kind):
    assert [path for path, node in fields_of(kind) if path.startswith(".status") and "default" in node] == []
