"""A port over a Unix socket, with one JSON line per request and per reply.

    {"id": 1, "op": {"kind": "ReadFile", "path": "/sys/..."}}   ->   {"id": 1, "value": "7"}  or  {"id": 1, "error": {...}}

    {"listen": true}   ->   a line for every event from now on, the first of which is `lost`, because earlier events are unknown

A connection answers in order. An operation that blocks in the kernel blocks only its own connection, because the server has a
thread for each.
"""

from __future__ import annotations

import contextlib
import errno
import json
import pathlib
import queue
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .codec import decode_error, decode_op, decode_value, encode_error, encode_op, encode_value
from .events import LOST, HostEvent, encode_event
from .ops import Op, Port, Value

__all__ = ["LISTEN", "REPLY_BYTES", "SocketPort", "answer", "serve_port"]

REPLY_BYTES = 2**22
"""Largest reply in bytes. A few hundred sysfs files, or a dump of hundreds of links, need less."""

Control = Callable[[Mapping[str, Any]], Any]
"""Handles a command that is no operation (a simulated host's `hold`) and returns a JSON-able reply."""
Listen = Callable[[Callable[[HostEvent], None]], Callable[[], None]]
"""Registers a listener for every event and returns a function that removes it."""
LISTEN: Mapping[str, Any] = {"listen": True}
"""The request for events."""


class SocketPort:
    """A port that sends operations over a Unix socket."""

    def __init__(self, path: str | pathlib.Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")
        self._id = 0

    def perform(self, op: Op) -> Value:
        """Perform an operation at the other end.

        Raises:
            OSError: The kernel there refused, or the connection broke (ECONNRESET).
        """
        return decode_value(self._ask({"op": encode_op(op)}))

    def control(self, command: Mapping[str, Any]) -> Any:
        """Send a command that is no operation.

        Raises:
            OSError: The command was refused, or the connection broke.
        """
        return self._ask({"control": command})

    def close(self) -> None:
        """Close the connection."""
        self._lines.close()
        self._socket.close()

    def _ask(self, request: dict[str, Any]) -> Any:
        self._id += 1
        self._socket.sendall(json.dumps({"id": self._id, **request}).encode() + b"\n")
        line = self._lines.readline()
        if not line:
            raise OSError(errno.ECONNRESET, "the host's socket was closed")
        reply = json.loads(line)
        if "error" in reply:
            raise decode_error(reply["error"])
        return reply.get("value")


def serve_port(port: Port, listener: socket.socket, control: Control | None = None, listen: Listen | None = None) -> None:
    """Serve connections until the listening socket is closed, each in its own thread."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(port, connection, control, listen), daemon=True).start()


def _serve(port: Port, connection: socket.socket, control: Control | None, listen: Listen | None) -> None:
    # The peer may disconnect at any time. Its operation has been performed nevertheless, as in the kernel.
    with connection, contextlib.suppress(OSError):
        for line in connection.makefile("rb"):
            request = json.loads(line)
            if listen is not None and request == LISTEN:
                _tell(connection, listen)
            connection.sendall(json.dumps(answer(port, request, control)).encode() + b"\n")


def _tell(connection: socket.socket, listen: Listen) -> None:
    """Send events until the peer disconnects, which the next send detects."""
    told: queue.SimpleQueue[HostEvent] = queue.SimpleQueue()
    # Events are queued from here on. LOST follows and stands for all earlier ones, so none falls between the two.
    end = listen(told.put)
    try:
        told.put(LOST)
        while True:
            connection.sendall(json.dumps(encode_event(told.get())).encode() + b"\n")
    finally:
        end()


def answer(port: Port, request: Mapping[str, Any], control: Control | None = None) -> dict[str, Any]:
    """Perform one request and return its reply. A refusal is a reply too."""
    reply: dict[str, Any] = {"id": request.get("id")}
    try:
        if "control" in request:
            if control is None:
                raise OSError(errno.ENOSYS, "this host takes no commands")
            return reply | {"value": control(request["control"])}
        if "ops" in request:
            return reply | {"replies": _perform_all(port, request["ops"])}
        return reply | _perform(port, request["op"])
    except OSError as error:
        return reply | {"error": encode_error(error)}
    except (ValueError, KeyError, TypeError) as error:
        return reply | {"error": {"errno": errno.EINVAL, "message": str(error)}}


def _perform_all(port: Port, ops: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Perform operations in order.

    An operation whose answer exceeds the room in the reply is refused. The others are answered.
    """
    replies = []
    room = REPLY_BYTES
    for op in ops:
        one = _perform(port, op)
        size = len(json.dumps(one))
        # An error is short and not counted. The agent accepts four times this size (_LINE_BYTES in client.py).
        if size > room:
            one, size = {"error": {"errno": errno.EMSGSIZE, "message": "the replies are too large for one answer"}}, 0
        room -= size
        replies.append(one)
    return replies


def _perform(port: Port, wire: Mapping[str, Any]) -> dict[str, Any]:
    """Perform one operation and return its reply. A refusal is a reply too."""
    try:
        return {"value": encode_value(port.perform(decode_op(wire)))}
    except OSError as error:
        return {"error": encode_error(error)}
    except (ValueError, KeyError, TypeError) as error:
        return {"error": {"errno": errno.EINVAL, "message": str(error)}}
