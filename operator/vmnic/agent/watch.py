"""Events of the node's NICs, from the kernel's sockets or from the socket of a simulated host."""

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
"""One change causes many messages. Together they trigger one observation."""
_AGAIN_S = 1.0
"""Interval at which a simulated host that is away is tried again."""


class HostEvents:
    """Listens while `run` is active.

    Args:
        host: Where links are: `linux`, or a simulated host at `sim:SOCKET`.
        watched: Returns names and PCI addresses of the links that matter. Messages about others are ignored. A renamed link
            is recognized by its address. Kernels before 5.14 send only the name.
        changed: Called in the event loop shortly after a message that matters.
    """

    def __init__(self, host: str, watched: Callable[[], set[str]], changed: Callable[[], None]) -> None:
        self._host = host
        self._watched = watched
        self._changed = changed
        self._settling: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Listen until cancelled.

        Raises:
            OSError: The kernel does not provide such a socket.
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
        """Follow the events of a simulated host.

        After a reconnection anything may have changed.
        """
        while True:
            # A reply that is no event is treated like a host that is away.
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                reader, writer = await asyncio.open_unix_connection(path)
                with contextlib.closing(writer):
                    writer.write(json.dumps(LISTEN).encode() + b"\n")
                    async for line in reader:
                        self._take([_told(json.loads(line))])
            await asyncio.sleep(_AGAIN_S)

    def _take(self, events: Iterable[HostEvent]) -> None:
        matter = [event for event in events if self._matters(event)]
        # Later messages do not restart the timer, or a link that flaps without a pause would delay the observation for ever.
        if matter and self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(_SETTLE_S, self._settle)

    def _settle(self) -> None:
        self._settling = None
        self._changed()

    def _matters(self, event: HostEvent) -> bool:
        about_link = event.what in ("newlink", "dellink")
        # All PCI functions matter, because new VFs have addresses that nothing has watched before.
        # Empty names are dropped: kernels before 5.14 send no address, and a watched PF without a link has no name.
        return not about_link or not self._watched().isdisjoint({event.link, event.address} - {""})


def _told(reply: Mapping[str, Any]) -> HostEvent:
    """Decode a line that a simulated host sent.

    Raises:
        OSError: The line reports an error instead of an event.
    """
    if "error" in reply:
        raise decode_error(reply["error"])
    return decode_event(reply)
