"""Message classes of the kubelet's gRPC services, built at run time from a description.

No generated code is kept, which would tie the agent to one version of the protobuf runtime. Unknown fields of a newer kubelet
are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["Fields", "make_classes"]

Fields = tuple[tuple[int, str, str], ...]
"""Number, name and type of each field. A type is a scalar, the name of a message, or one of these after `repeated `. `map`
means `map<string, string>`."""

_Proto = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"string": _Proto.TYPE_STRING, "bool": _Proto.TYPE_BOOL, "int32": _Proto.TYPE_INT32, "int64": _Proto.TYPE_INT64}


def make_classes(package: str, messages: Mapping[str, Fields]) -> dict[str, type[Any]]:
    """Build a class for each message of a package."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for number, field, kind in fields:
            _add_field(message, package, number, field, kind)
    # In the default pool, two descriptions of one package would collide, such as those of the agent and of a test's kubelet.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages}


def _add_field(message: descriptor_pb2.DescriptorProto, package: str, number: int, name: str, kind: str) -> None:
    made = message.field.add(name=name, number=number)
    base = kind.removeprefix("repeated ")
    made.label = _Proto.LABEL_OPTIONAL if base == kind and kind != "map" else _Proto.LABEL_REPEATED
    if base in _SCALARS:
        made.type = _SCALARS[base]
        return
    made.type = _Proto.TYPE_MESSAGE
    made.type_name = f".{package}.{base}"
    if kind == "map":
        # protobuf knows a map only as a repeated message `<Field>Entry` of key and value.
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        for at, part in enumerate(("key", "value"), 1):
            entry.field.add(name=part, number=at, label=_Proto.LABEL_OPTIONAL, type=_Proto.TYPE_STRING)
        made.type_name = f".{package}.{message.name}.{entry.name}"
