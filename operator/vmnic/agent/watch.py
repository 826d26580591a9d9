"""Tells when something about the node's NICs has changed, as its host says it.

The kernel tells it to all who listen, a simulated host at its socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..host.codec import decode_error
from ..host.events import HostEvent, KernelEvents, decode_event
from ..host.socket import LISTEN

__all__ = ["HostEvents"]

_SETTLE_S = 0.2
"""One change makes many messages; together they are a reason for one look."""
_AGAIN_S = 1.0
"""A simulated host that is away is asked again so often."""


class HostEvents:
    """Listens as long as `run` does.

    Args:
        host: Where links are: `linux`, or a simulated host at `sim:SOCKET`.
        watched: Gives the names and PCI addresses of the links that matter; messages about others are passed over.
            A link that was renamed is known by its address, and kernels before 5.14 tell the name alone.
        changed: Called in the loop a moment after something that matters was told.
    """

    def __init__(self, host: str, watched: Callable[[], set[str]], changed: Callable[[], None]) -> None:
        self._host = host
        self._watched = watched
        self._changed = changed
        self._settling: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Listen for ever.

        Raises:
            OSError: the kernel gives no such socket.
        """
        if self._host.startswith("sim:"):
            await self._follow(self._host.removeprefix("sim:"))
        else:
            await self._listen()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.closing(KernelEvents()) as events:
            try:
                for one in events.sockets:
                    loop.add_reader(one, lambda: self._take(events.heard()))
                await loop.create_future()
            finally:
                for one in events.sockets:
                    loop.remove_reader(one)

    async def _follow(self, path: str) -> None:
        """Hear a simulated host; when it comes back, anything may have changed."""
        while True:
            # What a host says that is no event is as good as a host that is away.
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                reader, writer = await asyncio.open_unix_connection(path)
                with contextlib.closing(writer):
                    writer.write(json.dumps(LISTEN).encode() + b"\n")
                    async for line in reader:
                        self._take([_told(json.loads(line))])
            await asyncio.sleep(_AGAIN_S)

    def _take(self, events: Iterable[HostEvent]) -> None:
        matter = [event for event in events if self._matters(event)]
        if matter and self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(_SETTLE_S, self._settle)

    def _settle(self) -> None:
        self._settling = None
        self._changed()

    def _matters(self, event: HostEvent) -> bool:
        about_link = event.what in ("newlink", "dellink")
        return not about_link or not self._watched().isdisjoint({event.link, event.address} - {""})


def _told(reply: Mapping[str, Any]) -> HostEvent:
    """Read a line of a host.

    Raises:
        OSError: it tells of nothing.
    """
    if "error" in reply:
        raise decode_error(reply["error"])
    return decode_event(reply)
