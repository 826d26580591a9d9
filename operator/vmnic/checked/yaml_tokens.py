"""Tokens of one YAML object, counted while they are collected and converted only within bounds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import yaml

from .documents import BoundError

__all__ = ["MOST_LEVELS", "MOST_NODES", "MOST_TEXT", "Token", "TokenError", "TokenList", "identify", "make_value"]

MOST_LEVELS: Final = 100
"""Most levels of one object. CustomResourceDefinitions, the deepest objects that people keep in files, have about 60."""
MOST_NODES: Final = 200_000
"""Most nodes of one object, where an alias counts as all nodes that it stands for."""
MOST_TEXT: Final = 4 * 2**20
"""Most characters of one object's scalars, where aliases count likewise. etcd stores 1.5 MB."""

_RESOLVED_CHARS = 64
"""A longer plain scalar is text, because no number, date or boolean is that long."""
_LONG_NUMBER = re.compile(r"[-+]?[0-9][0-9_]*", re.ASCII)
_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset({"str", "value", "merge"})
_VALUES = yaml.constructor.SafeConstructor()
_MERGE: Final = object()


class TokenError(BoundError):
    """An object cannot be built from its tokens. `line` is the place of the error."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class Token(NamedTuple):
    """A scalar, or the start or end of a collection."""

    kind: str
    """`scalar`, `map`, `list` or `end`."""
    line: int
    text: str = ""
    tag: str = ""
    """Tag as written; empty if there is none."""
    plain: bool = False
    """Whether the scalar is not quoted, so that its text determines its type."""


class TokenList:
    """Tokens of one object. Beyond a bound, only levels are counted, and the reason is kept."""

    def __init__(self) -> None:
        self.tokens: list[Token] = []
        self.problem = ""
        self.levels = 0
        self._nodes = 0
        self._text = 0

    @property
    def is_map(self) -> bool:
        """Return whether the object is a map, as Kubernetes objects are."""
        return bool(self.tokens) and self.tokens[0].kind == "map"

    def refuse(self, problem: str) -> None:
        """Refuse further tokens, and keep the first reason."""
        self.problem = self.problem or problem

    def add(self, token: Token) -> None:
        """Add one token."""
        self.levels += {"map": 1, "list": 1, "end": -1}.get(token.kind, 0)
        if self.problem:
            return
        self._nodes += token.kind != "end"
        self._text += len(token.text)
        self.problem = self._exceeded()
        if not self.problem:
            self.tokens.append(token)

    def add_copy(self, tokens: Iterable[Token]) -> None:
        """Add the tokens that an alias stands for, up to a bound."""
        levels = self.levels
        for token in tokens:
            self.add(token)
            if self.problem:
                # The copy was cut, so the ends of the levels that it opened are missing.
                self.levels = levels
                return

    def _exceeded(self) -> str:
        if self.levels > MOST_LEVELS:
            return f"more than {MOST_LEVELS} levels are not read"
        if self._nodes > MOST_NODES:
            return f"more than {MOST_NODES} values are not read; an alias counts as all that it stands for"
        if self._text > MOST_TEXT:
            return f"more than {MOST_TEXT} characters in one object are not read"
        return ""


def identify(tokens: Iterable[Token]) -> tuple[str, str]:
    """Find kind and `NAMESPACE/NAME` of an object without building it.

    Returns:
        An empty string for each part that is not found.
    """
    found: dict[tuple[str, ...], str] = {}
    for path, text in _scalars(tokens):
        found.setdefault(path, text)
    parts = (found.get(("metadata", "namespace"), ""), found.get(("metadata", "name"), ""))
    return found.get(("kind",), ""), "/".join(filter(None, parts))


def _scalars(tokens: Iterable[Token]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the scalars of the two upper levels of maps, each with its path of keys."""
    path: list[str | None] = []
    """Key of each open collection whose value comes next; None if a key comes next, or if the collection is a list."""
    for token in tokens:
        if token.kind in ("map", "list"):
            path.append(None)
            continue
        if token.kind == "scalar" and path and path[-1] is None:
            path[-1] = token.text
            continue
        if token.kind == "end":
            path.pop()
        elif 0 < len(path) <= 2:
            yield tuple(filter(None, path)), token.text
        if path:
            path[-1] = None


def make_value(tokens: Iterable[Token]) -> Any:
    """Build the maps, lists and scalars of one object from its tokens, without recursion.

    Keys are text, as in JSON. Dates and sexagesimal numbers stay text, as in kubectl.

    Raises:
        TokenError: A number is too long, a tag is unknown, a key is not a scalar, or a scalar does not match its tag.
    """
    stack: list[tuple[str, list[Any]]] = [("list", [])]
    for token in tokens:
        kind, inside = stack[-1]
        is_key = kind == "map" and len(inside) % 2 == 0
        if token.kind == "end":
            stack.pop()
            stack[-1][1].append(_map(inside, token.line) if kind == "map" else inside)
        elif token.kind == "scalar":
            inside.append(_key(token) if is_key else _scalar(token))
        elif is_key or token.tag not in ("", f"{_TAG}{'map' if token.kind == 'map' else 'seq'}"):
            raise TokenError(token.line, "a key must be text" if is_key else f"the tag {token.tag} is not read")
        else:
            stack.append((token.kind, []))
    return stack[0][1][0]


def _map(inside: list[Any], line: int) -> dict[str, Any]:
    own: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for key, value in zip(inside[::2], inside[1::2], strict=True):
        if key is not _MERGE:
            own[key] = value
            continue
        # Among several maps to merge the first one wins, and the map's own keys win over all.
        for one in reversed(value if isinstance(value, list) else [value]):
            if not isinstance(one, dict):
                raise TokenError(line, "<< takes a map, or a list of maps")
            merged |= one
    return merged | own


def _key(token: Token) -> Any:
    return _MERGE if token.plain and token.text == "<<" and not token.tag else token.text


def _scalar(token: Token) -> Any:
    tag = token.tag or (_resolve(token) if token.plain else f"{_TAG}str")
    word = tag.removeprefix(_TAG)
    if tag == "!" or word in _TEXT_TAGS:
        return token.text
    make = {
        "null": _VALUES.construct_yaml_null,
        "bool": _VALUES.construct_yaml_bool,
        "int": _VALUES.construct_yaml_int,
        "float": _VALUES.construct_yaml_float,
        "timestamp": _VALUES.construct_yaml_timestamp,
    }.get(word)
    if make is None or not tag.startswith(_TAG):
        raise TokenError(token.line, f"the tag {tag} is not read")
    if len(token.text) > _RESOLVED_CHARS:
        raise TokenError(token.line, f"a number of {len(token.text)} characters is not read")
    if word in ("int", "float") and ":" in token.text:
        return token.text
    try:
        value = make(yaml.ScalarNode(tag, token.text))
    # PyYAML raises LookupError for `!!bool x` and AttributeError for `!!timestamp x`.
    except (ValueError, LookupError, AttributeError) as error:
        raise TokenError(token.line, f"not valid YAML: {error}") from error
    return token.text if word == "timestamp" else value


def _resolve(token: Token) -> str:
    """Find the tag of a plain scalar according to YAML 1.1."""
    text = token.text
    if len(text) > _RESOLVED_CHARS:
        # A long number keeps its tag, so that it is refused as a number and not accepted as text.
        return f"{_TAG}int" if _LONG_NUMBER.fullmatch(text) else f"{_TAG}str"
    for tag, pattern in yaml.SafeLoader.yaml_implicit_resolvers.get(text[:1], ()):
        if pattern.match(text):
            return str(tag)
    return f"{_TAG}str"
