"""Keys of the controller's work queue."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from ...kube.time_budget import Budget, Subject

__all__ = [
    "ALLOCATION",
    "Key",
    "Kind",
    "budget_of",
    "key_of",
    "log_keys",
    "node_key",
    "policy_key",
    "pool_key",
    "subject_of",
    "vm_key",
]


class Kind(StrEnum):
    """Kind of a key."""

    NODE = "node"
    POOL = "pool"
    POLICY = "policy"
    VM = "vm"
    ALLOCATION = "allocation"


class Key(NamedTuple):
    """One object to reconcile."""

    kind: Kind
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.path}".rstrip()

    @property
    def path(self) -> str:
        """Return the name, prefixed with the namespace if there is one."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


ALLOCATION = Key(Kind.ALLOCATION, "")
"""The one decision over all VMs that want devices."""


def node_key(name: str) -> Key:
    """Return the key of a Node and its NodeNicState."""
    return Key(Kind.NODE, name)


def pool_key(name: str) -> Key:
    """Return the key of a SriovNetworkPool."""
    return Key(Kind.POOL, name)


def policy_key(name: str) -> Key:
    """Return the key of a VmNicPolicy."""
    return Key(Kind.POLICY, name)


def vm_key(namespace: str, name: str) -> Key:
    """Return the key of a VirtualMachine."""
    return Key(Kind.VM, name, namespace)


_KINDS = {
    Kind.NODE: "NodeNicState",
    Kind.POOL: "SriovNetworkPool",
    Kind.POLICY: "VmNicPolicy",
    Kind.VM: "VirtualMachine",
    Kind.ALLOCATION: "Allocation",
}
"""Kubernetes kind of each key. The allocation is not one."""
_SECONDS = {Kind.NODE: 0.3, Kind.POOL: 2.0, Kind.POLICY: 2.0, Kind.VM: 0.3, Kind.ALLOCATION: 5.0}
"""Time budgets in seconds. A decision takes a few milliseconds; pools, policies and the allocation visit all nodes or VMs."""
_OF_MANY = (Kind.POOL, Kind.POLICY, Kind.ALLOCATION)
_RETRY_S = 60.0


def subject_of(key: Key) -> Subject:
    """Return the object that a key names."""
    return Subject(_KINDS[key.kind], key.path)


def key_of(subject: Subject) -> Key | None:
    """Return the key of an object, or None if its kind has no keys."""
    kind = next((kind for kind, name in _KINDS.items() if name == subject.kind), None)
    namespace, _, name = subject.key.rpartition("/")
    return Key(kind, name, namespace) if kind is not None else None


def budget_of(key: Key) -> Budget:
    """Return the time budget of a key.

    Keys that concern many nodes or VMs are retried, because other objects may cause their cost.
    """
    return Budget(_SECONDS[key.kind], subject_of(key), _RETRY_S if key.kind in _OF_MANY else None)


def log_keys(key: Key) -> dict[str, str]:
    """Return the log field of a key.

    Its name is `node`, `pool`, `policy` or `vm`.
    """
    return {key.kind.value: key.path} if key.name else {}
