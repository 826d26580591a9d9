"""Kubernetes quantities and bounded integers in foreign text."""

from __future__ import annotations

import re

__all__ = ["LARGEST", "is_whole", "read_integer", "read_quantity"]

LARGEST = 2**63 - 1
"""Largest quantity that Kubernetes represents. It caps larger ones (apimachinery/pkg/api/resource/quantity.go)."""

_QUANTITY_CHARS = 64
_QUANTITY = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]+))?", re.ASCII)
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_EXPONENT = 100
"""Bound on exponents. With a larger one, any digits within the length bound exceed `LARGEST`, or are smaller than one."""

_PLACES = 3
_INTEGER_CHARS = 20
_INTEGER = re.compile(r"-?[0-9]+", re.ASCII)


def read_quantity(text: object) -> int | None:
    """Parse a Kubernetes quantity as an integer, as `Quantity.Value()` does.

    Fractions are rounded up, and values are capped at 2^63-1.

    Returns:
        None for anything that is not a quantity, or that has more than 64 characters.
    """
    return _read(text, 0)


def is_whole(text: object) -> bool:
    """Return whether a Kubernetes quantity is a whole number of at least 0.

    The number of devices must be one. Kubernetes compares thousandths (ValidateResourceQuantityValue in
    pkg/apis/core/validation/validation.go).
    """
    thousandths = _read(text, _PLACES)
    return thousandths is not None and thousandths >= 0 and (thousandths % 1000 == 0 or thousandths == LARGEST)


def _read(text: object, power: int) -> int | None:
    """Parse a quantity and multiply it by a power of ten before it is rounded up."""
    # True is an int in Python, and no quantity in Kubernetes.
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        return None
    if isinstance(text, float):
        text = repr(text)
    if isinstance(text, int):
        return _capped(text * 10**power)
    word = text.strip() if len(text) <= _QUANTITY_CHARS else ""
    # `E` alone means 10^18, and `E3` is an exponent: the pattern tries the suffix first, and then the exponent.
    found = _QUANTITY.fullmatch(word)
    if found is None or not (found[2] or found[3]):
        return None
    sign, integer, fraction, suffix, exponent = found.groups()
    value = _scaled(int(integer + (fraction or "")), len(fraction or "") - power, suffix or "", _bounded_exponent(exponent))
    # The sign comes last, because Kubernetes rounds away from zero.
    return _capped(-value if sign == "-" else value)


def read_integer(text: object, low: int, high: int) -> int | None:
    """Parse a decimal integer between two bounds.

    Returns:
        None for anything else, such as digits that are not ASCII.
    """
    if isinstance(text, bool):
        return None
    if isinstance(text, str):
        word = text.strip() if len(text) <= _INTEGER_CHARS else ""
        text = int(word) if _INTEGER.fullmatch(word) else None
    return text if isinstance(text, int) and low <= text <= high else None


def _bounded_exponent(text: str | None) -> int:
    """Parse an exponent, where a longer or larger one than the bound counts as the bound with its sign."""
    if not text:
        return 0
    digits = text.lstrip("+-").lstrip("0") or "0"
    size = _EXPONENT if len(digits) > 3 else min(int(digits), _EXPONENT)
    return -size if text.startswith("-") else size


def _scaled(digits: int, places: int, suffix: str, exponent: int) -> int:
    """Scale digits by a suffix or an exponent, and round up.

    The result is at most 10^165, because every part is bounded.
    """
    value = digits << _BINARY.get(suffix, 0)
    power = _DECIMAL.get(suffix, 0) + exponent - places
    return value * int(10**power) if power >= 0 else -(-value // int(10**-power))


def _capped(value: int) -> int:
    return max(-LARGEST, min(value, LARGEST))
