"""Writes the status of a pool or policy if it differs, and emits Events about its changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ...api.common import Condition
from ...api.policy import PolicyStatus, VmNicPolicy
from ...api.pool import PoolStatus, SriovNetworkPool
from ...api.reasons import PoolReason
from ...json_patch import add
from ...kube.client import ApiClient
from ...kube.conditions import merged_conditions
from ...kube.events import Events
from ...kube.resources import POLICIES, POOLS, Resource
from .condition_events import POLICY_NEWS, POOL_NEWS, news_of, subject_of

__all__ = ["StatusWriter"]

_TOLD = {POOLS: (POOL_NEWS, "Prepare"), POLICIES: (POLICY_NEWS, "Evaluate")}
"""Conditions that are worth an Event, and the Event's action, by kind."""


class StatusWriter:
    """Writes statuses. Every method raises ApiError if a write fails, and the queue retries."""

    def __init__(self, api: ApiClient, events: Events) -> None:
        self._api = api
        self._events = events

    async def write(self, resource: Resource, of: SriovNetworkPool | VmNicPolicy, status: PoolStatus | PolicyStatus) -> None:
        """Write a status.

        Its conditions come without transition times, which are added here.
        """
        before = of.status.conditions
        conditions = merged_conditions(before, status.conditions, now=datetime.now(UTC))
        status = status.model_copy(update={"conditions": conditions})
        if status == of.status:
            return
        body = [add("/status", status.dump())]
        await self._api.patch_json(resource, of.metadata.name, body, subresource="status")
        # After the write, because the stored status decides which changes are news.
        self._tell(resource, of.metadata.name, of.metadata.uid, before, conditions)

    async def write_invalid(self, resource: Resource, name: str, why: str) -> None:
        """Write to an object's status that this build cannot read the object.

        Its numbers stay. Its other conditions become unknown.
        """
        # Read here, because the cache has no version of an object that cannot be decoded.
        raw = await self._api.read(resource, name)
        if raw is None:
            return
        told = raw.get("status", {}).get("conditions", [])
        before = [Condition.model_validate(one, extra="ignore") for one in told]
        generation = raw["metadata"].get("generation", 0)
        meta = {"resourceVersion": raw["metadata"]["resourceVersion"]}
        conditions = merged_conditions(before, _refused(generation, why), now=datetime.now(UTC))
        if conditions == before:
            return
        body: dict[str, Any] = {"observedGeneration": generation, "conditions": [one.dump() for one in conditions]}
        await self._api.patch_merge(resource, name, {"metadata": meta, "status": body}, subresource="status")
        self._tell(resource, name, raw["metadata"].get("uid", ""), before, conditions)

    def _tell(self, resource: Resource, name: str, uid: str, before: Sequence[Condition], after: Sequence[Condition]) -> None:
        news, doing = _TOLD[resource]
        for kind, told in news_of(before, after, news):
            self._events.tell(subject_of(resource, name, uid), kind, told.reason, doing, told.message or told.reason)


def _refused(generation: int, why: str) -> list[Condition]:
    message = f"this version of vmnic cannot read the object and leaves everything as it is: {why}"
    reason = PoolReason.UNSUPPORTED_SPEC
    return [
        Condition(type="Ready", status="False", reason=reason, message=message, observed_generation=generation),
        Condition(type="Reconciling", status="False", reason=PoolReason.SETTLED, observed_generation=generation),
        Condition(type="Stalled", status="True", reason=reason, message=message, observed_generation=generation),
    ]
