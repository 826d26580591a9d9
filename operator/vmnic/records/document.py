"""Writer and reader of records as YAML."""

from __future__ import annotations

import io
import json
import pathlib
import re
from typing import Any, Final

import msgspec

from ..checked.printable import printable
from .record import HostRecord, to_record

__all__ = ["RecordFileError", "parse_record", "read_record_file", "write_record"]

_MOST_CHARS: Final = 16 * 2**20
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*", re.ASCII)
"""Text that begins with a letter, which YAML takes for no number, date or address."""
_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


class RecordFileError(Exception):
    """A file is no usable record. The message names the file, the path in it and what to do."""


def write_record(record: HostRecord) -> str:
    """Write a record with one line for each function, link, group and holder."""
    lines: list[str] = []
    for key, value in msgspec.to_builtins(record).items():
        if value == {}:
            continue
        if isinstance(value, list | tuple):
            lines += [f"{key}:", *(f"- {_flow(one)}" for one in value)]
        else:
            lines.append(f"{key}: {_flow(value)}")
    return "---\n" + "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    """Write a value in one line. Text is quoted unless every YAML parser takes it for text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value)


def read_record_file(path: pathlib.Path) -> HostRecord:
    """Read the record in a file.

    Raises:
        RecordFileError: The file cannot be read, or is no usable record.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            return parse_record(stream.read(_MOST_CHARS + 1), str(path))
    except OSError as error:
        raise RecordFileError(printable(f"{path}: {error.strerror}: give the file of a HostRecord")) from error
    except ValueError as error:
        raise RecordFileError(printable(f"{path}: {error}: write it in UTF-8")) from error


def parse_record(text: str, source: str) -> HostRecord:
    """Parse the text of a record.

    Args:
        text: The text.
        source: Where the text is from, for messages.

    Raises:
        RecordFileError: The text is no usable record.
    """
    from ..checked.yaml_documents import read_documents  # noqa: PLC0415 - yaml is imported only where it is used

    try:
        if len(text) > _MOST_CHARS:
            raise ValueError(f"more than {_MOST_CHARS // 2**20} MiB are not read: record fewer functions")
        documents = list(read_documents(io.StringIO(text), lambda *_: True))
        if len(documents) != 1:
            raise ValueError(f"it has {len(documents)} documents: give a file with one HostRecord")
        if documents[0].problem:
            raise ValueError(f"line {documents[0].line}: {documents[0].problem}: correct it")
        return to_record(documents[0].value)
    except ValueError as error:
        raise RecordFileError(printable(f"{source}: {error}")) from error
