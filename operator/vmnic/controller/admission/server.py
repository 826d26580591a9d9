"""The webhook's HTTPS server. It reads caches and decides; it asks nobody, so it answers in milliseconds or not at all."""

from __future__ import annotations

import functools
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from ...kube.reflector import ObjectKey
from ...kubevirt.admission import Reviewer
from ...kubevirt.gather import MachineInput
from ...kubevirt.projection import Machine
from ...policy.allocate import allocate
from ...policy.decision import VmCandidates, VmDecision
from ...policy.enforce import decide
from ..world import World
from .policies import review_policy

__all__ = ["start_webhook"]

_log = logging.getLogger(__name__)

_BODY_BYTES = 8 * 2**20
"""A VM may be as large as etcd allows (1.5 MB), and a review holds it up to twice."""


async def start_webhook(
    world: World, context: ssl.SSLContext, port: int, reviewed: Callable[[str, str, float], None]
) -> web.AppRunner:
    """Serve admission reviews; close the runner to stop.

    Args:
        world: What is decided from.
        context: The certificate.
        port: Where to listen.
        reviewed: Hears of every request: which webhook, how it ended, how many seconds it took.
    """

    def complete(machine: Machine, namespace: str) -> MachineInput:
        return world.inputs.input_of(machine, namespace, is_new=True)

    def settle(found: VmCandidates) -> tuple[VmDecision, dict[str, int]]:
        if not found.claims:
            return decide(found, {}), {}
        capacity = world.devices.capacity
        return decide(found, allocate([found], world.inputs.cluster_facts, capacity)), dict(capacity.total)

    def find(namespace: str, name: str) -> Machine | None:
        return world.machines.items.get(ObjectKey(namespace, name))

    reviewer = Reviewer(complete, settle, find)
    app = web.Application(client_max_size=_BODY_BYTES)

    async def mutate_machine(raw: bytes) -> dict[str, Any]:
        return reviewer.review_machine(raw, world.inputs.rules, world.inputs.cluster_facts)

    async def mutate_instance(raw: bytes) -> dict[str, Any]:
        return reviewer.review_instance(raw, world.inputs.rules, world.inputs.cluster_facts)

    answers: dict[str, tuple[str, Callable[[bytes], Awaitable[dict[str, Any]]]]] = {
        "/mutate-virtualmachine": ("virtualmachine", mutate_machine),
        "/mutate-virtualmachineinstance": ("virtualmachineinstance", mutate_instance),
        "/review-policy": ("policy", lambda raw: review_policy(raw, world)),
    }
    for path, (name, answer) in answers.items():
        app.router.add_post(path, _handler(answer, functools.partial(reviewed, name)))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    # Several replicas may share one address on a test machine; in a cluster each has its own.
    await web.TCPSite(runner, port=port, ssl_context=context, reuse_port=True).start()
    _log.info("the webhook serves port %d", port)
    return runner


def _handler(
    answer: Callable[[bytes], Awaitable[dict[str, Any]]], reviewed: Callable[[str, float], None]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        raw = await request.read()
        started, outcome = time.monotonic(), "failed"
        try:
            review = await answer(raw)
            outcome = _outcome(review["response"])
            return web.json_response(review)
        except msgspec.MsgspecError as error:
            raise web.HTTPBadRequest(text=f"this is no AdmissionReview: {error}") from error
        finally:
            reviewed(outcome, time.monotonic() - started)

    return handle


def _outcome(response: dict[str, Any]) -> str:
    if not response["allowed"]:
        return "refused"
    return "patched" if "patch" in response else "unchanged"
