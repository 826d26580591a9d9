"""The webhook's HTTPS server. It reads caches and decides; it asks nobody, so it answers in milliseconds or not at all."""

from __future__ import annotations

import logging
import ssl

import msgspec
from aiohttp import web

from ...kubevirt.admission import review_machine
from ...kubevirt.gather import MachineInput
from ...kubevirt.projection import Machine
from ..world import World

__all__ = ["PATH", "start_webhook"]

_log = logging.getLogger(__name__)

PATH = "/mutate-virtualmachine"
_BODY_BYTES = 8 * 2**20
"""A VM may be as large as etcd allows (1.5 MB), and a review holds it up to twice."""


async def start_webhook(world: World, context: ssl.SSLContext, port: int) -> web.AppRunner:
    """Serve admission reviews; close the runner to stop."""

    async def mutate(request: web.Request) -> web.Response:
        raw = await request.read()
        try:
            answer = review_machine(raw, rules=world.rules, cluster=world.cluster_facts, complete=_complete)
        except msgspec.MsgspecError as error:
            raise web.HTTPBadRequest(text=f"this is no AdmissionReview: {error}") from error
        return web.json_response(answer)

    def _complete(machine: Machine, namespace: str) -> MachineInput:
        return world.input_of(machine, namespace, is_new=True)

    app = web.Application(client_max_size=_BODY_BYTES)
    app.router.add_post(PATH, mutate)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    # Several replicas may share one address on a test machine; in a cluster each has its own.
    await web.TCPSite(runner, port=port, ssl_context=context, reuse_port=True).start()
    _log.info("the webhook serves port %d", port)
    return runner
