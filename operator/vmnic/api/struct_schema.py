"""JSON Schema of msgspec structs, in the form that `crd` reads from pydantic."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
from typing import Any

import msgspec

__all__ = ["struct_schema"]


def struct_schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the schema of a struct.

    The docstring below a field becomes its description. Optional fields are absent instead of null, which is not a type in
    Kubernetes.
    """
    (root,), definitions = msgspec.json.schema_components([kind])
    kinds = _structs_in(kind)
    for name, definition in definitions.items():
        for struct in (one for one in kinds if one.__name__ == name):
            _describe(struct, definition)
    made = _converted(definitions)
    schema: dict[str, Any] = made[root["$ref"].rsplit("/", 1)[1]]
    return {**schema, "$defs": made}


def _structs_in(kind: type[msgspec.Struct]) -> set[type[msgspec.Struct]]:
    """Return all structs that a struct contains, and itself."""
    found: set[type[msgspec.Struct]] = set()
    left: list[Any] = [msgspec.inspect.type_info(kind)]
    while left:
        one = left.pop()
        if isinstance(one, msgspec.inspect.StructType) and one.cls not in found:
            found.add(one.cls)
            left += [field.type for field in one.fields]
        left += [*getattr(one, "types", ()), *filter(None, (getattr(one, "item_type", None),))]
        left += [one.type] if isinstance(one, msgspec.inspect.Metadata) else []
    return found


def _describe(struct: type[msgspec.Struct], definition: dict[str, Any]) -> None:
    """Add the docstrings of a struct's fields to its schema."""
    texts = _field_docs(struct)
    for field in msgspec.structs.fields(struct):
        if field.name in texts:
            definition["properties"][field.encode_name]["description"] = texts[field.name]


@functools.cache
def _field_docs(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Read the docstrings below the fields of a struct from its source."""
    (parsed,) = ast.parse(inspect.getsource(struct)).body
    assert isinstance(parsed, ast.ClassDef)
    found = {}
    for field, text in itertools.pairwise(parsed.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = ast.literal_eval(text.value)
    return found


def _converted(node: Any) -> Any:
    """Remove null types and null defaults, and write patterns and the order of keywords as pydantic does."""
    if isinstance(node, list | tuple):
        return [_converted(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("enum", ()) is None:
        # A field whose values are not restricted, although those that this version knows are an enum.
        node.pop("$ref")
    kinds = [one for one in node.get("anyOf", ()) if one.get("type") != "null"]
    if len(kinds) == 1:
        node = kinds[0] | {key: value for key, value in node.items() if key != "anyOf"}
    if "enum" in node:
        node = {"type": "string"} | node
    if isinstance(node.get("pattern"), str):
        node["pattern"] = node["pattern"].replace(r"\Z", "$")
    return {
        # Names of fields are not keywords, and keep their order.
        key: {name: _converted(field) for name, field in value.items()} if key == "properties" else _converted(value)
        for key, value in sorted(node.items())
        if value is not None and (key, value) != ("required", [])
    }
