"""The outer end of the guest's virtio port: many requests at a time over one connection."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
import threading
from collections.abc import Mapping
from concurrent import futures
from typing import Any

from vmnic.host.codec import decode_error, decode_value, encode_op
from vmnic.host.ops import Op


class RemotePending:
    """A request that may still be blocked in the guest's kernel."""

    def __init__(self) -> None:
        self.future: futures.Future[Any] = futures.Future()

    def done(self) -> bool:
        return self.future.done()

    def result(self, timeout_s: float) -> Any:
        return decode_value(self.future.result(timeout_s))


class RemoteHost:
    """The guest as a contract's subject."""

    _PATIENCE_S = 4.0
    """An emulated machine needs up to 3 s for the slowest operation that is not blocked."""

    def __init__(self, path: pathlib.Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._waiting: dict[int, RemotePending] = {}
        self._lock = threading.Lock()
        self._next = 0
        threading.Thread(target=self._receive, daemon=True).start()
        self.pf = self.other_pf = ""

    def greet(self, timeout_s: float) -> None:
        """Ask for the PFs; raises TimeoutError if the guest does not answer."""
        self.pf, self.other_pf = self.command({"pfs": None}, timeout_s)

    def perform(self, op: Op) -> Any:
        return self.start(op).result(60)

    def start(self, op: Op) -> RemotePending:
        return self._send({"op": encode_op(op)})

    def command(self, command: Mapping[str, Any], timeout_s: float = 60) -> Any:
        return self._send({"control": command}).result(timeout_s)

    def hold(self, vf: str) -> None:
        self.command({"hold": vf})

    def release(self, vf: str) -> None:
        self.command({"release": vf})

    def reset(self) -> None:
        self.command({"reset": None})

    def settled(self, pending: RemotePending) -> bool:
        try:
            pending.future.result(self._PATIENCE_S)
        except futures.TimeoutError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        self._socket.close()

    def _send(self, request: dict[str, Any]) -> RemotePending:
        pending = RemotePending()
        with self._lock:
            self._next += 1
            self._waiting[self._next] = pending
            self._socket.sendall(json.dumps({"id": self._next, **request}).encode() + b"\n")
        return pending

    def _receive(self) -> None:
        """Hand answers to those who wait, until the guest or this end goes away."""
        with contextlib.suppress(OSError, ValueError):
            self._hand_out()

    def _hand_out(self) -> None:
        for line in self._socket.makefile("rb"):
            reply = json.loads(line)
            future = self._waiting.pop(reply["id"]).future
            if "error" in reply:
                future.set_exception(decode_error(reply["error"]))
            else:
                future.set_result(reply.get("value"))
