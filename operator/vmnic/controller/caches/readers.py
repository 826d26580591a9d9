"""Index from objects to the VMs whose decisions read them.

A change enqueues only these VMs. Reads are recorded where they happen, so no VM whose decision depends on an object is left
out. A tenant who changes objects in their own namespace causes decisions only for the VMs that refer to them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from ...kube.reflector import ObjectKey

__all__ = ["Readers", "Thing", "segment_of"]


class Thing(NamedTuple):
    """An object that was read, whether or not it exists."""

    kind: str
    """The plural of a kind, or `segment` for all networks of a segment."""
    namespace: str
    name: str


def segment_of(namespace: str, segment: str) -> Thing:
    """Return the key for all networks of a namespace with a segment label."""
    return Thing("segment", namespace, segment)


class Readers:
    """Readers of every object."""

    def __init__(self) -> None:
        self._readers: dict[Thing, set[ObjectKey]] = defaultdict(set)
        self._read: dict[ObjectKey, set[Thing]] = {}

    def note(self, vm: ObjectKey, thing: Thing) -> None:
        """Record that a VM's facts depend on an object."""
        self._read.setdefault(vm, set()).add(thing)
        self._readers[thing].add(vm)

    def forget(self, vm: ObjectKey) -> None:
        """Remove the reads of a VM that is gone or whose facts are about to be read again."""
        for thing in self._read.pop(vm, ()):
            readers = self._readers[thing]
            readers.discard(vm)
            # The names come from tenants' VMs. The index must not keep each name that a VM has ever referred to.
            if not readers:
                del self._readers[thing]

    def of(self, things: Iterable[Thing]) -> set[ObjectKey]:
        """Return the VMs that have read any of these objects."""
        # Not `[thing]`, which would add an entry for each object that changes.
        return {vm for thing in things for vm in self._readers.get(thing, ())}
