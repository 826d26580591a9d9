"""Key files as GLib reads them (GKeyFile).

Keys are case-sensitive, and what GLib refuses is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Keyfile", "KeyfileError", "parse_keyfile"]

_REPLACED = "\ufffd"
"""The character that replaced bytes that are not UTF-8."""
_MOST_LINES = 4096


class KeyfileError(ValueError):
    """A text is not a key file. The message says why."""


@dataclass(frozen=True, slots=True)
class Keyfile:
    """The sections of a key file with their keys."""

    sections: Mapping[str, Mapping[str, str]]

    def has(self, section: str) -> bool:
        """Return whether the file has a section."""
        return section in self.sections

    def get(self, section: str, key: str) -> str:
        """Return a value without the blanks around it, or an empty string if there is none."""
        return self.sections.get(section, {}).get(key, "")


def parse_keyfile(text: str, *, most_chars: int) -> Keyfile:
    """Parse a key file. The last value of a repeated key counts.

    Raises:
        KeyfileError: The text is too long, is not UTF-8, or has a line that is neither section, key nor comment.
    """
    if len(text) > most_chars:
        raise KeyfileError(f"it has more than {most_chars} characters")
    if "\0" in text or _REPLACED in text:
        raise KeyfileError("it is not UTF-8 text")
    # GLib skips a byte order mark, and ends lines only at a newline, unlike `splitlines`.
    lines = text.removeprefix("\ufeff").split("\n")
    if len(lines) > _MOST_LINES:
        raise KeyfileError(f"it has more than {_MOST_LINES} lines")
    sections: dict[str, dict[str, str]] = {}
    section: dict[str, str] | None = None
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            # GLib merges sections of the same name.
            section = sections.setdefault(line[1:-1], {})
            continue
        key, separator, value = line.partition("=")
        if not separator or not key.strip() or section is None:
            raise KeyfileError(f"line {number} is not understood")
        section[key.strip()] = value.strip()
    return Keyfile(sections)
