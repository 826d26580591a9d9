"""Patterns and largest values of fields that a node reports, shared by CRD, decoders and rendering.

The patterns are RE2, which the API server uses. `anchored` converts a pattern for Python, where `$` also matches before a final
newline.
"""

from __future__ import annotations

__all__ = [
    "ACCEPTABLE",
    "ACCEPTABLE_WORDS",
    "BOOT_ID",
    "CONDITION",
    "DIGEST",
    "INDEX_RANGE",
    "LARGEST_COUNT",
    "LARGEST_GENERATION",
    "LINK_NAME",
    "MAC_PREFIX",
    "OPTIONAL_INDEX_RANGE",
    "OPTIONAL_PCI_ADDRESS",
    "OPTIONAL_PCI_ID",
    "PCI_ADDRESS",
    "PLAIN",
    "REASON",
    "TIME",
    "anchored",
]

_PCI = r"[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]"
_INDEXES = "[0-9]{1,3}(-[0-9]{1,3})?"

PCI_ADDRESS = f"^{_PCI}$"
OPTIONAL_PCI_ADDRESS = f"^({_PCI})?$"
OPTIONAL_PCI_ID = "^([0-9a-f]{4})?$"
INDEX_RANGE = f"^{_INDEXES}$"
OPTIONAL_INDEX_RANGE = f"^({_INDEXES})?$"
DIGEST = "^[0-9a-f]{16,64}$"
# The second digit makes an address locally administered and unicast (bit 1 set, bit 0 clear).
MAC_PREFIX = "^[0-9a-f][26ae](:[0-9a-f]{2}){2}$"
BOOT_ID = "^[0-9a-z-]*$"
"""The kernel's boot ID is a UUID."""
TIME = "^([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?$"
"""A Kubernetes timestamp (RFC 3339 in UTC, whole seconds), or empty."""
CONDITION = "^[A-Za-z][A-Za-z0-9]*$"
REASON = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
"""Reason of a condition, as Kubernetes defines it (metav1.Condition)."""
LINK_NAME = "^[^\\x00-\\x20/:\\x7f]*$"
"""Link name that the kernel accepts (`dev_valid_name`), or empty."""
PLAIN = "^[^\\x00-\\x1f\\x7f]*$"
"""One line of text without control characters."""

LARGEST_COUNT = 2**31 - 1
LARGEST_GENERATION = 2**53 - 1
"""The API server stores the bounds of a schema as 64-bit floats."""

ACCEPTABLE = r"^(IpamNotCarried|MtuDiffers|GuestMtuChanges|PropertyNotCarried/[A-Za-z0-9][A-Za-z0-9_.-]{0,62})$"
"""A reason that `spec.accept` and the annotation vmnic.dev/accept may name."""
ACCEPTABLE_WORDS = "IpamNotCarried, MtuDiffers, GuestMtuChanges or PropertyNotCarried/NAME"
"""The same in words."""


def anchored(pattern: str) -> str:
    """Return the pattern with an end that matches only at the end of the text in Python."""
    return pattern.removesuffix("$") + r"\Z"
