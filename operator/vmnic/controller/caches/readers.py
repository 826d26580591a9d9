"""Which VMs read which objects beside their own: when one of those changes, only its readers are decided anew.

Reads are noted where they happen. So a VM whose decision depends on an object is never left out, and a tenant who changes
objects of their own namespace has only the VMs decided anew that refer to them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from ...kube.reflector import ObjectKey

__all__ = ["Readers", "Thing", "segment_of"]


class Thing(NamedTuple):
    """What is read, whether it is there or not."""

    kind: str
    """The plural of a kind, or `segment` for all networks of a segment."""
    namespace: str
    name: str


def segment_of(namespace: str, segment: str) -> Thing:
    """Return the networks of a namespace that carry the label of a segment."""
    return Thing("segment", namespace, segment)


class Readers:
    """The readers of every object."""

    def __init__(self) -> None:
        self._readers: dict[Thing, set[ObjectKey]] = defaultdict(set)
        self._read: dict[ObjectKey, set[Thing]] = {}

    def note(self, vm: ObjectKey, thing: Thing) -> None:
        """Note that a VM's facts are read from an object."""
        self._read.setdefault(vm, set()).add(thing)
        self._readers[thing].add(vm)

    def forget(self, vm: ObjectKey) -> None:
        """Drop what a VM has read: it is gone, or its facts are about to be read anew."""
        for thing in self._read.pop(vm, ()):
            readers = self._readers[thing]
            readers.discard(vm)
            if not readers:
                del self._readers[thing]

    def of(self, things: Iterable[Thing]) -> set[ObjectKey]:
        """Return the VMs that have read any of some objects."""
        return {vm for thing in things for vm in self._readers.get(thing, ())}
