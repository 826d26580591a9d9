"""Reader of objects from files, directories and standard input.

Objects that cannot be read are set aside with file and line.
"""

from __future__ import annotations

import codecs
import errno
import io
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, TextIO

from ..checked.yaml_documents import Document, read_documents
from ..libvirt.domain import MOST_CHARS
from .objects import MalformedObjectError, Objects
from .set_aside import SetAside, set_aside, split_name

__all__ = ["MOST_FILE", "read_files"]

MOST_FILE = 64 * 2**20
"""Maximum number of characters of one file. A larger file can be split; a device may be endless."""
_LINE = 2**16
_BLANKS = "\ufeff \t\r\n"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_NO_CHARACTER = "\ufffd"
_NO_TEXT = "not UTF-8 text, nor UTF-16 text with a byte order mark"
_ENDINGS = (".yaml", ".yml", ".json", ".xml")


def read_files(names: Iterable[str], *, recursive: bool) -> Objects:
    """Read every document of the given files.

    A document that cannot be read does not affect the others.

    Args:
        names: Files, directories, or `-` for standard input.
        recursive: Whether subdirectories are read too.
    """
    objects = Objects()
    for name in names:
        if name == "-":
            _guarded(objects, "standard input", _read_standard_input, objects)
        else:
            _guarded(objects, name, _read_path, objects, pathlib.Path(name), recursive)
    return objects


def _guarded(objects: Objects, source: str, read: Callable[..., None], *args: Any) -> None:
    """Read from one source. An error is recorded and affects no other source."""
    try:
        read(*args)
    except OSError as error:
        objects.set_aside.append(_no_file(str(error.filename or source), error.strerror or str(error)))
    except Exception as error:
        objects.set_aside.append(set_aside("", ("", ""), error, source))


def _no_file(where: str, message: str) -> SetAside:
    return SetAside(kind="", message=message, where=where)


def _read_standard_input(objects: Objects) -> None:
    # Python sets it to None if the descriptor is closed.
    if sys.stdin is None:
        raise OSError(errno.EBADF, "it is closed")
    _read_stream(objects, "standard input", sys.stdin.buffer)


def _read_path(objects: Objects, path: pathlib.Path, recursive: bool) -> None:
    """Read a file, or the files of a directory. A named file may be a pipe."""
    # A person who names a pipe means it, for example by `<(kubectl get ...)`. In a directory a pipe would wait for ever.
    if not path.is_dir():
        _read_file(objects, path)
        return
    count = 0
    for file in _walk(objects, path, recursive=recursive):
        count += 1
        _guarded(objects, str(file), _read_regular, objects, file)
    if not count:
        objects.set_aside.append(
            _no_file(str(path), f"no {', '.join(_ENDINGS)} file is there" + ("" if recursive else "; -R looks below"))
        )


def _walk(objects: Objects, path: pathlib.Path, *, recursive: bool) -> Iterator[pathlib.Path]:
    """Yield the manifests of a directory in order.

    Symbolic links to directories are not followed, so that there is no loop.
    """
    waiting, found = [path], []
    while waiting:
        directory = waiting.pop()
        inside: list[pathlib.Path] = []
        _guarded(objects, str(directory), _list_into, inside, directory)
        for entry in inside:
            if entry.is_dir():
                waiting += [entry] if recursive and not entry.is_symlink() else []
            elif entry.suffix in _ENDINGS:
                found.append(entry)
    yield from sorted(found)


def _list_into(inside: list[pathlib.Path], directory: pathlib.Path) -> None:
    inside += directory.iterdir()


def _read_regular(objects: Objects, file: pathlib.Path) -> None:
    # A dangling link does not exist here. Opening it gives the system's own message.
    if file.exists() and not file.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(file))
    _read_file(objects, file)


def _read_file(objects: Objects, file: pathlib.Path) -> None:
    with file.open("rb") as stream:
        _read_stream(objects, str(file), stream)


def _read_stream(objects: Objects, source: str, binary: BinaryIO) -> None:
    begin = binary.read(2)
    # As in kubectl: a byte order mark tells UTF-16, and bytes that are no text are replaced, for example in a comment.
    encoding = "utf-16" if begin in _UTF16 else "utf-8"
    wrapper = io.TextIOWrapper(io.BufferedReader(_Joined(begin, binary)), encoding=encoding, errors="replace")
    _read_text(objects, source, _BoundedText(wrapper))


class _Joined(io.RawIOBase):
    """A stream whose first bytes were read before. The caller opened it and closes it."""

    def __init__(self, begin: bytes, rest: BinaryIO) -> None:
        self._begin = begin
        self._rest = rest

    def readable(self) -> bool:
        """Return that it can be read, which a wrapper asks."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer, or a part of it, and return how many bytes it has."""
        data = self._begin or self._rest.read(len(buffer))
        self._begin = b""
        buffer[: len(data)] = data
        return len(data)


def _read_text(objects: Objects, source: str, text: _BoundedText) -> None:
    if text.begins_as_xml():
        xml = text.read_all(MOST_CHARS)
        # The new XML of a domain must not have other characters than its file.
        if _NO_CHARACTER in xml:
            raise OSError(errno.EILSEQ, _NO_TEXT)
        _add_xml(objects, source, xml)
        return
    for document in read_documents(text, objects.takes):
        _add_document(objects, source, document)


class _BoundedText:
    """Text stream that raises an error if it exceeds the size of a file."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._left = MOST_FILE
        self._begin = ""

    def begins_as_xml(self) -> bool:
        """Read up to the first non-blank line and return whether it begins with a tag."""
        # The bound counts even in one line, because a device may never end it.
        while (line := self._count(self._stream.readline(_LINE))) and not line.strip(_BLANKS):
            self._begin += line
        self._begin += line
        return line.lstrip(_BLANKS).startswith("<")

    def read(self, size: int = -1, /) -> str:
        """Read text, beginning with text that `begins_as_xml` has read."""
        text, self._begin = self._begin, ""
        return text or self._count(self._stream.read(size))

    def readline(self, size: int = -1, /) -> str:
        """Read the rest of a line, or at most `size` characters of it."""
        return self._count(self._stream.readline(size))

    def read_all(self, most: int) -> str:
        """Read all text without leading blanks, or slightly more than `most` characters."""
        # One character too many, so that `read_domain` refuses the text instead of parsing a part of it.
        return self._begin.lstrip(_BLANKS) + self._stream.read(most + 1)

    def _count(self, text: str) -> str:
        self._left -= len(text)
        if self._left < 0:
            raise OSError(errno.EFBIG, f"more than {MOST_FILE // 2**20} MiB are not read: split it")
        return text


def _add_xml(objects: Objects, source: str, text: str) -> None:
    try:
        objects.add_xml(text, pathlib.Path(source).absolute().parent.name)
    except MalformedObjectError as error:
        objects.set_aside.append(set_aside(error.kind, error.key, error.message, source))


def _add_document(objects: Objects, source: str, document: Document) -> None:
    where = f"{source}:{document.line}"
    if document.problem:
        objects.set_aside.append(set_aside(document.kind, split_name(document.name), document.problem, where))
    elif document.skipped:
        objects.skipped += 1
    else:
        try:
            objects.add(document.value)
        except MalformedObjectError as error:
            objects.set_aside.append(set_aside(error.kind, error.key, error.message, where))
