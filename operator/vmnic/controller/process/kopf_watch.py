"""Kopf in its own thread and event loop.

It watches vmnic's own kinds and enqueues changed objects. Kopf cancels all tasks of its loop when it stops, and it ends on some
API errors. In a separate thread, neither affects the caches and the webhook. Kopf runs on the leader only, and is restarted if
it ends by itself.
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
        connection: Connection to the API server.
        enqueue: Called in the caller's loop for every pool and policy that is added, modified or deleted.
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
        """Stop Kopf and wait for its thread without blocking the caller's loop."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join, 5.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                asyncio.run(self._operate())
            except Exception:
                _log.exception("Kopf ended and is started again")
            self._stop.wait(_RESTART_S)

    async def _operate(self) -> None:
        await kopf.operator(
            registry=self._registry(),
            settings=_settings(),
            standalone=True,
            clusterwide=True,
            stop_flag=self._stop,
            # Without an identity, Kopf asks for the user's name, which a container often lacks. Kopf does not export the type,
            # a str.
            identity="vmnic",  # type: ignore[arg-type]
        )

    def _registry(self) -> kopf.OperatorRegistry:
        """Register the watched kinds.

        Level-triggered handlers write nothing to the objects and need no finalizer.
        """
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
    # Kopf's own client does not ask the lease, so Kopf must not write anything.
    settings.posting.enabled = False
    # Without these settings, Kopf watches CRDs and namespaces, and needs RBAC rights for that.
    settings.scanning.disabled = True
    settings.watching.chunk_size = 500
    # The work queue backs off. This back-off only has to outlast a restart of the API server.
    settings.networking.error_backoffs = (1, 2, 4, 8, 16, 16, 16, 16)
    return settings
