"""Files with data that users add to vmnic's own."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from .printable import printable

__all__ = ["DataFileError", "DataFiles", "read_data_file"]

T = TypeVar("T")

_MOST_CHARS = 2**18
"""Longest file, in characters. vmnic's own files have a hundredth of that."""


class DataFileError(Exception):
    """A user's data file cannot be used. The message names the file and the field."""


class DataFiles(Generic[T]):
    """vmnic's own file of some data and, before it, the one that a user adds.

    Args:
        title: What the files contain, for messages.
        own: vmnic's own file.
        parse: Converts a parsed document, and raises ValueError if it has another shape.
        forget: Forgets everything that was derived from the files.
    """

    def __init__(self, title: str, own: pathlib.Path, parse: Callable[[Any], T], forget: Callable[[], None]) -> None:
        self._title = title
        self._own = own
        self._parse = parse
        self._forget = forget
        self._paths = [own]

    def add(self, path: pathlib.Path) -> None:
        """Add a user's file, whose entries win over vmnic's own.

        Raises:
            DataFileError: It cannot be read, or has another shape than vmnic's own.
        """
        try:
            # The result is dropped: the file is read here so that the program stops at its start and names file and field.
            self._parse(read_data_file(path))
        except (OSError, ValueError) as error:
            text = f"{self._title} {path}: {error}: write it like vmnic's own {self._own.name}"
            raise DataFileError(printable(text)) from error
        self._paths = [path, self._own]
        self._forget()

    def reset(self) -> None:
        """Remove the user's file again."""
        self._paths = [self._own]
        self._forget()

    def read(self) -> tuple[T, ...]:
        """Return the contents of the files, the user's first."""
        return tuple(self._parse(read_data_file(path)) for path in self._paths)


def read_data_file(path: pathlib.Path) -> Any:
    """Read the single YAML document of a file.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not UTF-8, not YAML, too large, or has several documents.
    """
    from .yaml_documents import read_documents  # noqa: PLC0415 - yaml is imported only where it is used

    with path.open(encoding="utf-8") as stream:
        # One character more shows that the file is too long, without reading a file of any size into memory.
        text = stream.read(_MOST_CHARS + 1)
    if len(text) > _MOST_CHARS:
        raise ValueError(f"more than {_MOST_CHARS} characters are not read")
    documents = list(read_documents(io.StringIO(text), lambda *_: True))
    if len(documents) != 1:
        raise ValueError(f"it has {len(documents)} documents, and should have one")
    if documents[0].problem:
        raise ValueError(f"line {documents[0].line}: {documents[0].problem}")
    return documents[0].value
