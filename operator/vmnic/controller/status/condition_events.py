"""Selection of condition changes that are worth an Event. Pure.

Conditions are compared with the stored status, so a restart repeats no Event.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Literal

from ...api.common import Condition
from ...kube.events import Subject
from ...kube.reflector import ObjectKey
from ...kube.resources import Resource
from ...kubevirt.vm import VirtualMachine

__all__ = ["POLICY_NEWS", "POOL_NEWS", "News", "machine_subject", "news_of", "subject_of"]

News = tuple[Literal["Normal", "Warning"], Condition]

POOL_NEWS = ("Ready", ("Stalled", "Conflict"))
"""The condition that reports progress, and those that warn while they are True."""
POLICY_NEWS = ("Compliant", ("Stalled", "Conflict"))


def news_of(before: Iterable[Condition], after: Iterable[Condition], told: tuple[str, Collection[str]]) -> Iterator[News]:
    """Yield the conditions that are worth an Event, with the Event's type.

    A warning is reported when it begins or its reason changes. Its end is reported by the condition that reports progress.
    """
    plain, warnings = told
    old = {one.type: (one.status, one.reason) for one in before}
    new = {one.type: one for one in after}
    changed = [one for one in new.values() if old.get(one.type) != (one.status, one.reason)]
    warned = [one for one in changed if one.type in warnings and one.status == "True"]
    for condition in warned:
        yield "Warning", condition
    for condition in changed:
        # A warning with the same reason says it already.
        said = any(one.reason == condition.reason for one in warned)
        if condition.type == plain and not said:
            yield "Normal", condition


def subject_of(resource: Resource, name: str, uid: str) -> Subject:
    """Return the Event subject of a cluster-scoped object."""
    return Subject(api_version=f"{resource.group}/{resource.version}", kind=resource.kind, name=name, uid=uid)


def machine_subject(key: ObjectKey, machine: VirtualMachine) -> Subject:
    """Return the Event subject of a VirtualMachine."""
    return Subject(
        api_version="kubevirt.io/v1", kind="VirtualMachine", name=key.name, namespace=key.namespace, uid=machine.metadata.uid
    )
