"""JSON logs with one object per line, whose keys name its subject.

Only the standard library is used, because the agent's process must stay small. The keys are `pool`, `policy`, `vm`
(namespace/name), `node`, `pf` (PCI address), `resource`, `kind` and `object` (of any kind), given by `extra=`.
"""

from __future__ import annotations

import json
import logging
import sys
import time

from .checked.printable import cut

__all__ = ["setup_logging"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes that every record has. Any other attribute came from `extra=` and belongs to the line."""

_MOST_BYTES = 8192
"""Largest message, exception or value in bytes, because the kubelet splits lines longer than 16 KiB."""


class _JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object in ASCII.

    It adds keys from `extra=` and from the subject of the process.
    """

    def __init__(self, subject: dict[str, str]) -> None:
        super().__init__()
        self._subject = subject

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": cut(record.getMessage(), _MOST_BYTES),
        }
        line |= self._subject
        line |= {key: _bounded(value) for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = cut(self.formatException(record.exc_info), _MOST_BYTES)
        return json.dumps(line)


def _bounded(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float) else cut(str(value), _MOST_BYTES)


def setup_logging(level: str = "info", **subject: str) -> None:
    """Send all logs to standard error as JSON lines.

    Args:
        level: Lowest level that is written.
        subject: Keys of every line.

    Raises:
        ValueError: The level is unknown to Python.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(subject))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # At level info, aiohttp.access logs every probe, scrape and admission request.
    for name in ("aiohttp.access", "kopf"):
        logging.getLogger(name).setLevel(logging.WARNING)
