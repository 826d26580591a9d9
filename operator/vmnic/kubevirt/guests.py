"""Where the system of a guest is named, kept as data in `guests.yaml` and not as code."""

from __future__ import annotations

import functools
import pathlib
from typing import Annotated, Any, Literal

import msgspec

from ..checked.data_files import DataFiles
from ..policy.facts import GuestOs

__all__ = ["Place", "guest_files", "kept_keys", "read_places", "system_of"]


_Key = Annotated[str, msgspec.Meta(min_length=1, max_length=317)]
"""The key of a label or an annotation has at most 253 + 1 + 63 characters."""
_Begin = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
_Begins = Annotated[tuple[_Begin, ...], msgspec.Meta(max_length=256)]


class Place(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A label or an annotation that names the guest's system, with the fields of `guests.yaml`."""

    object: Literal["VirtualMachine", "Template", "Preference"]
    label: _Key | None = None
    annotation: _Key | None = None
    label_prefix: _Key | None = None

    def __post_init__(self) -> None:
        """Refuse a place with no key, or with several.

        Raises:
            ValueError: It does not have exactly one.
        """
        if sum(one is not None for one in (self.label, self.annotation, self.label_prefix)) != 1:
            raise ValueError("give one of label, annotation and labelPrefix")


class _Names(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    windows: _Begins = ()
    linux: _Begins = ()


class _Guests(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    places: Annotated[tuple[Place, ...], msgspec.Meta(max_length=64)] = ()
    names: _Names = _Names()


_NAME_CHARS = 128
_FREE_CHARS = 5
"""From this length on, a beginning may be followed by letters."""


def _parse(document: Any) -> _Guests:
    return msgspec.convert(document, _Guests)


def _forget() -> None:
    for cache in (_guests, read_places, kept_keys):
        cache.cache_clear()


guest_files = DataFiles("guest data", pathlib.Path(__file__).with_name("guests.yaml"), _parse, _forget)


@functools.cache
def read_places() -> tuple[Place, ...]:
    """Return all places, the user's first."""
    return tuple(place for one in _guests() for place in one.places)


@functools.cache
def kept_keys() -> tuple[frozenset[str], frozenset[str], tuple[str, ...]]:
    """Return the keys of VMs that are read for guest data alone.

    Returns:
        Annotations of a VirtualMachine, and labels and their prefixes of its template.
    """
    places = read_places()
    return (
        frozenset(one.annotation for one in places if one.object == "VirtualMachine" and one.annotation),
        frozenset(one.label for one in places if one.object == "Template" and one.label),
        tuple(one.label_prefix for one in places if one.object == "Template" and one.label_prefix),
    )


def system_of(name: str) -> GuestOs:
    """Parse a system's name, such as `mswindows`, `windows10`, `win2k19`, `rhel9` or `linux`."""
    word = name[:_NAME_CHARS].lower()
    for one in _guests():
        if _begins(word, one.names.windows):
            return GuestOs.WINDOWS
        if _begins(word, one.names.linux):
            return GuestOs.LINUX
    return GuestOs.UNKNOWN


def _begins(word: str, begins: tuple[str, ...]) -> bool:
    return any(
        # Few letters begin other words too: `ol` that of `old`, `arch` that of `archive`.
        word.startswith(begin) and (len(begin) >= _FREE_CHARS or not word[len(begin) : len(begin) + 1].isalpha())
        for begin in begins
    )


@functools.cache
def _guests() -> tuple[_Guests, ...]:
    return guest_files.read()
