"""CRDs in `crds/`, made from the models and structs by `python -m vmnic.api.crd DIRECTORY`.

pydantic writes JSON Schema, but Kubernetes requires a *structural* schema. So references are inlined, titles and null types
are dropped, and `const` becomes an enum. Every default is kept, because the API server fills in defaults and CEL rules read
them.
"""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from .common import GROUP, VERSION
from .node_state import NodeNicState
from .policy import VmNicPolicy
from .pool import SriovNetworkPool
from .struct_schema import struct_schema
from .vm_state import VmNicState

__all__ = ["KINDS", "render_crd", "render_crd_yaml"]

Kind = type[SriovNetworkPool | VmNicPolicy | NodeNicState | VmNicState]
KINDS: tuple[Kind, ...] = (
    SriovNetworkPool,
    VmNicPolicy,
    NodeNicState,
    VmNicState,
)

_DROPPED = {"title", "additionalProperties", "discriminator"}
"""Keywords that a structural schema must not or need not have. Maps keep their `additionalProperties` (see below)."""


class _Generator(GenerateJsonSchema):
    """Writes optional fields as absent instead of `null`, which is not a type in Kubernetes."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> dict[str, Any]:
        made = super().default_schema(schema)
        # `...` tells a default of null from a keyword that is absent.
        if made.get("default", ...) is None:
            made.pop("default")
        return made


def render_crd(kind: Kind) -> dict[str, Any]:
    """Build the CustomResourceDefinition of one kind."""
    schema = _schema(kind)
    # A kind without a spec has no status subresource, so that it is written whole in one request.
    subresources: dict[str, Any] = {"subresources": {"status": {}}} if "spec" in schema["properties"] else {}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if getattr(kind, "NAMESPACED", False) else "Cluster",
            "names": {
                "kind": kind.__name__,
                "plural": kind.PLURAL,
                "singular": kind.__name__.lower(),
                "shortNames": kind.SHORT,
                "categories": ["vmnic"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    **subresources,
                    "additionalPrinterColumns": kind.COLUMNS,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def _schema(kind: Kind) -> dict[str, Any]:
    """Build the schema of a kind's whole object."""
    if issubclass(kind, BaseModel):
        raw = kind.model_json_schema(by_alias=True, schema_generator=_Generator)
    else:
        raw = struct_schema(kind)
    definitions = raw.pop("$defs", {})
    fields = {
        name: _structural(raw["properties"][name], definitions) for name in ("spec", "status") if name in raw["properties"]
    }
    fields["status"] = _without_defaults(fields["status"])
    # An empty object suffices in place of pydantic's whole default: the API server then fills in the fields' own defaults.
    if fields.get("spec", {}).get("default") is not None:
        fields["spec"]["default"] = {}
    schema = {
        "type": "object",
        "description": " ".join((kind.__doc__ or "").split()),
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            # A structural schema may restrict only name and generateName of the metadata, and vmnic restricts neither.
            "metadata": {"type": "object"},
            **fields,
        },
    }
    if "spec" in raw.get("required", ()):
        schema["required"] = ["spec"]
    return schema


def _structural(node: Any, definitions: dict[str, Any]) -> Any:
    """Convert one JSON Schema node into its structural form."""
    if isinstance(node, list):
        return [_structural(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    node = _inlined(node, definitions)
    made = {}
    for key, value in node.items():
        keyword, content = _keyword(key, value, definitions)
        if keyword:
            made[keyword] = content
    return _flattened(made)


def _keyword(key: str, value: Any, definitions: dict[str, Any]) -> tuple[str, Any]:
    """Convert one keyword, where an empty name drops it."""
    # Names of fields are not keywords: a field may be called `default` or `title`.
    if key == "properties":
        return key, {name: _structural(field, definitions) for name, field in value.items()}
    if key == "const":
        return "enum", [value]
    if key == "description":
        return key, " ".join(value.split())
    if key == "default":
        return key, _without_nulls(value)
    # These values are data and not schemas, so nothing in them is converted.
    if key in ("enum", "required") or key.startswith("x-kubernetes-"):
        return key, value
    # A schema that says which values a map has is kept. The boolean that refuses other fields goes: Kubernetes prunes them.
    if key in _DROPPED and not (key == "additionalProperties" and isinstance(value, dict)):
        return "", None
    return key, _structural(value, definitions)


def _without_nulls(value: Any) -> Any:
    """Remove null values, because Kubernetes expects a field without a value to be absent."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value


def _without_defaults(node: Any) -> Any:
    """Remove all defaults, because machines write a status whole and no field is filled in."""
    if isinstance(node, list):
        return [_without_defaults(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: _without_defaults(value) for key, value in node.items() if key != "default"}


def _inlined(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Replace a reference by its target, where keywords next to the reference win."""
    reference = node.get("$ref")
    if reference is None:
        return node
    target = definitions[reference.rsplit("/", 1)[1]]
    # A field's own description is more specific than that of its type.
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def _flattened(node: dict[str, Any]) -> dict[str, Any]:
    """Convert int-or-string to its own type, and the bound of a map to `maxProperties`."""
    if node.get("x-kubernetes-int-or-string"):
        # pydantic writes the two types as `anyOf`, which `x-kubernetes-int-or-string` replaces.
        node.pop("anyOf", None)
    if node.get("type") == "object" and "additionalProperties" in node and "maxLength" in node:
        node["maxProperties"] = node.pop("maxLength")
    return node


def render_crd_yaml(kind: Kind) -> str:
    """Render the committed file of one kind."""
    text: str = yaml.safe_dump(render_crd(kind), sort_keys=False, width=110, allow_unicode=True)
    return "# Made by `make crds` from operator/vmnic/api.\n---\n" + text


def main(arguments: list[str]) -> int:
    """Write the CRDs into the given directory."""
    directory = pathlib.Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        (directory / f"{kind.PLURAL}.yaml").write_text(render_crd_yaml(kind))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
