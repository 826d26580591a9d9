"""HTTPS server of the webhook, in its own thread and event loop.

It answers each request within a second, even if the main loop is slow. It reads each request and limits its size; the main loop
decides from its caches, under a time budget. If there is no decision in time, the object is allowed unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

import msgspec
from aiohttp import web

from ...kube.tasks import run_together
from ...kube.time_budget import OverBudgetError, Subject
from .connections import ConnectionSweeper
from .cpu_limit import CpuLimit
from .reviews import Answer, allow

__all__ = ["Webhook", "check_size"]

_log = logging.getLogger(__name__)

_PATHS = {
    "/mutate-virtualmachine": ("virtualmachine", "VirtualMachine"),
    "/mutate-virtualmachineinstance": ("virtualmachineinstance", "VirtualMachineInstance"),
    "/review-policy": ("policy", "VmNicPolicy"),
}
_BODY_BYTES = 4 * 2**20
"""A VM may be as large as etcd allows (1.5 MB), and a review contains it up to twice."""
_VALUES = 100_000
"""Maximum number of objects, lists and their entries in one review. Decoding them takes at most 50 ms."""
_HELD_BYTES = 64 * 2**20
"""Maximum size of all bodies in memory."""
_NAME_CHARS = 253
_ANSWER_S = 0.7
"""Leaves time to write the answer within the second."""
_HANDSHAKE_S = 5.0
# Longer than the sweeper's limit, so that the sweeper alone closes idle connections.
_KEEP_ALIVE_S = 150.0
_PACE_S = 0.1
_UNDECIDED = "vmnic leaves this object unchanged, because it could not decide"


class _Named(msgspec.Struct):
    uid: str
    name: str = ""
    namespace: str = ""


class _Envelope(msgspec.Struct):
    request: _Named


_envelope = msgspec.json.Decoder(_Envelope)


class _Reviews(Protocol):
    waiting: int

    async def answer(self, webhook: str, uid: str, subject: Subject, raw: bytes) -> Answer: ...


class Webhook:
    """Webhook server of one replica.

    Args:
        reviews: Decides the reviews. Its coroutines run in `main`.
        main: The main loop.
        context: The TLS context with the certificate, and with the clients' authority if clients are verified.
        reviewed: Receives the webhook, the outcome and the duration in seconds of every request.
    """

    def __init__(
        self,
        reviews: _Reviews,
        main: asyncio.AbstractEventLoop,
        context: ssl.SSLContext,
        reviewed: Callable[[str, str, float], None],
    ) -> None:
        self._reviews = reviews
        self._main = main
        self._context = context
        self._reviewed = reviewed
        self._held_bytes = 0
        self._failures: set[tuple[str, str]] = set()
        # Only for peers that the handshake does not prove to be the API server.
        self._limit = CpuLimit() if context.verify_mode == ssl.CERT_NONE else None

    @contextlib.asynccontextmanager
    async def serve(self, port: int) -> AsyncIterator[None]:
        """Listen on a port while the block runs."""
        app = web.Application(client_max_size=_BODY_BYTES)
        for path in _PATHS:
            app.router.add_post(path, self._handle)
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=_KEEP_ALIVE_S, shutdown_timeout=_ANSWER_S)
        await runner.setup()
        protocols = runner.server
        assert protocols is not None
        self._sweeper = ConnectionSweeper(lambda: protocols.connections)
        # Several replicas may share one address on a test machine. In a cluster, each has its own.
        # aiohttp's own sites take no limit for the handshake.
        server = await asyncio.get_running_loop().create_server(
            protocols, port=port, ssl=self._context, ssl_handshake_timeout=_HANDSHAKE_S, reuse_port=True
        )
        tasks = asyncio.ensure_future(run_together(self._sweeper.run(), self._pace()))
        try:
            yield
        finally:
            tasks.cancel()
            server.close()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        webhook, kind = _PATHS[request.path]
        started = time.monotonic()
        self._sweeper.note_request(request.protocol)
        outcome = "malformed"
        try:
            # A chunked body tells no length, so it counts as the largest.
            with self._hold(request.content_length or _BODY_BYTES):
                async with asyncio.timeout(_ANSWER_S):
                    raw = await request.read()
                named = _identify(raw)
                outcome, review = await self._review(webhook, kind, named, raw, started + _ANSWER_S)
            return web.json_response(review)
        except TimeoutError:
            raise web.HTTPRequestTimeout(text="the request did not arrive in time\n") from None
        finally:
            self._reviewed(webhook, outcome, time.monotonic() - started)

    @contextlib.contextmanager
    def _hold(self, size: int) -> Iterator[None]:
        """Count a body as held in memory while the block runs."""
        if self._held_bytes + size > _HELD_BYTES:
            raise web.HTTPServiceUnavailable(text="too many reviews at once\n")
        self._held_bytes += size
        try:
            yield
        finally:
            self._held_bytes -= size

    async def _review(self, webhook: str, kind: str, named: _Named, raw: bytes, until: float) -> tuple[str, dict[str, Any]]:
        """Return the outcome and the AdmissionReview.

        Without a decision, the object is allowed unchanged.
        """
        if self._limit is not None and self._limit.deficit_s > 0:
            return "throttled", allow(named.uid)
        subject = Subject(kind, "/".join(filter(None, (named.namespace[:_NAME_CHARS], named.name[:_NAME_CHARS]))))
        self._reviews.waiting += 1
        try:
            check_size(raw)
            work = asyncio.run_coroutine_threadsafe(self._reviews.answer(webhook, named.uid, subject, raw), self._main)
            answer = await asyncio.wait_for(asyncio.wrap_future(work), until - time.monotonic())
        except (TimeoutError, OverBudgetError):
            # The main loop may have worked on it for all that time.
            self._charge(_ANSWER_S)
            return "late", allow(named.uid, f"{_UNDECIDED} in time")
        except Exception as error:
            self._log_once(webhook, subject, error)
            return "failed", allow(named.uid, _UNDECIDED)
        finally:
            self._reviews.waiting -= 1
        self._charge(answer.cpu_s)
        return _outcome(answer.review["response"]), answer.review

    def _charge(self, seconds: float) -> None:
        if self._limit is not None:
            self._limit.charge(seconds)

    def _log_once(self, webhook: str, subject: Subject, error: Exception) -> None:
        """Log each kind of failure once, because peers could fill the log otherwise.

        The metric counts all failures.
        """
        failure = (webhook, type(error).__name__)
        if failure not in self._failures:
            self._failures.add(failure)
            _log.error("the review of %s %s failed, it is allowed as it is", *subject, exc_info=error)

    async def _pace(self) -> None:
        """Charge this thread's CPU time, TLS handshakes included, and sleep while the limit is used up."""
        before = time.thread_time()
        while self._limit is not None:
            await asyncio.sleep(_PACE_S)
            now = time.thread_time()
            self._limit.charge(now - before)
            before = now
            if self._limit.deficit_s > 0:
                # A TLS handshake costs CPU time before any request can be refused, so none may begin now.
                time.sleep(_PACE_S)  # noqa: ASYNC251 - the whole thread is to rest


def check_size(raw: bytes) -> None:
    """Check that a review has few enough values to be decided in time.

    Raises:
        ValueError: it has too many.
    """
    # Characters inside of texts count too. The bound needs no decoding, which is what it protects from.
    if raw.count(b",") + raw.count(b"{") + raw.count(b"[") > _VALUES:
        raise ValueError(f"it has more than {_VALUES} values")


def _identify(raw: bytes) -> _Named:
    try:
        return _envelope.decode(raw).request
    except (msgspec.MsgspecError, RecursionError) as error:
        raise web.HTTPBadRequest(text=f"not an AdmissionReview: {error}\n"[:300]) from error


def _outcome(response: dict[str, Any]) -> str:
    if not response["allowed"]:
        return "refused"
    return "patched" if "patch" in response else "unchanged"
