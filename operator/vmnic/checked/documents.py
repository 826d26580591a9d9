"""JSON in foreign text, bounded in size and depth before it is parsed."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

__all__ = ["BoundError", "check_depth", "check_json", "read_json"]

T = TypeVar("T")

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class BoundError(ValueError):
    """Foreign input exceeds a bound; the message names the bound."""


def read_json(raw: str | bytes, kind: type[T], *, max_bytes: int, max_depth: int = 32) -> T:
    """Parse JSON into a type.

    Args:
        raw: The text.
        kind: What msgspec makes of it.
        max_bytes: Longest text, in bytes of UTF-8.
        max_depth: Most brackets and braces that may be open at once.

    Raises:
        BoundError: it is too long or too deep.
        ValueError: it is no JSON, or not of this type; the message has the path (msgspec's errors are ValueErrors).
    """
    data = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    check_json(data, max_bytes=max_bytes, max_depth=max_depth)
    return msgspec.json.decode(data, type=kind)


def check_json(data: bytes, *, max_bytes: int, max_depth: int) -> None:
    """Check that JSON text is within bounds, without parsing it.

    Raises:
        BoundError: it is too long or too deep.
    """
    if len(data) > max_bytes:
        raise BoundError(f"{len(data)} bytes of JSON: at most {max_bytes} are read")
    if data.count(b"[") + data.count(b"{") <= max_depth:
        return
    depth = 0
    for bracket in _STRING.sub(b"", data).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > max_depth:
            raise BoundError(f"JSON with more than {max_depth} levels is not read")


def check_depth(value: object, max_depth: int) -> None:
    """Check that parsed JSON is not nested too deeply; needs no recursion.

    Raises:
        BoundError: it is too deep.
    """
    level, depth = [value], 0
    while level:
        if depth > max_depth:
            raise BoundError(f"a value with more than {max_depth} levels is not read")
        below: list[object] = []
        for one in level:
            if isinstance(one, dict):
                below.extend(one.values())
            elif isinstance(one, list | tuple):
                below.extend(one)
        level, depth = below, depth + 1
