"""Duration of an admission review at a steady rate, and the no-op webhook that it is compared with."""

from __future__ import annotations

import asyncio
import base64
import json
import pathlib
import ssl
import sys
import time

import aiohttp

from tests.builders.vm import nic, vm

RATE = 100


def review() -> bytes:
    """Return the review of a VM that a policy would patch."""
    request = {"uid": "u", "namespace": "tenants", "operation": "CREATE", "object": vm("new", nic(model="e1000e"))}
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


async def latencies_ms(url: str, ca: pathlib.Path, seconds: float, pki: pathlib.Path) -> list[float]:
    """Send reviews at a fixed rate, independent of the answers, and return the duration of each."""
    context = ssl.create_default_context(cafile=str(ca))
    context.check_hostname = False
    context.load_cert_chain(pki / "front-proxy.crt", pki / "front-proxy.key")
    taken: list[float] = []
    body = review()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=0)) as session:

        async def send() -> None:
            began = time.perf_counter()
            async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
                assert json.loads(await answer.read())["response"]["allowed"]
            taken.append((time.perf_counter() - began) * 1000)

        begin = asyncio.get_running_loop().time()
        tasks = []
        for number in range(round(seconds * RATE)):
            await asyncio.sleep(max(0.0, begin + number / RATE - asyncio.get_running_loop().time()))
            tasks.append(asyncio.create_task(send()))
        await asyncio.gather(*tasks)
    return taken


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
