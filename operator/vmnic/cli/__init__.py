"""The command line `kubectl vmnic`.

A command imports slow modules itself, so that the other commands start fast.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line.

    A crash exits with code 3, so that it is not mistaken for 1, which means changes.
    """
    from .app import app  # noqa: PLC0415 - keeps `import vmnic.cli` free
    from .terminal import prepare, warn  # noqa: PLC0415 - likewise

    prepare()
    try:
        app(prog_name="kubectl vmnic")
    except Exception as error:
        warn(f"kubectl vmnic: {type(error).__name__}: {error}")
        sys.exit(3)
