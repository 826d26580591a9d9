"""JSON in foreign text, bounded in size and depth before it is parsed."""

from __future__ import annotations

import re
import secrets
from typing import TypeVar

import msgspec

__all__ = ["PRUNED", "BoundError", "check_depth", "check_json", "prune", "read_json"]

T = TypeVar("T")

# Possessive quantifiers (`++`, `*+`) do not backtrack, so foreign text cannot make the scan quadratic.
_STRING_PATTERN = rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)'
"""A JSON string. An unclosed one extends to the end of the text, so that the text is scanned only once."""
_STRING = re.compile(_STRING_PATTERN, re.DOTALL)
_TOKEN = re.compile(_STRING_PATTERN + rb"|[\[{\]}]", re.DOTALL)
PRUNED = f'"vmnic: nested too deeply {secrets.token_hex(16)}"'.encode()
"""Replacement for a value that is nested too deeply. It is random, so foreign text cannot contain it."""
_PRUNED_LEVELS = 200
"""Kubernetes objects have about 30 levels."""
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class BoundError(ValueError):
    """Foreign input exceeds a bound. The message names the bound."""


def read_json(raw: str | bytes, kind: type[T], *, max_bytes: int, max_depth: int = 32) -> T:
    """Parse JSON into a type.

    Args:
        raw: The text.
        kind: Type that msgspec decodes into.
        max_bytes: Longest text, in bytes of UTF-8.
        max_depth: Most brackets and braces that may be open at once.

    Raises:
        BoundError: The text is too long or too deep.
        ValueError: The text is not JSON, or not of this type. The message contains the path (msgspec's errors are
            ValueErrors).
    """
    data = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    check_json(data, max_bytes=max_bytes, max_depth=max_depth)
    return msgspec.json.decode(data, type=kind)


def check_json(data: bytes, *, max_bytes: int, max_depth: int) -> None:
    """Check that JSON text is within bounds, without parsing it.

    Raises:
        BoundError: The text is too long or too deep.
    """
    if len(data) > max_bytes:
        raise BoundError(f"{len(data)} bytes of JSON: at most {max_bytes} are read")
    # Text with few brackets cannot be deep. Most texts end here, without the slower search for strings.
    if data.count(b"[") + data.count(b"{") <= max_depth:
        return
    depth = 0
    for bracket in _STRING.sub(b"", data).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > max_depth:
            raise BoundError(f"JSON with more than {max_depth} levels is not read")


def check_depth(value: object, max_depth: int) -> None:
    """Check that parsed JSON is not nested too deeply, without recursion.

    Raises:
        BoundError: The value is too deep.
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


def prune(data: bytes) -> bytes:
    """Replace every value below level 200 of JSON text by `PRUNED`, without recursion.

    The API server accepts 10,000 levels, more than a decoder in C can recurse into, so one such object would make a whole
    list undecodable. 1 MB of brackets takes about 1 s.
    """
    kept: list[bytes] = []
    depth = begin = 0
    for token in _TOKEN.finditer(data):
        word = token[0]
        if word in b"[{":
            depth += 1
            # Deeper brackets are only counted, until the one that closes this value.
            if depth == _PRUNED_LEVELS + 1:
                kept += [data[begin : token.start()], PRUNED]
        elif word in b"]}":
            depth -= 1
            if depth == _PRUNED_LEVELS:
                begin = token.end()
    return b"".join([*kept, data[begin:]])
