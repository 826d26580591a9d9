"""Duration of an admission review at a steady rate, and the no-op webhook that it is compared with."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import pathlib
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import aiohttp

from tests.builders.vm import nic, vm

RATE = 100


def review() -> bytes:
    """Return the review of a VM that a policy would patch."""
    request = {"uid": "u", "namespace": "tenants", "operation": "CREATE", "object": vm("new", nic(model="e1000e"))}
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


class Target(NamedTuple):
    """A webhook and the authority of its certificate."""

    url: str
    ca: pathlib.Path


async def latencies_ms(url: str, ca: pathlib.Path, seconds: float, pki: pathlib.Path) -> list[float]:
    """Send reviews for some time, and return the duration of each."""
    end = time.monotonic() + seconds
    (taken,) = await interleaved_ms([Target(url, ca)], pki, lambda: time.monotonic() > end)
    return taken


async def interleaved_ms(targets: Sequence[Target], pki: pathlib.Path, is_over: Callable[[], bool]) -> list[list[float]]:
    """Send reviews to all targets in turn, and return the durations of each target.

    Each target gets them at the same fixed rate, independent of the answers.

    Args:
        targets: The webhooks.
        pki: Directory of the client certificate.
        is_over: Asked twice a second in a thread of its own.
    """
    taken: list[list[float]] = [[] for _ in targets]
    over = asyncio.create_task(_wait_until(is_over))
    async with contextlib.AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(_session(target.ca, pki)) for target in targets]
        body, loop, tasks = review(), asyncio.get_running_loop(), []

        async def send(number: int) -> None:
            began = time.perf_counter()
            headers = {"Content-Type": "application/json"}
            async with sessions[number].post(targets[number].url, data=body, headers=headers) as answer:
                assert json.loads(await answer.read())["response"]["allowed"]
            taken[number].append((time.perf_counter() - began) * 1000)

        begin = loop.time()
        for turn in itertools.count():
            if over.done():
                break
            await asyncio.sleep(max(0.0, begin + turn / (RATE * len(targets)) - loop.time()))
            tasks.append(asyncio.create_task(send(turn % len(targets))))
        await asyncio.gather(*tasks)
    over.result()
    return taken


async def _wait_until(is_over: Callable[[], bool]) -> None:
    while not await asyncio.to_thread(is_over):
        await asyncio.sleep(0.5)


def _session(ca: pathlib.Path, pki: pathlib.Path) -> aiohttp.ClientSession:
    context = ssl.create_default_context(cafile=str(ca))
    context.check_hostname = False
    context.load_cert_chain(pki / "front-proxy.crt", pki / "front-proxy.key")
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=0))


def percentiles(taken: list[float]) -> tuple[float, float]:
    """Return p50 and p99."""
    ordered = sorted(taken)
    return ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]


def serve(port: int, pki: pathlib.Path) -> None:
    """Serve the floor: the same server without a decision."""
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        uid = json.loads(await request.read())["request"]["uid"]
        patch = base64.b64encode(b"[]").decode()
        response = {"uid": uid, "allowed": True, "patchType": "JSONPatch", "patch": patch}
        return web.json_response({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "server.crt", pki / "server.key")
    app = web.Application()
    app.router.add_post("/", answer)
    web.run_app(app, port=port, ssl_context=context, print=None, access_log=None)


if __name__ == "__main__":
    serve(int(sys.argv[1]), pathlib.Path(sys.argv[2]))
