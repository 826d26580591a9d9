"""Leader election with a Lease, in which a leader reliably stops at its deadline.

The deadline counts from *before* the renewal was sent, on a clock that also runs while the machine is suspended. It lies well
before the moment at which another candidate may take the lease. A process that was frozen and continues therefore finds its
time expired: `seconds_left`, which is called before every write, needs no running timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from .client import ApiClient
from .errors import ApiError, ConflictError
from .resources import LEASES
from .tasks import cancel_and_wait

__all__ = ["CONTROLLER", "LeaderElector", "boot_time"]

_log = logging.getLogger(__name__)

CONTROLLER = "vmnic-controller"
"""Lease of the controller that changes pools, nodes and VMs."""


def boot_time() -> float:
    """Return the seconds since boot, including suspension (CLOCK_BOOTTIME)."""
    # CLOCK_MONOTONIC stands still during suspension: a machine that wakes up would consider an old lease valid.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class LeaderElector:
    """Holds one Lease as one candidate.

    Args:
        api: A client without a guard.
        name: Name of the Lease.
        namespace: Its namespace.
        identity: Unique name of this process.
        duration_s: Time after which another candidate may take a lease that it has not seen renewed.
        clock: Returns the time in seconds and never goes back.
    """

    def __init__(
        self,
        api: ApiClient,
        name: str,
        namespace: str,
        identity: str,
        *,
        duration_s: float = 15.0,
        clock: Callable[[], float] = boot_time,
    ) -> None:
        self.identity = identity
        self._api = api
        self._name = name
        self._namespace = namespace
        self._duration_s = duration_s
        self._lead_s = duration_s * 2 / 3
        """How long a renewal permits leading. A third of the lease remains as a margin for a write in flight."""
        # Five tries fit into the time that one renewal gives, so that one lost request does not end the leadership.
        self._retry_s = duration_s / 8
        self._clock = clock
        self._deadline: float | None = None
        self._seen: tuple[Any, float] = (None, 0.0)
        """Last renewal of another holder, and when this process first saw it."""

    def seconds_left(self) -> float | None:
        """Return how long this process may still write as the leader, or None if it does not lead.

        Any thread may call this.
        """
        deadline = self._deadline
        if deadline is None:
            return None
        left_s = deadline - self._clock()
        return left_s if left_s > 0 else None

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait for the lease, run `lead` while it is held, and start again when it is lost.

        `lead` is cancelled at the deadline. If it returns or raises by itself, the lease is released and this does the same.
        """
        while True:
            while not await self._try_acquire_or_renew():
                await asyncio.sleep(self._retry_s)
            _log.info("leading as %s", self.identity)
            task = asyncio.ensure_future(lead())
            try:
                await self._renew_beside(task)
            finally:
                held = self.seconds_left() is not None
                # The work ends before the lease is released, because a successor may lead from that moment.
                await cancel_and_wait([task])
                self._deadline = None
                if held:
                    await self._release()
            if not task.cancelled():
                task.result()
                return
            _log.warning("the lease is lost, following")

    async def _renew_beside(self, task: asyncio.Future[None]) -> None:
        """Renew until the task ends or the deadline passes."""
        while not task.done():
            left_s = self.seconds_left()
            if left_s is None:
                return
            await asyncio.wait([task], timeout=min(self._retry_s, left_s))
            if not task.done() and self.seconds_left() is not None:
                await self._try_acquire_or_renew()

    async def _try_acquire_or_renew(self) -> bool:
        """Take or renew the lease and return whether it is held.

        It is not if another candidate holds it or no answer came in time.
        """
        timeout_s = min(self._retry_s * 2, self.seconds_left() or self._retry_s * 2)
        asked = self._clock()
        try:
            async with asyncio.timeout(timeout_s):
                held = await self._take_or_renew(asked)
        except (ApiError, TimeoutError) as error:
            # A conflict is normal: another candidate was first.
            if not isinstance(error, ConflictError):
                _log.warning("the lease could not be renewed: %s", str(error) or "no answer in time")
            return False
        except Exception:
            # Not an error of the API server: the Lease itself cannot be read, whichever client wrote it.
            _log.exception("the lease %s/%s could not be renewed", self._namespace, self._name)
            return False
        if held:
            self._deadline = asked + self._lead_s
        return held

    async def _take_or_renew(self, now: float) -> bool:
        found = await self._api.read(LEASES, self._name, self._namespace)
        if found is None:
            await self._api.create(LEASES, self._render({}), self._namespace)
            return True
        spec = found.get("spec") or {}
        if spec.get("holderIdentity") not in (self.identity, "", None) and not self._expired(spec, now):
            return False
        # `_render` keeps the resourceVersion, so that only one of several candidates succeeds.
        await self._api.replace(LEASES, self._render(found), self._name, self._namespace)
        return True

    def _expired(self, spec: dict[str, Any], now: float) -> bool:
        """Return whether another holder's lease was observed without renewal for its whole duration.

        The clocks of different machines are not compared.
        """
        mark = (spec.get("holderIdentity"), spec.get("renewTime"))
        if self._seen[0] != mark:
            self._seen = (mark, now)
        # The holder's duration counts, which may be another one: `kubectl vmnic uninstall` takes this Lease for 15 s.
        return now - self._seen[1] > float(spec.get("leaseDurationSeconds") or self._duration_s)

    def _render(self, found: dict[str, Any], holder: str | None = None) -> dict[str, Any]:
        spec = found.get("spec") or {}
        taken = spec.get("holderIdentity") != self.identity
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        metadata = {"name": self._name, "namespace": self._namespace}
        if version := found.get("metadata", {}).get("resourceVersion"):
            metadata["resourceVersion"] = version
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": self.identity if holder is None else holder,
                # The API server accepts positive integers only.
                "leaseDurationSeconds": max(1, round(self._duration_s)),
                "acquireTime": now if taken else spec.get("acquireTime") or now,
                "renewTime": now,
                "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (1 if taken else 0),
            },
        }

    async def _release(self) -> None:
        """Release the lease, so that a successor need not wait.

        If that fails, the successor waits.
        """
        with contextlib.suppress(Exception):
            async with asyncio.timeout(self._retry_s):
                found = await self._api.read(LEASES, self._name, self._namespace)
                if found and (found.get("spec") or {}).get("holderIdentity") == self.identity:
                    await self._api.replace(LEASES, self._render(found, holder=""), self._name, self._namespace)
