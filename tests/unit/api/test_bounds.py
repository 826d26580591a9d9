"""Every field of every kind has bounds, and the agent's structs enforce the bounds of the CRD."""

import msgspec
import pytest
from pydantic import ValidationError

from tests.builders.node import pool
from tests.unit.api.test_crd import fields_of
from vmnic.api.crd import KINDS
from vmnic.api.node_state import NodeNicState
from vmnic.nodes import state

BOUNDS = ("minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems", "enum")
NEEDED = {"integer": {"minimum", "maximum"}, "array": {"maxItems"}, "number": {"minimum", "maximum"}}


def lacks_bounds(node):
    kind = node.get("type")
    if kind == "string":
        return not {"maxLength", "enum"} & node.keys()
    if kind == "object" and "properties" not in node:
        return "maxProperties" not in node
    return not NEEDED.get(kind, set()) <= node.keys()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_has_bounds(kind):
    assert [path for path, node in fields_of(kind) if lacks_bounds(node)] == []


def bounds_of(node):
    found = {name: node[name] for name in BOUNDS if name in node}
    if "pattern" in found:
        found["pattern"] = found["pattern"].replace(r"\Z", "$")
    if "enum" in found:
        found["enum"] = sorted(found["enum"])
    return found


def lean_nodes(node, definitions, path=""):
    """Yield every node of msgspec's schema, with its path and without null."""
    while "$ref" in node or "anyOf" in node:
        node = next(one for one in node.get("anyOf", [node]) if one.get("type") != "null")
        node = definitions[node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from lean_nodes(child, definitions, f"{path}.{name}")
    if isinstance(node.get("items"), dict):
        yield from lean_nodes(node["items"], definitions, f"{path}[]")


def test_the_agents_structs_enforce_the_bounds_of_the_crd():
    (root,), definitions = msgspec.json.schema_components([state.NodeNicState])
    lean = {path: bounds_of(node) for path, node in lean_nodes(root, definitions)}
    crd = {path: bounds_of(node) for path, node in fields_of(NodeNicState)}
    # A controller stores a newer agent's reason, and sets the status aside if it does not know the reason.
    del lean[".status.pfs[].problem.reason"], crd[".status.pfs[].problem.reason"]
    assert {path: lean.get(path) for path in crd} == crd


def test_ipam_that_is_nested_too_deeply_is_refused():
    ipam: dict = {}
    for _ in range(20):
        ipam = {"a": ipam}
    with pytest.raises(ValidationError, match="ipam"):
        pool(networks=[{"name": "a", "ipam": ipam}])
