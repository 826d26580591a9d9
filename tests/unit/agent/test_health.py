import asyncio
import contextlib

import aiohttp
import pytest

from vmnic.agent.health import Health


@pytest.fixture
async def ask(clock):
    """Return a function that requests a path from a health server and returns the HTTP status."""
    health = Health(60, clock)
    server = await health.serve(0)
    port = server.sockets[0].getsockname()[1]

    async def get(path):
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status

    get.health, get.port = health, port
    yield get
    server.close()
    await server.wait_closed()


@pytest.fixture
def clock():
    def now():
        return now.time

    now.time = 0.0
    return now


async def test_a_node_is_ready_while_passes_succeed(ask, clock):
    assert (await ask("/healthz"), await ask("/readyz")) == (200, 503)
    ask.health.seen()
    assert await ask("/readyz") == 200
    clock.time = 61
    assert (await ask("/healthz"), await ask("/readyz"), await ask("/")) == (200, 503, 404)


@pytest.mark.parametrize("words", [b"", b"nonsense\r\n\r\n", b"x" * 100_000], ids=["nothing", "no request", "too much"])
async def test_malformed_requests_do_no_harm(ask, words):
    reader, writer = await asyncio.open_connection("127.0.0.1", ask.port)
    writer.write(words)
    writer.write_eof()
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()
    assert await ask("/healthz") == 200
