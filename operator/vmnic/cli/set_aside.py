"""Objects that are set aside: what cannot be read or handled costs only itself, and is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from ..api.common import first_error
from ..checked.printable import cut

__all__ = ["SetAside", "reason_of", "set_aside", "split_name", "try_object"]

T = TypeVar("T")

UNREADABLE = "Unreadable"
_MOST_BYTES = 1024
"""Of a message: it may quote the object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """One object that is left out, and why."""

    kind: str
    """Empty where not even that is known."""
    namespace: str = ""
    name: str = ""
    reason: str = UNREADABLE
    message: str
    where: str = ""
    """File and line; empty if the API server gave it."""

    @property
    def object(self) -> str:
        """`KIND/NAMESPACE/NAME`, as in the problems of a plan."""
        return "/".join(filter(None, (self.kind, self.namespace, self.name)))

    @property
    def sentence(self) -> str:
        """Place, object and reason in one line."""
        name = "/".join(filter(None, (self.namespace, self.name)))
        return ": ".join(filter(None, (self.where, f"{self.kind} {name}".strip(), self.message)))


def set_aside(kind: str, key: tuple[str, str], error: Exception | str, where: str = "") -> SetAside:
    """Set an object aside for an error."""
    message = error if isinstance(error, str) else reason_of(error)
    return SetAside(kind=kind, namespace=key[0], name=key[1], message=cut(message, _MOST_BYTES), where=where)


def reason_of(error: Exception) -> str:
    """Say in one line why an object cannot be read or handled."""
    if isinstance(error, ValidationError):
        return first_error(error)
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}" if error.args else "a field is missing"
    words = str(error)
    return words if isinstance(error, ValueError) and words else f"it cannot be handled: {type(error).__name__}: {words}"


def split_name(name: str) -> tuple[str, str]:
    """Split `NAMESPACE/NAME`; an object of the cluster has no namespace."""
    namespace, _, last = name.rpartition("/")
    return namespace, last


def try_object(aside: list[SetAside], kind: str, key: tuple[str, str], work: Callable[..., T], *args: Any) -> T | None:
    """Do something with one object; whatever goes wrong sets this object aside and harms no other.

    Returns:
        None where the object was set aside.
    """
    try:
        return work(*args)
    except Exception as error:
        aside.append(set_aside(kind, key, error))
        return None
