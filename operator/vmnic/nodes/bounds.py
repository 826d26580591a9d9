"""Fitting of structs into the bounds that their own fields declare.

No field of a status can be forgotten this way. Text is cut with an ellipsis. A shortened list, a clamped number and a replaced
value are reported, so that a reader knows that something is missing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

__all__ = ["fit"]

S = TypeVar("S", bound=msgspec.Struct)

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class _Missing(Enum):
    VALUE = "missing"


_MISSING: Final = _Missing.VALUE
"""Stands for a value that cannot be made to fit."""

_Fitter = Callable[[Any, str, list[str]], Any]
"""Function that takes a value, its path and the list of notes, and returns the fitted value or `_MISSING`."""


def fit(struct: S) -> tuple[S, tuple[str, ...]]:
    """Fit a struct into its bounds.

    Returns:
        The struct, and one sentence for each shortened list, clamped number and replaced value. Cut text is not reported,
        because its ellipsis shows it.

    Raises:
        ValueError: A required field has no value that fits.
    """
    notes: list[str] = []
    made = _fitter(type(struct))(struct, "", notes)
    if made is _MISSING:
        raise ValueError(f"{type(struct).__name__} has no form that fits: {'; '.join(notes)}")
    # Items without a PCI address have the same path, so a list can repeat a note.
    return made, tuple(dict.fromkeys(notes))


@functools.cache
def _fitter(kind: type[msgspec.Struct]) -> _Fitter:
    return _fitter_of(inspect.type_info(kind))


def _fitter_of(kind: inspect.Type) -> _Fitter:
    match kind:
        case inspect.StrType():
            return _text_fitter(kind)
        case inspect.IntType():
            return _number_fitter(kind)
        case inspect.VarTupleType():
            return _list_fitter(kind)
        case inspect.StructType():
            return _struct_fitter(kind)
        case inspect.Metadata():
            # A type with additions to its schema in the CRD.
            return _fitter_of(kind.type)
        case inspect.UnionType():
            inner = _fitter_of(next(one for one in kind.types if not isinstance(one, inspect.NoneType)))
            return lambda value, path, notes: None if value is None else inner(value, path, notes)
        case _:
            return lambda value, _path, _notes: value


def _text_fitter(kind: inspect.StrType) -> _Fitter:
    most = kind.max_length
    # The decoders use the same patterns, which end with `\Z` (`checked.forms.whole`). So text that passes here also decodes.
    form = re.compile(kind.pattern) if kind.pattern is not None else None

    def fit_text(text: str, path: str, notes: list[str]) -> Any:
        # Names that the kernel reports may decode to lone surrogates, which are not valid in JSON.
        made = text.encode(errors="replace").decode()
        if most is not None and len(made) > most:
            made = f"{made[: most - 1]}…"
        if form is None or form.search(made):
            return made
        made = _CONTROL.sub("?", made)
        notes.append(f"{path} is not shown as it is")
        return made if form.search(made) else _MISSING

    return fit_text


def _number_fitter(kind: inspect.IntType) -> _Fitter:
    low, high = kind.ge, kind.le

    def fit_number(number: int, path: str, notes: list[str]) -> Any:
        made = number if low is None else max(number, low)
        made = made if high is None else min(made, high)
        if made != number:
            notes.append(f"{path} is {number}, {made} is shown")
        return made

    return fit_number


def _list_fitter(kind: inspect.VarTupleType) -> _Fitter:
    inner, most = _fitter_of(kind.item_type), kind.max_length

    def fit_list(values: tuple[Any, ...], path: str, notes: list[str]) -> Any:
        # The list is cut before its items are fitted, so that a long list costs no more than the longest allowed one.
        fitted = (inner(value, f"{path}[{getattr(value, 'pci_address', '')}]", notes) for value in values[:most])
        made = tuple(one for one in fitted if one is not _MISSING)
        if len(made) < len(values):
            notes.append(f"{path} has {len(values)} entries, {len(made)} are shown")
        return made

    return fit_list


def _struct_fitter(kind: inspect.StructType) -> _Fitter:
    fields = [(one, _fitter_of(one.type)) for one in kind.fields]

    def fit_struct(struct: msgspec.Struct, path: str, notes: list[str]) -> Any:
        changes: dict[str, Any] = {}
        for field, inner in fields:
            value = getattr(struct, field.name)
            made = inner(value, f"{path}.{field.encode_name}".removeprefix("."), notes)
            if made is _MISSING:
                # A required field makes its whole struct `_MISSING`, which a list or an optional field then leaves out.
                if field.required:
                    return _MISSING
                made = field.default
            if made is not value:
                changes[field.name] = made
        return msgspec.structs.replace(struct, **changes) if changes else struct

    return fit_struct
