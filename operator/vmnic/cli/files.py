"""Reads objects from files, directories and standard input; an error names file and line."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterable, Iterator

import yaml

from .objects import MalformedObjectError, Objects

__all__ = ["InputError", "read_files"]

_NO_TEXT = "this is no text in UTF-8"
_ENDINGS = (".yaml", ".yml", ".json", ".xml")


class InputError(Exception):
    """A file cannot be used; the message says where and why."""


def read_files(names: Iterable[str], *, recursive: bool) -> Objects:
    """Read every document of the given files.

    Args:
        names: Files, directories, or `-` for standard input.
        recursive: Whether directories below the given ones are read too.

    Raises:
        InputError: a file cannot be read, or an object in it is malformed.
    """
    objects = Objects()
    for name in names:
        for source, text in _texts(name, recursive=recursive):
            _read_documents(objects, source, text)
    return objects


def _texts(name: str, *, recursive: bool) -> Iterator[tuple[str, str]]:
    if name == "-":
        try:
            yield "standard input", sys.stdin.read()
        except UnicodeDecodeError as error:
            raise InputError(f"standard input: {_NO_TEXT}") from error
        return
    path = pathlib.Path(name)
    try:
        if path.is_dir():
            found = sorted(path.rglob("*") if recursive else path.iterdir())
            files = [file for file in found if file.suffix in _ENDINGS and file.is_file()]
            if not files:
                raise InputError(f"{name}: no {', '.join(_ENDINGS)} file is there" + ("" if recursive else "; -R looks below"))
        else:
            files = [path]
        for file in files:
            yield str(file), _read(file)
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}") from error


def _read(file: pathlib.Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: {_NO_TEXT}") from error


def _read_documents(objects: Objects, source: str, text: str) -> None:
    if text.lstrip().startswith("<"):
        try:
            objects.add_domain(text)
        except MalformedObjectError as error:
            raise InputError(f"{source}: {error}") from error
        return
    loader = yaml.CSafeLoader(text)
    line = 1
    try:
        while loader.check_node():
            node = loader.get_node()
            assert node is not None
            line = node.start_mark.line + 1
            document = loader.construct_document(node)
            if document is not None:
                objects.add(document)
    except yaml.MarkedYAMLError as error:
        where = error.problem_mark.line + 1 if error.problem_mark is not None else line
        raise InputError(f"{source}:{where}: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # A character that YAML does not allow, a date that is none, lists in lists without end.
        raise InputError(f"{source}:{line}: this is no YAML: {str(error).splitlines()[0]}") from error
    except MalformedObjectError as error:
        raise InputError(f"{source}:{line}: {error}") from error
    finally:
        loader.dispose()
