"""A YAML stream in chunks that begin with `---`, so that an error in one leaves the others readable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Protocol

from .documents import BoundError

__all__ = ["MOST_LINE", "MOST_STRETCH", "Chunk", "TextLines", "read_chunks"]

MOST_STRETCH: Final = 2 * 2**20
"""Characters that the parser may read for one event, such as one scalar."""
MOST_LINE: Final = 2**16
"""Characters that are taken from the stream at once."""
_MOST_DIRECTIVES: Final = 16
"""The parser compares each `%TAG` with all others."""
_MARKER: Final = re.compile(r"\ufeff?---(?:\s|$)")


class TextLines(Protocol):
    """Text that is read by lines, whose ends are line feeds."""

    def readline(self, size: int = -1, /) -> str:
        """Give the next line, or at most so many characters of it; empty at the end."""


def read_chunks(stream: TextLines) -> Iterator[Chunk]:
    """Split a stream; what a chunk's reader leaves is passed over.

    Raises:
        OSError: the stream cannot be read.
        UnicodeDecodeError: it is no text.
    """
    source = _Source(stream)
    while source.next_text:
        chunk = Chunk(source)
        yield chunk
        chunk.leave()


class _Source:
    """The lines of a stream; the next one is known before it is taken."""

    def __init__(self, stream: TextLines) -> None:
        self._stream = stream
        self.starts_line = True
        self.line = 1
        self.next_text = stream.readline(MOST_LINE)

    def take(self) -> str:
        text = self.next_text
        self.starts_line = text.endswith("\n")
        self.line += self.starts_line
        self.next_text = self._stream.readline(MOST_LINE)
        return text


class Chunk:
    """Documents up to the next `---`, for a parser that calls `read`."""

    def __init__(self, source: _Source) -> None:
        self.first_line = source.line
        self._source = source
        self._is_begun = False
        self._directives = 0
        self._unseen = 0

    def read(self, size: int = MOST_LINE, /) -> str:
        """Give the parser more text; empty at the end.

        Raises:
            BoundError: the parser has read too much without an event, or too many directives.
        """
        found: list[str] = []
        length = 0
        while length < size and not self._is_over():
            found.append(self._take())
            length += len(found[-1])
        self._unseen += length
        if self._unseen > MOST_STRETCH:
            raise BoundError(f"a text of more than {MOST_STRETCH} characters is not read")
        if self._directives > _MOST_DIRECTIVES:
            raise BoundError(f"more than {_MOST_DIRECTIVES} directives (%) are not read")
        return "".join(found)

    def saw_event(self) -> None:
        """Begin to count again what is read for one event."""
        self._unseen = 0

    def leave(self) -> None:
        """Pass over what the parser has not read."""
        while not self._is_over():
            self._take()

    def _is_over(self) -> bool:
        """Directives stand before the `---` that they belong to, and do not end there."""
        if not self._source.next_text:
            return True
        return self._is_begun and not self._directives and self._at_marker()

    def _at_marker(self) -> bool:
        return self._source.starts_line and _MARKER.match(self._source.next_text) is not None

    def _take(self) -> str:
        is_marker, at_start = self._at_marker(), self._source.starts_line
        text = self._source.take()
        self._directives = 0 if is_marker else self._directives + (at_start and text.startswith("%"))
        # A byte order mark may stand before any document; the parser takes it only before the first one.
        text = text.removeprefix("\ufeff") if is_marker or not self._is_begun else text
        self._is_begun = True
        return text
