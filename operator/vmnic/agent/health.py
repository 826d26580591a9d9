"""Liveness and readiness endpoints, which the kubelet probes on the node's loopback.

They are a few lines of HTTP on a plain stream, because aiohttp's server would cost the agent megabytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

__all__ = ["Health"]

_PATIENCE_S = 5.0
"""Seconds in which a client must send its request."""


class Health:
    """Records when a pass last succeeded.

    Args:
        fresh_s: The node becomes unready if no pass succeeded for this many seconds.
        clock: Monotonic seconds.
    """

    def __init__(self, fresh_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._fresh_s = fresh_s
        self._clock = clock
        self._seen: float | None = None

    def seen(self) -> None:
        """Record that the node was observed and reported now."""
        self._seen = self._clock()

    async def serve(self, port: int) -> asyncio.Server:
        """Serve `/healthz`, which always succeeds, and `/readyz`, which depends on the last pass.

        Port 0 chooses a free port.
        """
        # The pod has the node's network, where any other address could be reached from outside.
        return await asyncio.start_server(self._answer, "127.0.0.1", port)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_PATIENCE_S):
                request = await reader.readuntil(b"\r\n\r\n")
                _, _, rest = request.partition(b" ")
                writer.write(self._reply(rest.partition(b" ")[0]))
                await writer.drain()
        writer.close()

    def _reply(self, path: bytes) -> bytes:
        # Liveness shows that the event loop runs. A restart would not help against a host that cannot be read.
        if path == b"/healthz" or (path == b"/readyz" and self._is_fresh()):
            return _http(b"200 OK", b"ok\n")
        if path == b"/readyz":
            return _http(b"503 Service Unavailable", b"the node was not looked at lately\n")
        return _http(b"404 Not Found", b"/healthz and /readyz are here\n")

    def _is_fresh(self) -> bool:
        return self._seen is not None and self._clock() - self._seen < self._fresh_s


def _http(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(body))
    return head + body
