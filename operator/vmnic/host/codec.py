"""Encoding of operations and their results as JSON.

It uses only the standard library, so that the worker process stays small.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Mapping
from typing import Any, get_args

from .ops import Channels, LinkInfo, Op, Value, VfInfo

__all__ = ["decode_error", "decode_op", "decode_value", "encode_error", "encode_op", "encode_value"]

_OPS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Op)}


def encode_op(op: Op) -> dict[str, Any]:
    """Return the JSON form of an operation."""
    fields = ((name, getattr(op, name)) for name in op.__slots__)
    return {"kind": type(op).__name__, **{name: value for name, value in fields if value is not None}}


def decode_op(wire: Mapping[str, Any]) -> Op:
    """Decode an operation.

    Raises:
        ValueError: The operation does not exist, or its fields are wrong.
    """
    # JSON turns tuples into lists, and an operation with a list is not hashable. The agent keys answers by operation.
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in wire.items() if name != "kind"}
    kind = _OPS.get(wire.get("kind", ""))
    if kind is None:
        raise ValueError(f"no operation is called {wire.get('kind')!r}")
    try:
        op: Op = kind(**fields)
    except TypeError as error:
        raise ValueError(f"{wire.get('kind')}: {error}") from error
    return op


def encode_value(value: Value) -> Any:
    """Return the JSON form of a result."""
    if isinstance(value, Channels):
        return {"channels": dataclasses.asdict(value)}
    if isinstance(value, tuple) and value and isinstance(value[0], LinkInfo):
        return {"links": [dataclasses.asdict(link) for link in value]}
    if isinstance(value, tuple) and value and isinstance(value[0], VfInfo):
        return {"vfs": [dataclasses.asdict(vf) for vf in value]}
    return value


def decode_value(wire: Any) -> Value:
    """Decode a result.

    An empty dump of links or VFs is encoded and decoded as an empty tuple.
    """
    if isinstance(wire, list):
        return tuple(wire)
    if isinstance(wire, dict) and "channels" in wire:
        return Channels(**wire["channels"])
    if isinstance(wire, dict) and "vfs" in wire:
        return tuple(VfInfo(**vf) for vf in wire["vfs"])
    if isinstance(wire, dict):
        return tuple(_link(link) for link in wire["links"])
    text: str | None = wire
    return text


def _link(wire: Mapping[str, Any]) -> LinkInfo:
    lists = {key: tuple(wire[key]) for key in ("alt_names", "addresses", "learnt")}
    return LinkInfo(**{**wire, **lists})


def encode_error(error: OSError) -> dict[str, Any]:
    """Return the JSON form of the kernel's refusal."""
    # Python raises some OSErrors without an errno. EIO never means absence to the agent.
    return {"errno": error.errno or errno.EIO, "message": error.strerror or str(error)}


def decode_error(wire: Mapping[str, Any]) -> OSError:
    """Decode the kernel's refusal."""
    return OSError(int(wire["errno"]), str(wire["message"]))
