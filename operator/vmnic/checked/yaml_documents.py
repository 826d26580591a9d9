"""YAML in foreign text, where each object is bounded before it is built.

A malformed object does not affect the others. The C parser returns events one by one, which takes no recursion; PyYAML's own
composer recurses in C. Every event is counted before it is kept. The items of a List are separate objects, because
`kubectl get -o yaml` writes a whole cluster as one document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import yaml
from yaml._yaml import CParser

from .documents import BoundError
from .yaml_source import Chunk, TextStream, read_chunks
from .yaml_tokens import Identity, Token, TokenError, TokenList, identify, make_value

__all__ = ["Document", "IsWanted", "read_documents"]

IsWanted = Callable[[str, str], bool]
"""Returns whether objects of an API version and a kind are built."""

_PARSED_LEVELS: Final = 1000
"""Most levels that are parsed. The parser's work per event grows with the depth, so it gives up a deeper document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One object of a stream, or the reason why it could not be read."""

    line: int
    kind: str = ""
    """Its kind, as far as known. One that is not wanted has its API group as a suffix."""
    name: str = ""
    """`NAMESPACE/NAME`, as far as known."""
    value: Any = None
    skipped: bool = False
    """Whether its kind is not wanted, so that no value was built."""
    problem: str = ""


def read_documents(stream: TextStream, is_wanted: IsWanted) -> Iterator[Document]:
    """Read all objects of a text stream, including those that follow a malformed one.

    Args:
        stream: The text.
        is_wanted: Returns whether objects of an API version and a kind are built.

    Raises:
        OSError: The stream cannot be read.
        UnicodeDecodeError: The stream is not text.
    """
    for chunk in read_chunks(stream):
        yield from _read_chunk(chunk, is_wanted)


def _read_chunk(chunk: Chunk, is_wanted: IsWanted) -> Iterator[Document]:
    """Read the documents of a chunk, or the JSON objects in a row."""
    while True:
        builder = _Builder(chunk.first_line, is_wanted)
        try:
            # Not a loader of PyYAML, such as CSafeLoader: it composes nodes, which recurses.
            parser: Any = CParser(chunk)
            while not isinstance(event := parser.get_event(), yaml.StreamEndEvent):
                chunk.saw_event()
                builder.take(event)
                if isinstance(event, yaml.DocumentEndEvent):
                    yield from builder.documents()
                    builder = _Builder(chunk.first_line, is_wanted)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            if mark is not None and builder.is_empty and chunk.begin_again(mark.index, mark.line):
                continue
            yield builder.failed(chunk.first_line + (mark.line if mark is not None else 0), str(error.problem))
        # These are faults of the stream, which no later object survives either.
        except (OSError, UnicodeDecodeError):
            raise
        # `chunk.read` raises BoundError inside the parser, and any other fault must not hide the objects that follow.
        except Exception as error:
            yield builder.failed(chunk.first_line, _words(error))
        return


def _words(error: Exception) -> str:
    text = (str(error).splitlines() or [type(error).__name__])[0]
    return text if isinstance(error, BoundError) else f"not valid YAML: {text}"


@dataclass(slots=True)
class _Anchored:
    """A node that an alias may repeat."""

    tokens: TokenList
    start: int
    end: int | None = None
    """Index after its last token; None while the node is open."""


@dataclass(slots=True)
class _Builder:
    """Assigns the events of one document to objects, which are the items of a List and the rest."""

    first_line: int
    is_wanted: IsWanted
    _rest: TokenList = field(default_factory=TokenList)
    _item: TokenList = field(default_factory=TokenList)
    _items: list[Document] = field(default_factory=list)
    _in_items: bool = False
    _has_items: bool = False
    _upper_nodes: int = 0
    """Number of keys and values of the document's top-level map so far."""
    _upper_key: str = ""
    _anchors: dict[str, _Anchored] = field(default_factory=dict)
    _open: list[_Anchored] = field(default_factory=list)
    """Collections that are open."""

    @property
    def is_empty(self) -> bool:
        """Return whether no part of a document was seen."""
        return not self._rest.tokens

    def take(self, event: Any) -> None:
        """Handle one event of the parser.

        Raises:
            BoundError: The document has too many levels to be parsed further.
        """
        line = self.first_line + event.start_mark.line
        if isinstance(event, yaml.AliasEvent):
            self._repeat(str(event.anchor), line)
        elif isinstance(event, yaml.ScalarEvent):
            node = self._begin(Token("scalar", line, event.value, event.tag or "", bool(event.implicit[0])), event.anchor)
            self._finish(node)
        elif isinstance(event, yaml.CollectionStartEvent):
            kind = "map" if isinstance(event, yaml.MappingStartEvent) else "list"
            self._open.append(self._begin(Token(kind, line, tag=event.tag or ""), event.anchor))
            if len(self._open) > _PARSED_LEVELS:
                raise BoundError(f"more than {_PARSED_LEVELS} levels are not read, nor is the rest of the document")
        elif isinstance(event, yaml.CollectionEndEvent):
            node = self._open.pop()
            self._in_items = self._in_items and len(self._open) > 1
            node.tokens.add(Token("end", line))
            self._finish(node)

    def documents(self) -> Iterator[Document]:
        """Yield the objects of the document."""
        # `kind` may come after `items`, so only the end of the document shows whether it is a List.
        found = identify(self._rest.tokens)
        if not self._has_items or not self._is_list(found):
            yield from _made(self._rest, self.is_wanted)
            return
        problem = self._rest.problem or _find_list_fault(found)
        if problem:
            yield Document(line=self.first_line, kind=_shown(found, self.is_wanted), name=found.name, problem=problem)
        if not problem or self._rest.problem:
            yield from (self._with_kind(item, found) for item in self._items)

    def _is_list(self, found: Identity) -> bool:
        """Return whether the items are objects."""
        return (
            found.kind.endswith("List")
            or self.is_wanted(found.api_version, found.kind)
            # Another program's file may have items too, but no objects of these kinds.
            or any(item.kind and not item.skipped for item in self._items)
        )

    def _with_kind(self, item: Document, found: Identity) -> Document:
        """Return an item with the kind of its List if it has none, as in lists that the API server writes."""
        value = item.value
        if not isinstance(value, dict) or value.get("kind") or value.get("apiVersion"):
            return item
        own = found._replace(kind=found.kind.removesuffix("List"))
        if not self.is_wanted(own.api_version, own.kind):
            return replace(item, kind=_shown(own, self.is_wanted), value=None, skipped=True)
        return replace(item, kind=own.kind, value={"apiVersion": own.api_version, "kind": own.kind} | value)

    def failed(self, line: int, problem: str) -> Document:
        """Return a document for an error after which the parser cannot continue."""
        found = identify((self._item if self._in_items else self._rest).tokens)
        return Document(line=line, kind=_shown(found, self.is_wanted), name=found.name, problem=problem)

    def _finish(self, node: _Anchored) -> None:
        """End a node, and build it at once if it is an item of a List, so that only its value is kept."""
        node.end = len(node.tokens.tokens)
        if self._in_items and len(self._open) == 2:
            self._items += _made(self._item, self.is_wanted)

    def _begin(self, token: Token, anchor: str | None) -> _Anchored:
        """Add the first token of a node to the object that it belongs to."""
        tokens = self._object_at(token)
        node = _Anchored(tokens, len(tokens.tokens))
        if anchor:
            self._anchors[anchor] = node
        tokens.add(token)
        return node

    def _object_at(self, token: Token) -> TokenList:
        """Return the object that the next node belongs to.

        In a list of items, each node of the first level begins a new object.
        """
        if self._in_items and len(self._open) == 2:
            self._item = TokenList()
        if self._in_items:
            return self._item
        if len(self._open) == 1 and self._open[0].tokens.is_map:
            self._upper_nodes += 1
            if self._upper_nodes % 2:
                self._upper_key = token.text
            elif self._upper_key == "items" and token.kind == "list":
                self._in_items = self._has_items = True
        return self._rest

    def _repeat(self, name: str, line: int) -> None:
        """Insert the tokens that an alias stands for."""
        tokens = self._object_at(Token("scalar", line))
        found = self._anchors.get(name)
        if found is None or found.end is None:
            tokens.refuse(f"line {line}: the alias *{name} stands for " + ("itself" if found else "nothing"))
        elif found.tokens.problem:
            tokens.refuse(f"line {line}: the alias *{name} refers to a value that is not read: {found.tokens.problem}")
        else:
            tokens.add_copy(found.tokens.tokens[found.start : found.end])
        # The alias itself may be an item of a List.
        self._finish(_Anchored(tokens, 0))


def _made(tokens: TokenList, is_wanted: IsWanted) -> Iterator[Document]:
    """Build one object if its kind is wanted, where an empty document yields nothing."""
    found = identify(tokens.tokens)
    kind, name = _shown(found, is_wanted), found.name
    line = tokens.tokens[0].line if tokens.tokens else 1
    if tokens.problem:
        yield Document(line=line, kind=kind, name=name, problem=tokens.problem)
    elif found.kind and not is_wanted(found.api_version, found.kind):
        yield Document(line=line, kind=kind, name=name, skipped=True)
    else:
        try:
            value = make_value(tokens.tokens)
        except TokenError as error:
            yield Document(line=error.line, kind=kind, name=name, problem=str(error))
            return
        if value is not None:
            yield Document(line=line, kind=kind, name=name, value=value)


def _find_list_fault(found: Identity) -> str:
    """Return why an object with items is neither a List nor an object, or an empty string."""
    if not found.kind:
        return "a list of objects without a kind: add `kind: List`"
    if found.name and not found.kind.endswith("List"):
        return "`items` makes it a List for kubectl, which then drops the rest: remove `items`"
    return ""


def _shown(found: Identity, is_wanted: IsWanted) -> str:
    """Return the kind, with its API group if it is not wanted.

    It must not be taken for the kind of the same name that is wanted.
    """
    group, _, _ = found.api_version.rpartition("/")
    return ".".join(filter(None, (found.kind, "" if is_wanted(found.api_version, found.kind) else group)))
