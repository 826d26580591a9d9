"""Tokens of one YAML object, counted while they are collected and converted only within bounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from .documents import BoundError
from .yaml_scalars import Scalar, read_key, read_scalar

__all__ = ["MOST_LEVELS", "MOST_NODES", "MOST_TEXT", "Token", "TokenError", "TokenList", "identify", "make_value"]

MOST_LEVELS: Final = 100
"""Most levels of one object. CustomResourceDefinitions, the deepest objects that people keep in files, have about 60."""
MOST_NODES: Final = 200_000
"""Most nodes of one object, where an alias counts as all nodes that it stands for."""
MOST_TEXT: Final = 4 * 2**20
"""Most characters of one object's scalars, where aliases count likewise. etcd stores 1.5 MB."""

_MERGE_TAG: Final = "tag:yaml.org,2002:merge"
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


class Identity(NamedTuple):
    """What an object says that it is. A part that is not found is empty."""

    api_version: str
    kind: str
    name: str
    """`NAMESPACE/NAME`."""


def identify(tokens: Iterable[Token]) -> Identity:
    """Find kind and name of an object without building it.

    The last of several equal keys counts, as in kubectl.
    """
    upper: dict[str, str] = {}
    meta: dict[str, str] = {}
    for path, text in _scalars(tokens):
        if len(path) == 1:
            upper[path[0]] = text
        elif path[0] == "metadata":
            meta[path[1]] = text
        elif path[0] == "<<" and path[1] in ("apiVersion", "kind"):
            upper[path[1]] = text
    name = meta.get("name") or (f"{meta['generateName']}*" if meta.get("generateName") else "")
    return Identity(upper.get("apiVersion", ""), upper.get("kind", ""), "/".join(filter(None, (meta.get("namespace"), name))))


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
            keys = tuple(key for key in path if key is not None)
            if len(keys) == len(path):
                yield keys, token.text
        if path:
            path[-1] = None


def make_value(tokens: Iterable[Token]) -> Any:
    """Build the maps, lists and scalars of one object from its tokens, without recursion.

    Keys are text, as in JSON. Tags of maps and lists mean nothing, as in kubectl.

    Raises:
        TokenError: A number is too long, a key is not a scalar, or a scalar does not match its tag.
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
        elif is_key:
            raise TokenError(token.line, "a key must be text")
        else:
            stack.append((token.kind, []))
    return stack[0][1][0]


def _map(inside: list[Any], line: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    # Of equal keys the last one wins, and a merge replaces what stands before it, as in kubectl.
    for key, value in zip(inside[::2], inside[1::2], strict=True):
        if key is not _MERGE:
            made[key] = value
            continue
        # Among several maps to merge the first one wins.
        for one in reversed(value if isinstance(value, list) else [value]):
            if not isinstance(one, dict):
                raise TokenError(line, "<< takes a map, or a list of maps")
            made |= one
    return made


def _key(token: Token) -> Any:
    if token.text == "<<" and (token.tag == _MERGE_TAG or (token.plain and not token.tag)):
        return _MERGE
    try:
        return read_key(token.text, token.tag, plain=token.plain)
    except BoundError as error:
        raise TokenError(token.line, str(error)) from error


def _scalar(token: Token) -> Scalar:
    try:
        return read_scalar(token.text, token.tag, plain=token.plain)
    except BoundError as error:
        raise TokenError(token.line, str(error)) from error
