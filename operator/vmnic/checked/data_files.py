"""Files with data that users add to vmnic's own."""

from __future__ import annotations

import io
import pathlib
from typing import Any

__all__ = ["read_data_file"]

_MOST_CHARS = 2**18
"""Longest file, in characters. vmnic's own files have a hundredth of that."""


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
