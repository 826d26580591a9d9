"""The only module that prints.

Untrusted text is shown literally and never interpreted, neither by the terminal (control characters, writing direction) nor by
rich (markup, emoji, highlighting).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NoReturn

import typer

from ..checked.printable import printable

__all__ = ["Output", "fail", "prepare", "say", "say_markdown", "show", "show_table", "warn"]

_PLAIN_WIDTH = 200
"""Columns if the output is not a terminal, so that a log or file wraps few lines."""


class Output(StrEnum):
    """Formats in which a result is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def prepare() -> None:
    """Show characters that an output's encoding lacks as escape sequences instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(line: str = "") -> None:
    """Print one line of a result."""
    # `uninstall` prints a line and then waits for minutes, so a pipe must not hold the line back.
    print(printable(line), flush=True)


def warn(line: str) -> None:
    """Print one line that is not part of a result to standard error."""
    print(printable(line), file=sys.stderr)


def fail(message: str) -> NoReturn:
    """End the command with an error and exit code 2."""
    warn(f"kubectl vmnic: {message}")
    raise typer.Exit(2)


def say_markdown(lines: Iterable[str]) -> None:
    """Print Markdown whose untrusted text is escaped (`markdown.escape_markdown`)."""
    for line in lines:
        say(line)


def show(value: object, output: Output) -> None:
    """Print a machine-readable result, in ASCII and without control characters."""
    if output is Output.JSON:
        # Both dumpers escape everything but ASCII by default, so no text reaches the terminal as it is.
        print(json.dumps(value, indent=2))
        return
    import yaml

    print(yaml.safe_dump(_well_formed(value), sort_keys=False), end="")


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str | tuple[str, ...]]]) -> None:
    """Print a table.

    Args:
        columns: Column headings.
        rows: Cells. A cell of several lines is a tuple.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # A `Text` is never parsed as markup. By default rich would cut a long cell, and a reason would lose its end.
        table.add_column(Text(printable(column)), overflow="fold")
    for row in rows:
        table.add_row(*(Text("\n".join(printable(line) for line in _lines(cell))) for cell in row))
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    Console(width=width, highlight=False, markup=False, emoji=False).print(table)


def _lines(cell: str | tuple[str, ...]) -> tuple[str, ...]:
    return (cell,) if isinstance(cell, str) else cell


def _well_formed(value: object) -> object:
    """Replace lone surrogates, which no YAML parser accepts."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_well_formed(key): _well_formed(one) for key, one in value.items()}
    return [_well_formed(one) for one in value] if isinstance(value, list | tuple) else value
