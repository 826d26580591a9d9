"""Kopf, in a thread and a loop of its own: it watches our own kinds and only says which key to look at.

Kopf cancels the tasks of its loop when it stops, and ends on some API errors; in a thread of its own neither touches the caches
and the webhook. It runs on the leader only, and is started again when it ends unasked.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import kopf

from ...api.common import GROUP, VERSION
from ...api.policy import VmNicPolicy
from ...api.pool import SriovNetworkPool
from ...kube.connection import Connection
from ..caches.keys import Key, policy_key, pool_key

__all__ = ["KopfThread"]

_log = logging.getLogger(__name__)

_RESTART_S = 2.0


class KopfThread:
    """Runs Kopf beside the caller's loop.

    Args:
        connection: Where the API server is.
        enqueue: Called in the caller's loop with every pool and policy that appears, changes or goes.
    """

    def __init__(self, connection: Connection, enqueue: Callable[[Key], None]) -> None:
        self._connection = connection
        self._enqueue = enqueue
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def stop(self) -> None:
        """Stop Kopf and wait for its thread, without holding up the caller's loop."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join, 5.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                asyncio.run(self._operate())
            except Exception:
                _log.exception("Kopf ended, it is started again")
            self._stop.wait(_RESTART_S)

    async def _operate(self) -> None:
        await kopf.operator(
            registry=self._registry(),
            settings=_settings(),
            standalone=True,
            clusterwide=True,
            stop_flag=self._stop,
            # Kopf would ask for the user's name, and in a container it often has none. Kopf does not export the type, a str.
            identity="vmnic",  # type: ignore[arg-type]
        )

    def _registry(self) -> kopf.OperatorRegistry:
        """Register what is watched: level-triggered handlers write nothing on the objects and need no finalizer."""
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        def login(**_: Any) -> kopf.ConnectionInfo:
            return kopf.ConnectionInfo(
                server=self._connection.server, ca_path=self._connection.ca_file, token=self._connection.token()
            )

        @kopf.on.event(GROUP, VERSION, SriovNetworkPool.PLURAL, registry=registry)
        def pool_seen(name: str | None, **_: Any) -> None:
            self._tell(pool_key(name or ""))

        @kopf.on.event(GROUP, VERSION, VmNicPolicy.PLURAL, registry=registry)
        def policy_seen(name: str | None, **_: Any) -> None:
            self._tell(policy_key(name or ""))

        return registry

    def _tell(self, key: Key) -> None:
        self._loop.call_soon_threadsafe(self._enqueue, key)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    # Without these, Kopf watches CRDs and namespaces, and needs the rights to.
    settings.scanning.disabled = True
    settings.watching.chunk_size = 500
    # Back-off is the work queue's; here it only has to outlast an API server's restart.
    settings.networking.error_backoffs = (1, 2, 4, 8, 16, 16, 16, 16)
    return settings
