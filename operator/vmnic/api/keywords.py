"""Keywords of CRD schemas that neither pydantic nor msgspec knows."""

from __future__ import annotations

from typing import Any

__all__ = ["cel", "map_list"]


def cel(rule: str, message: str, **more: Any) -> dict[str, Any]:
    """Return one CEL rule for `x-kubernetes-validations`, whose message names the field and the remedy."""
    return {"rule": rule, "message": message, **more}


def map_list(key: str) -> dict[str, Any]:
    """Return the schema of a list with a unique key.

    Server-side apply can then own its items one by one.
    """
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
