"""What is worth an Event: conditions that say something else than before. Pure.

The status is the memory, so a restart repeats nothing.
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
"""The condition that tells how it goes, and those that warn while they are True."""
POLICY_NEWS = ("Compliant", ("Stalled", "Conflict"))


def news_of(before: Iterable[Condition], after: Iterable[Condition], told: tuple[str, Collection[str]]) -> Iterator[News]:
    """Give the conditions that are news.

    A warning is news when it begins or has another reason; that it has ended is told by the condition that tells how it goes.
    """
    plain, warnings = told
    old = {one.type: (one.status, one.reason) for one in before}
    new = {one.type: one for one in after}
    changed = [one for one in new.values() if old.get(one.type) != (one.status, one.reason)]
    warned = [one for one in changed if one.type in warnings and one.status == "True"]
    for condition in warned:
        yield "Warning", condition
    for condition in changed:
        said = any(one.reason == condition.reason for one in warned)
        if condition.type == plain and not said:
            yield "Normal", condition


def subject_of(resource: Resource, name: str, uid: str) -> Subject:
    """Name an object of a cluster-wide kind."""
    return Subject(api_version=f"{resource.group}/{resource.version}", kind=resource.kind, name=name, uid=uid)


def machine_subject(key: ObjectKey, machine: VirtualMachine) -> Subject:
    """Name a VirtualMachine."""
    return Subject(
        api_version="kubevirt.io/v1", kind="VirtualMachine", name=key.name, namespace=key.namespace, uid=machine.metadata.uid
    )
