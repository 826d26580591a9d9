"""YAML stream in chunks that begin with `---`, so that an error in one does not affect the others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Protocol

from .documents import BoundError

__all__ = ["MOST_STRETCH", "Chunk", "TextStream", "read_chunks"]

MOST_STRETCH: Final = 2 * 2**20
"""Most characters that the parser may read for one event, such as one scalar."""
_BLOCK: Final = 2**16
"""Characters read from the stream at once."""
_PIECE: Final = 2**12
"""Characters that are read again at once, so that many small objects in a row take little time."""
_MOST_DIRECTIVES: Final = 16
"""Most directives in a chunk, because the parser compares each `%TAG` with all others."""
_SURROGATES: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
"""A character beyond 16 bits as JSON escapes it. YAML has another escape sequence for it."""


class TextStream(Protocol):
    """Text whose lines end with line feeds."""

    def read(self, size: int = -1, /) -> str:
        """Return at most `size` characters, or an empty string at the end."""

    def readline(self, size: int = -1, /) -> str:
        """Return the rest of the line, or at most `size` characters of it, or an empty string at the end."""


def read_chunks(stream: TextStream) -> Iterator[Chunk]:
    """Split a stream into chunks, and skip what the reader of a chunk leaves.

    Raises:
        OSError: The stream cannot be read.
        UnicodeDecodeError: The stream is not text.
    """
    source = _Source(stream)
    while source.has_more():
        chunk = Chunk(source)
        yield chunk
        chunk.leave()


class _Source:
    """A stream that is read in blocks that end with a line."""

    def __init__(self, stream: TextStream) -> None:
        self._stream = stream
        self._text = ""
        self._at = 0
        self._starts_line = True
        self.line = 1

    def has_more(self) -> bool:
        """Return whether text is left, and read the next block if the present one is used up."""
        if self._at == len(self._text):
            # A line longer than a block is cut. The next block then begins within a line, where `---` is text.
            self._starts_line = not self._text or self._text.endswith("\n")
            self._text, self._at = self._stream.read(_BLOCK), 0
            if self._text and not self._text.endswith("\n"):
                self._text += self._stream.readline(_BLOCK)
            # Files that were joined have a byte order mark in the middle, which the parser accepts only at the beginning.
            self._text = self._text.replace("\n\ufeff", "\n")
            self._text = self._text.removeprefix("\ufeff") if self._starts_line else self._text
        return bool(self._text)

    def take(self, *, is_first: bool) -> str:
        """Return the text up to the next beginning of a document.

        Returns:
            An empty string at the beginning of a document or at the end of the stream.
        """
        if not self.has_more():
            return ""
        marker = self._marker(self._at)
        end = self._with_directives(marker)
        # A chunk begins with its own marker, so the search for its end starts behind it.
        if is_first and end == self._at:
            end = self._with_directives(self._marker(marker + 1), marker + 1)
        text, self._at = self._text[self._at : end], end
        self.line += text.count("\n")
        return text

    def _marker(self, start: int) -> int:
        """Return the place of the next line that begins with `---`, or the end of the block."""
        if start == 0 and self._starts_line and self._is_marker(0):
            return 0
        place = max(start - 1, 0)
        while (place := self._text.find("\n---", place)) >= 0:
            if self._is_marker(place + 1):
                return place + 1
            place += 4
        return len(self._text)

    def _is_marker(self, place: int) -> bool:
        return self._text.startswith("---", place) and self._text[place + 3 : place + 4] in ("", " ", "\t", "\n")

    def _with_directives(self, marker: int, low: int = 0) -> int:
        """Return the place of the directives before a marker, including comments and blank lines among them."""
        found = line = marker
        low = max(low, self._at)
        for _ in range(_MOST_DIRECTIVES + 1 if marker < len(self._text) else 0):
            if line <= low:
                break
            line = max(self._text.rfind("\n", low, line - 1) + 1, low)
            if self._text[line] not in "%#\n":
                break
            found = line if self._text[line] == "%" else found
        return found


class Chunk:
    """The documents up to the next marker, for a parser that calls `read`."""

    def __init__(self, source: _Source) -> None:
        self.first_line = source.line
        self._source = source
        self._is_first = True
        self._is_json = False
        self._directives = 0
        self._unseen = 0
        self._read = ""
        """Text that the parser has read last."""
        self._read_chars = 0
        self._again = ""

    def read(self, _: int = _BLOCK, /) -> str:
        """Return more text for the parser, or an empty string at the end.

        Raises:
            BoundError: The parser has read too much text without an event, or too many directives.
        """
        text = self._take()
        # The parser reads ahead by less than a block, so the place of an error is in the last two.
        self._read = self._read[-_BLOCK:] + text
        self._read_chars += len(text)
        self._unseen += len(text)
        self._directives += text.count("\n%") + text.startswith("%")
        if self._unseen > MOST_STRETCH:
            raise BoundError(f"a text of more than {MOST_STRETCH} characters is not read")
        if self._directives > _MOST_DIRECTIVES:
            raise BoundError(f"more than {_MOST_DIRECTIVES} directives (%) are not read")
        return text

    def saw_event(self) -> None:
        """Reset the count of characters read for one event."""
        self._unseen = 0

    def begin_again(self, index: int, line: int) -> bool:
        """Return whether another JSON object begins at a place that was read, and begin to read there if so.

        JSON objects may follow each other without `---`, as in files that were joined.
        """
        rest = self._read[index - self._read_chars :] if index < self._read_chars else ""
        if not self._is_json or not rest.startswith("{"):
            return False
        self.first_line += line
        self._again, self._read, self._read_chars = rest + self._again, "", 0
        return True

    def leave(self) -> None:
        """Skip the text that the parser has not read."""
        while self._take():
            pass

    def _take(self) -> str:
        if self._again:
            text, self._again = self._again[:_PIECE], self._again[_PIECE:]
            return text
        is_first, self._is_first = self._is_first, False
        text = self._source.take(is_first=is_first)
        if is_first:
            self._is_json = text.lstrip().startswith("{")
        return _SURROGATES.sub(_join, text) if self._is_json else text


def _join(found: re.Match[str]) -> str:
    """Return the character that two surrogates stand for."""
    high, low = int(found[2], 16), int(found[3], 16)
    return found[1] + chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
