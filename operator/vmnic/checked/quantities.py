"""Numbers in foreign text: Kubernetes quantities and bounded integers."""

from __future__ import annotations

import re

__all__ = ["LARGEST", "read_integer", "read_quantity"]

LARGEST = 2**63 - 1
"""The largest quantity that Kubernetes represents; it caps larger ones (apimachinery/pkg/api/resource/quantity.go)."""

_QUANTITY_CHARS = 64
_QUANTITY = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]+))?", re.ASCII)
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_EXPONENT = 100
"""A larger exponent makes any digits that fit in the length bound larger than `LARGEST`, or smaller than one."""

_INTEGER_CHARS = 20
_INTEGER = re.compile(r"-?[0-9]+", re.ASCII)


def read_quantity(text: object) -> int | None:
    """Read a Kubernetes quantity as an integer, as `Quantity.Value()` does: rounded up, and capped at 2^63-1.

    Returns:
        None for anything that is no quantity, or is written in more than 64 characters.
    """
    if isinstance(text, bool) or not isinstance(text, str | int):
        return None
    if isinstance(text, int):
        return _capped(text)
    word = text.strip() if len(text) <= _QUANTITY_CHARS else ""
    found = _QUANTITY.fullmatch(word)
    if found is None or not (found[2] or found[3]):
        return None
    sign, whole, fraction, suffix, exponent = found.groups()
    value = _scaled(int(whole + (fraction or "")), len(fraction or ""), suffix or "", _bounded_exponent(exponent))
    return _capped(-value if sign == "-" else value)


def read_integer(text: object, low: int, high: int) -> int | None:
    """Read a decimal integer between two bounds; None for anything else, such as other digits than ASCII ones."""
    if isinstance(text, bool):
        return None
    if isinstance(text, str):
        word = text.strip() if len(text) <= _INTEGER_CHARS else ""
        text = int(word) if _INTEGER.fullmatch(word) else None
    return text if isinstance(text, int) and low <= text <= high else None


def _bounded_exponent(text: str | None) -> int:
    """Read an exponent; one that is longer or larger than any useful one stands for the bound with its sign."""
    if not text:
        return 0
    digits = text.lstrip("+-").lstrip("0") or "0"
    size = _EXPONENT if len(digits) > 3 else min(int(digits), _EXPONENT)
    return -size if text.startswith("-") else size


def _scaled(digits: int, places: int, suffix: str, exponent: int) -> int:
    """Scale digits by a suffix or an exponent, rounding up; at most 10^165, since every part is bounded."""
    value = digits << _BINARY.get(suffix, 0)
    power = _DECIMAL.get(suffix, 0) + exponent - places
    return value * int(10**power) if power >= 0 else -(-value // int(10**-power))


def _capped(value: int) -> int:
    return max(-LARGEST, min(value, LARGEST))
