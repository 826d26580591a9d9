"""Threads beside the main loop, one for lease, probes and metrics, one for the webhook."""

from __future__ import annotations

import argparse
import asyncio
import functools
import logging
from typing import Protocol

from ...kube.client import ApiClient
from ...kube.lease import LeaderElector
from ...kube.loops import run_in_loop
from ...kube.tasks import run_together
from ..admission.reviews import Reviews
from ..admission.rotation import Certificates
from ..admission.server import Webhook
from ..metrics import ControllerMetrics
from .serving import serve_metrics, serve_probes
from .watchdog import Watchdog

__all__ = ["Threads"]

_log = logging.getLogger(__name__)


class MainLoop(Protocol):
    """The parts of the controller that the threads call. They run in the main loop."""

    metrics: ControllerMetrics

    async def lead(self) -> None:
        """Reconcile until leadership is lost."""
        ...

    async def wait_until_decidable(self) -> None:
        """Wait until the caches are complete."""
        ...

    def reviews(self, *, is_authenticated: bool) -> Reviews:
        """Return the decider of admission reviews."""
        ...


class Threads:
    """Work of the two threads, each of which has its own event loop.

    Args:
        controller: The controller, which lives in the main loop.
        elector: Holds the lease.
        certificates: The webhook's certificates.
        watchdog: Detects a stalled main loop.
        chosen: The flags.
        main: The main loop.
    """

    def __init__(
        self,
        controller: MainLoop,
        elector: LeaderElector,
        certificates: Certificates,
        watchdog: Watchdog,
        chosen: argparse.Namespace,
        main: asyncio.AbstractEventLoop,
    ) -> None:
        self._controller = controller
        self._elector = elector
        self._certificates = certificates
        self._watchdog = watchdog
        self._chosen = chosen
        self._main = main
        self._is_serving = False

    async def keep_lease(self, client: ApiClient) -> None:
        """Hold the lease, serve probes and metrics, and watch the main loop, until cancelled."""
        probes = serve_probes(self._chosen.probe_port, self._state)
        metrics = serve_metrics(self._chosen.metrics_port, self._controller.metrics.render)
        async with client, probes, metrics:
            lead = functools.partial(run_in_loop, self._main, self._controller.lead)
            await run_together(self._elector.run(lead), self._watchdog.watch())

    async def serve_webhook(self, client: ApiClient) -> None:
        """Keep the webhook's certificate fresh, and serve once reviews can be decided, until cancelled."""
        async with client:
            await run_together(self._certificates.keep_fresh(), self._serve_webhook())

    async def _serve_webhook(self) -> None:
        await run_in_loop(self._main, self._controller.wait_until_decidable)
        await self._certificates.loaded.wait()
        reviews = self._controller.reviews(is_authenticated=bool(self._chosen.client_ca))
        webhook = Webhook(reviews, self._main, self._certificates.context, self._controller.metrics.reviewed)
        async with webhook.serve(self._chosen.webhook_port):
            _log.info("the webhook serves port %d", self._chosen.webhook_port)
            # Only now the replica is ready, so that the Service sends no review to a port that nothing serves.
            self._is_serving = True
            await asyncio.Event().wait()

    def _state(self) -> str | None:
        if not self._is_serving:
            return None
        return "leading" if self._elector.seconds_left() else "following"
