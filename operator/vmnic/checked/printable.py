"""Foreign text made safe for terminals, logs and Events by escape sequences."""

from __future__ import annotations

__all__ = ["cut", "printable"]


def printable(text: str) -> str:
    r"""Replace every unprintable character by its escape sequence, such as `\x1b`, `\u202e` or `\n`.

    Among them are control characters (C0, DEL, C1), line and paragraph separators, bidirectional overrides and other
    format characters, and lone surrogates. Every terminal, encoder and log reader accepts the result as plain text.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def cut(text: str, most_bytes: int) -> str:
    """Shorten text to a number of bytes of UTF-8 at a character boundary, with `…` in place of the rest."""
    # Lone surrogates have no form in UTF-8, and a log line must not fail because of a name.
    data = text.encode("utf-8", "replace")
    if len(data) <= most_bytes:
        return data.decode("utf-8")
    return data[: most_bytes - len("…".encode())].decode("utf-8", "ignore") + "…"
