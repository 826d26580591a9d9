"""Objects that cannot be read or handled.

They are set aside and shown, and they affect no other object.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from pydantic import ValidationError

from ..api.common import first_error
from ..checked.documents import BoundError
from ..checked.printable import cut
from ..libvirt.domain import DomainError
from ..records.record import RecordError

__all__ = ["DuplicateError", "SetAside", "reason_of", "set_aside", "split_name", "try_object"]

T = TypeVar("T")


class DuplicateError(ValueError):
    """An object is given twice."""


UNREADABLE = "Unreadable"
_NO_TEXT = re.compile(r"Expected `str(?: \| null)?`, got `(?:int|float|bool)`")
_QUOTE = "quote it, so that YAML takes it for text"
_MOST_BYTES = 1024
"""Maximum size of a message, which may quote the object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """One object that is left out, and why."""

    kind: str
    """Empty if even the kind is unknown."""
    namespace: str = ""
    name: str = ""
    reason: str = UNREADABLE
    message: str
    where: str = ""
    """File and line; empty if the object comes from the API server."""

    @property
    def object(self) -> str:
        """Return `KIND/NAMESPACE/NAME`, as in the problems of a plan."""
        return "/".join(filter(None, (self.kind, self.namespace, self.name)))

    @property
    def sentence(self) -> str:
        """Return place, object and reason in one line."""
        name = "/".join(filter(None, (self.namespace, self.name)))
        return ": ".join(filter(None, (self.where, f"{self.kind} {name}".strip(), self.message)))


def set_aside(kind: str, key: tuple[str, str], error: Exception | str, where: str = "") -> SetAside:
    """Set an object aside for an error."""
    message = error if isinstance(error, str) else reason_of(error)
    return SetAside(kind=kind, namespace=key[0], name=key[1], message=cut(message, _MOST_BYTES), where=where)


def reason_of(error: Exception) -> str:
    """Describe in one line why an object cannot be read or handled."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        is_number = first["type"] == "string_type" and isinstance(first["input"], bool | int | float)
        return first_error(error) + (f": {_QUOTE}" if is_number else "")
    if isinstance(error, msgspec.ValidationError) and _NO_TEXT.match(str(error)):
        return f"{error}: {_QUOTE}"
    if isinstance(error, msgspec.ValidationError | BoundError | DomainError | DuplicateError | RecordError):
        return str(error)
    # The text of a KeyError is the key alone.
    words = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    kind = "" if words and isinstance(error, ValueError | TypeError | KeyError) else f"{type(error).__name__} "
    return f"it cannot be read: {kind}{words}".rstrip()


def split_name(name: str) -> tuple[str, str]:
    """Split `NAMESPACE/NAME`. A cluster-wide object has no namespace."""
    namespace, _, last = name.rpartition("/")
    return namespace, last


def try_object(aside: list[SetAside], kind: str, key: tuple[str, str], work: Callable[..., T], *args: Any) -> T | None:
    """Call a function on one object.

    Any error sets this object aside and affects no other.

    Returns:
        The function's result, or None if the object was set aside.
    """
    try:
        return work(*args)
    except Exception as error:
        aside.append(set_aside(kind, key, error))
        return None
