"""Operations of a JSON Patch (RFC 6902), and paths that names are escaped in (RFC 6901)."""

from __future__ import annotations

from typing import Any

__all__ = ["Operation", "add", "check", "pointer", "remove", "replace"]

Operation = dict[str, Any]


def pointer(*names: str | int) -> str:
    """Return the path of a value, from the names and indexes that lead to it."""
    # `~` comes first (RFC 6901, section 4): otherwise the `~` of an escaped slash would be escaped again.
    return "".join(f"/{str(name).replace('~', '~0').replace('/', '~1')}" for name in names)


def add(path: str, value: object) -> Operation:
    """Return the operation that adds a value or replaces it, or appends it to a list if the path ends with `/-`."""
    return {"op": "add", "path": path, "value": value}


def replace(path: str, value: object) -> Operation:
    """Return the operation that replaces a value, which must exist."""
    return {"op": "replace", "path": path, "value": value}


def remove(path: str) -> Operation:
    """Return the operation that removes a value, which must exist."""
    return {"op": "remove", "path": path}


def check(path: str, value: object) -> Operation:
    """Return the operation (`test`) that makes the patch fail unless a value is as expected."""
    return {"op": "test", "path": path, "value": value}
