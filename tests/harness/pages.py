"""Commands that the documentation tells a reader to type, and the answers that it shows."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Step", "read_steps", "script_below"]

_CONSOLE = re.compile(r"(<!-- not run: [^\n]*\n)?```console\n(.*?)```", re.DOTALL)
_SPACE, _ANYTHING = re.compile(r"[ \t]+"), "…"
"""Columns are as wide as their widest cell, so any amount of space is equal. `…` stands for any text."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a page."""

    command: str
    code: int
    """The exit code that the page names."""
    shown: tuple[str, ...]
    """Lines below the command. Empty if the page shows no answer."""

    def is_shown_by(self, output: str) -> bool:
        """Return whether a command's output matches the page, line by line.

        A line of `…` stands for any number of lines.
        """
        if not self.shown:
            return True
        lines = (r"(?:.*\n)*?" if line == _ANYTHING else f"{_pattern(line)} *\n" for line in self.shown)
        return re.fullmatch("".join(lines), f"{output.rstrip()}\n") is not None


def _pattern(line: str) -> str:
    words = (".*?".join(map(re.escape, word.split(_ANYTHING))) for word in _SPACE.split(line.rstrip()))
    return r"[ \t]+".join(words)


def read_steps(page: pathlib.Path) -> Iterator[Step]:
    """Yield the commands of a page's console blocks, except those marked as not run."""
    for not_run, block in _CONSOLE.findall(page.read_text()):
        for part in () if not_run else re.split(r"^\$ ", block.replace("\\\n", ""), flags=re.MULTILINE)[1:]:
            first, *shown = part.rstrip().split("\n")
            command, _, note = first.partition(" # exits with ")
            yield Step(command, int(note or 0), tuple(shown))


def script_below(page: pathlib.Path, heading: str, beginning: str) -> str:
    """Return the shell block below a heading that has a line with this beginning.

    Raises:
        LookupError: there is none.
    """
    section = re.split(rf"^#+ {re.escape(heading)}\n", page.read_text(), flags=re.MULTILINE)[1].split("\n## ", 1)[0]
    for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL):
        if re.search(rf"^{re.escape(beginning)}", block, re.MULTILINE):
            return str(block)
    raise LookupError(f"{page.name} has no such block below {heading}: {beginning}")
