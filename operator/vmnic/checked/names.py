"""Names of Kubernetes objects in foreign text."""

from __future__ import annotations

import re

__all__ = ["is_label_name", "is_subdomain_name"]

_LABEL_CHARS, _SUBDOMAIN_CHARS = 63, 253
_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_LABEL_NAME = re.compile(_LABEL, re.ASCII)
_SUBDOMAIN_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)


def is_label_name(text: str) -> bool:
    """Return whether text is an RFC 1123 label, as names of namespaces are."""
    return len(text) <= _LABEL_CHARS and _LABEL_NAME.fullmatch(text) is not None


def is_subdomain_name(text: str) -> bool:
    """Return whether text is an RFC 1123 subdomain, as names of pods, nodes and most objects are."""
    # The length comes first, so that the pattern never runs over long text.
    return len(text) <= _SUBDOMAIN_CHARS and _SUBDOMAIN_NAME.fullmatch(text) is not None
