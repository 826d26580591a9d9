"""Kubernetes label selectors."""

from __future__ import annotations

from collections.abc import Mapping

from ..api.common import LabelSelector, LabelSelectorRequirement

__all__ = ["matches_labels"]


def matches_labels(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """Return whether labels satisfy a selector. None and an empty selector match everything."""
    if selector is None:
        return True
    return all(labels.get(key) == value for key, value in selector.match_labels.items()) and all(
        _holds(requirement, labels) for requirement in selector.match_expressions
    )


def _holds(requirement: LabelSelectorRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            # As in Kubernetes, NotIn also matches an object without the label.
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
