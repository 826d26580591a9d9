"""Kubernetes quantities of memory: `1Gi`, `512M`, `1.5G`, plain bytes."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

__all__ = ["parse_bytes"]

_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL = {"m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def parse_bytes(text: str | int) -> int | None:
    """Read a quantity as bytes, rounded down; None if it is none."""
    word = str(text).strip()
    try:
        if word[-2:] in _BINARY:
            return int(Decimal(word[:-2]) * (1 << _BINARY[word[-2:]]))
        if word[-1:] in _DECIMAL:
            return int(Decimal(word[:-1]).scaleb(_DECIMAL[word[-1:]]))
        return int(Decimal(word))
    except (InvalidOperation, ValueError, OverflowError):
        return None
