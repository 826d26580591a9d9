"""Servers for probes and for metrics.

Each has a port of its own, because the kubelet reaches one and Prometheus the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from ...metrics import CONTENT_TYPE

__all__ = ["serve_metrics", "serve_probes"]


@contextlib.asynccontextmanager
async def serve_probes(port: int, state: Callable[[], str | None]) -> AsyncIterator[None]:
    """Serve /healthz and /readyz while the block runs.

    Args:
        port: Port to listen on.
        state: Returns the role of a ready replica, or None while it is not ready.
    """

    async def healthy(_: web.Request) -> web.Response:
        # Also while the main loop stalls: the watchdog ends such a process, and a kill by the kubelet would leave no trace.
        return web.Response(text="ok\n")

    async def ready(_: web.Request) -> web.Response:
        found = state()
        if found is None:
            return web.Response(status=503, text="the caches are not complete yet, or there is no certificate\n")
        return web.Response(text=f"{found}\n")

    app = web.Application()
    app.router.add_get("/healthz", healthy)
    app.router.add_get("/readyz", ready)
    async with _serve(app, port):
        yield


@contextlib.asynccontextmanager
async def serve_metrics(port: int, render: Callable[[], bytes]) -> AsyncIterator[None]:
    """Serve /metrics while the block runs."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=render(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    async with _serve(app, port):
        yield


@contextlib.asynccontextmanager
async def _serve(app: web.Application, port: int) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port, reuse_port=True).start()
        yield
    finally:
        await runner.cleanup()
