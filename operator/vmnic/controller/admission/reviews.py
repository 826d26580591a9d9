"""Decisions of admission reviews, made from the caches in the main loop under a time budget."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, NamedTuple

from ...kube.errors import ApiError
from ...kube.reflector import ObjectKey
from ...kube.set_aside import SetAside, SetAsideReason
from ...kube.time_budget import Budget, Subject, run_within, uncharged
from ...kubevirt.admission import AdmissionReviewer
from ...kubevirt.gather import MachineInput
from ...kubevirt.vm import VirtualMachine
from ...policy.allocate import allocate
from ...policy.decision import decide
from ...policy.types import VmCandidates, VmDecision
from ..caches.cluster_cache import ClusterCache
from .policies import review_policy

__all__ = ["Answer", "Reviews", "allow"]

Response = dict[str, Any]
_BUDGET_S = 0.3
_READ_S = 0.3
"""Time for reading what a VM keeps of its preference and instancetype. The server answers after 0.7 s in any case."""


class Answer(NamedTuple):
    """An AdmissionReview and its CPU cost."""

    review: Response
    cpu_s: float


class Reviews:
    """Answers admission reviews in the main loop.

    Args:
        world: The caches to decide from.
        set_aside: Registry of objects that took too long before. Their reviews allow them unchanged.
        is_authenticated: Whether only the API server can connect. Other clients must not learn which objects exist.
    """

    def __init__(self, world: ClusterCache, set_aside: SetAside, *, is_authenticated: bool) -> None:
        self._world = world
        self._set_aside = set_aside
        self._is_authenticated = is_authenticated
        self.waiting = 0
        """Number of reviews that the API server waits for. Only the webhook's thread writes it."""
        self._is_reviewing_policy = False
        self._completed: tuple[VirtualMachine, str] | None = None
        """The VM that the last review has completed, with its namespace."""
        self._reviewer = AdmissionReviewer(self._complete, self._settle, self._find)

    async def answer(self, webhook: str, uid: str, subject: Subject, raw: bytes) -> Answer:
        """Decide one review.

        Raises:
            OverBudgetError: it takes too long.
            Exception: the object cannot be handled.
        """
        found = self._set_aside.find(*subject)
        if found is not None and found.reason is SetAsideReason.TIME:
            return Answer(allow(uid, "vmnic leaves this object unchanged, because the decision took too long"), 0.0)
        started = time.thread_time()
        review = await run_within(self._decide(webhook, uid, raw), Budget(_BUDGET_S, subject))
        return Answer(review, time.thread_time() - started)

    async def _decide(self, webhook: str, uid: str, raw: bytes) -> Response:
        if webhook == "policy":
            return await self._review_policy(uid, raw)
        self._completed = None
        review = self._review(webhook, raw)
        if self._completed is None or not self._world.inputs.lacks_revisions(*self._completed):
            return review
        with contextlib.suppress(ApiError, TimeoutError):
            # Only the leader decides about stored VMs, so another replica may not have read them yet.
            async with asyncio.timeout(_READ_S):
                await self._world.inputs.load_revisions(*self._completed)
            review = self._review(webhook, raw)
        return review

    def _review(self, webhook: str, raw: bytes) -> Response:
        with uncharged():
            rules, facts = self._world.inputs.rules, self._world.inputs.cluster_facts
        if webhook == "virtualmachine":
            return self._reviewer.review_machine(raw, rules, facts)
        return self._reviewer.review_instance(raw, rules, facts)

    async def _review_policy(self, uid: str, raw: bytes) -> Response:
        """Validate one policy at a time, since each review scans all VMs.

        Concurrent ones are allowed without warnings.
        """
        if self._is_reviewing_policy:
            return allow(uid)
        self._is_reviewing_policy = True
        try:
            return await review_policy(raw, self._world if self._is_authenticated else None)
        finally:
            self._is_reviewing_policy = False

    def _complete(self, machine: VirtualMachine, namespace: str) -> MachineInput:
        self._completed = (machine, namespace)
        return self._world.inputs.input_of(machine, namespace, is_new=True)

    def _settle(self, found: VmCandidates) -> tuple[VmDecision, dict[str, int]]:
        if not found.claims:
            return decide(found, {}), {}
        with uncharged():
            capacity = self._world.devices.capacity
        # For this VM alone, so devices go to new VMs in the order of their reviews. If two replicas promise the same device,
        # the leader takes it back from one of the VMs.
        return decide(found, allocate([found], self._world.inputs.cluster_facts, capacity)), dict(capacity.total)

    def _find(self, namespace: str, name: str) -> VirtualMachine | None:
        return self._world.machines.items.get(ObjectKey(namespace, name))


def allow(uid: str, warning: str = "") -> Response:
    """Return a response that allows an object unchanged."""
    response: Response = {"uid": uid, "allowed": True}
    if warning:
        response["warnings"] = [warning]
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
