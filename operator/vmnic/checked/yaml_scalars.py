"""Types of YAML scalars as kubectl resolves them, with the library sigs.k8s.io/yaml.

The library's rules are neither YAML 1.1 nor 1.2: `yes` is true, `010` is 8, `1e3` is 1000, and `52:54:00` is text.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import Final

from .documents import BoundError

__all__ = ["Scalar", "read_key", "read_scalar"]

Scalar = str | int | float | bool | None

_TAG: Final = "tag:yaml.org,2002:"
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    f"{_TAG}null": (type(None),),
    f"{_TAG}bool": (bool,),
    f"{_TAG}int": (int,),
    f"{_TAG}float": (int, float),
}
"""Types of the values that a tag accepts. Every other tag makes text."""
_BINARY: Final = f"{_TAG}binary"
_WORDS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_RESOLVED_CHARS: Final = 1024
"""Longest number that is read. A longer plain scalar is text, unless it looks like a number."""
_NUMBER_CHARS: Final = re.compile(r"[-+.]?[0-9][-+.0-9_eE]*", re.ASCII)
_INTEGER: Final = re.compile(r"([-+]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_BASES: Final = {"0x": 16, "0b": 2, "0o": 8}
_BEYOND_INT64: Final = 2**63
_BEYOND_UINT64: Final = 2**64


def read_scalar(text: str, tag: str, *, plain: bool) -> Scalar:
    """Return the value of a scalar as the API server gets it from kubectl.

    Args:
        text: The scalar without its quotes.
        tag: Its tag, or an empty string.
        plain: Whether it is not quoted.

    Raises:
        BoundError: The number is too long, or the text does not match its tag.
    """
    value = _resolve(text, tag, plain=plain)
    if not isinstance(value, float):
        # The API server reads integers beyond 64 bits as floats.
        return float(value) if type(value) is int and not -_BEYOND_INT64 <= value < _BEYOND_INT64 else value
    if not math.isfinite(value):
        raise BoundError(f"{text} is a number that JSON does not have: quote it if it is text")
    # In JSON a float without a fraction has the form of an integer.
    return int(value) if value.is_integer() and abs(value) < _BEYOND_INT64 else value


def read_key(text: str, tag: str, *, plain: bool) -> str:
    """Return a scalar that is a key as text.

    Raises:
        BoundError: The key is null or a number that kubectl refuses, or its text does not match its tag.
    """
    value = _resolve(text, tag, plain=plain)
    if value is None or (type(value) is int and value >= _BEYOND_INT64):
        raise BoundError(f"a key must be text: quote {text or 'it'}")
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _resolve(text: str, tag: str, *, plain: bool) -> Scalar:
    """Return the value before it is converted to JSON."""
    if not tag:
        return _resolve_plain(text) if plain else text
    if tag == _BINARY:
        return _decode(text)
    types = _TYPES.get(tag)
    if types is None:
        return text
    value = _resolve_plain(text)
    if type(value) not in types:
        raise BoundError(f"not valid YAML: {text[:64]} is not of the type {tag.removeprefix(_TAG)}")
    return value


def _decode(text: str) -> str:
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode("utf-8", "replace")
    except binascii.Error as error:
        raise BoundError(f"not valid YAML: !!binary without valid base64: {error}") from error


def _resolve_plain(text: str) -> Scalar:
    if len(text) > _RESOLVED_CHARS:
        if _NUMBER_CHARS.fullmatch(text):
            raise BoundError(f"a number of {len(text)} characters is not read")
        return text
    if text in _WORDS:
        return _WORDS[text]
    if not text[0].isascii() or text[0] not in "0123456789+-.":
        return text
    digits = text.replace("_", "")
    number = _integer(digits)
    if number is not None:
        return number
    if _FLOAT.fullmatch(digits):
        value = float(digits)
        # Beyond the range of a float kubectl takes the text.
        return value if math.isfinite(value) else text
    return text


def _integer(text: str) -> int | None:
    """Return an integer of 64 bits, where only one without a sign may use the bit of the sign."""
    found = _INTEGER.fullmatch(text)
    if found is None:
        return None
    sign, digits = found.groups()
    base = _BASES.get(digits[:2].lower()) or (8 if digits.startswith("0") else 10)
    value = int(digits, base)
    most = _BEYOND_INT64 if sign == "-" else _BEYOND_INT64 - 1 if sign else _BEYOND_UINT64 - 1
    if value > most:
        return None
    return -value if sign == "-" else value
