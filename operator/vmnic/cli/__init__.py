"""`kubectl vmnic`: what a person types. Everything slow is imported by the command that needs it."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; a crash ends with 3, so that it is not taken for "changes"."""
    from .app import app  # noqa: PLC0415 - keeps `import vmnic.cli` free
    from .terminal import prepare, warn  # noqa: PLC0415 - likewise

    prepare()
    try:
        app(prog_name="kubectl vmnic")
    except Exception as error:
        warn(f"kubectl vmnic: {type(error).__name__}: {error}")
        sys.exit(3)
