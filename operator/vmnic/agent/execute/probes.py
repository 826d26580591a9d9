"""Probes of the API server and the default gateway, which must stay reachable across a change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Protocol

from ...host.client import HostAccess, OperationTimedOutError, WorkerGoneError
from ...host.ops import CheckGateway
from ...kube.errors import ApiError
from ..node_state_client import NodeStateClient

__all__ = ["NodeProbes", "Probes", "boot_clock"]

_API_S = 5.0
# More than the 3 s within which host/gateway.py gives its answer.
_GATEWAY_S = 5.0


class Probes(Protocol):
    """Reports what is reachable."""

    async def working(self, self_enabled_links: tuple[str, ...]) -> tuple[str, ...]:
        """Return what is reachable now.

        Args:
            self_enabled_links: PCI addresses of PFs that vmnic enabled. Routes learned there do not count.
        """
        ...

    async def hold(self, needed: Collection[str], self_enabled_links: tuple[str, ...]) -> bool:
        """Return whether all needed targets are reachable now."""
        ...


class NodeProbes:
    """Probes the API server and the default gateway.

    It reads this node's object, and resolves the gateway's link address.
    """

    def __init__(self, host: HostAccess, reporter: NodeStateClient) -> None:
        self._host = host
        self._reporter = reporter

    async def working(self, self_enabled_links: tuple[str, ...]) -> tuple[str, ...]:
        """Return what is reachable now (see `Probes`)."""
        api, gateway = await asyncio.gather(self._api(), self._gateway(self_enabled_links))
        return ("api",) * api + ("gateway",) * gateway

    async def hold(self, needed: Collection[str], self_enabled_links: tuple[str, ...]) -> bool:
        """Return whether all needed targets are reachable now (see `Probes`)."""
        return set(needed) <= set(await self.working(self_enabled_links))

    async def _api(self) -> bool:
        try:
            async with asyncio.timeout(_API_S):
                await self._reporter.read()
        except (ApiError, TimeoutError):
            return False
        return True

    async def _gateway(self, self_enabled_links: tuple[str, ...]) -> bool:
        try:
            async with self._host.session("observe", write=False) as session:
                # An empty answer (no gateway that can be probed) is False too, so such a node never waits for a gateway.
                return await session.perform(CheckGateway(self_enabled_links), deadline_s=_GATEWAY_S) == "reachable"
        except (OSError, OperationTimedOutError, WorkerGoneError):
            return False


def boot_clock() -> float:
    """Return the seconds since boot.

    All processes of a node see the same value, and it includes time spent in suspend.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)
