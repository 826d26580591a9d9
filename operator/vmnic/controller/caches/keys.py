"""The keys of the controller's work queue."""

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
    """What a key names."""

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
        """The name, with the namespace where there is one."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


ALLOCATION = Key(Kind.ALLOCATION, "")
"""The one look at all VMs that want devices."""


def node_key(name: str) -> Key:
    """Name a Node and its NodeNicState."""
    return Key(Kind.NODE, name)


def pool_key(name: str) -> Key:
    """Name a SriovNetworkPool."""
    return Key(Kind.POOL, name)


def policy_key(name: str) -> Key:
    """Name a VmNicPolicy."""
    return Key(Kind.POLICY, name)


def vm_key(namespace: str, name: str) -> Key:
    """Name a VirtualMachine."""
    return Key(Kind.VM, name, namespace)


_KINDS = {
    Kind.NODE: "NodeNicState",
    Kind.POOL: "SriovNetworkPool",
    Kind.POLICY: "VmNicPolicy",
    Kind.VM: "VirtualMachine",
    Kind.ALLOCATION: "Allocation",
}
"""The objects that the keys name, as kinds of Kubernetes; the allocation is not one."""
_SECONDS = {Kind.NODE: 0.3, Kind.POOL: 2.0, Kind.POLICY: 2.0, Kind.VM: 0.3, Kind.ALLOCATION: 5.0}
"""A decision takes a few milliseconds; pools, policies and the allocation go over all nodes or VMs."""
_OF_MANY = (Kind.POOL, Kind.POLICY, Kind.ALLOCATION)
_RETRY_S = 60.0


def subject_of(key: Key) -> Subject:
    """Return the object that a key names."""
    return Subject(_KINDS[key.kind], key.path)


def key_of(subject: Subject) -> Key | None:
    """Return the key that names an object; None if no key does."""
    kind = next((kind for kind, name in _KINDS.items() if name == subject.kind), None)
    namespace, _, name = subject.key.rpartition("/")
    return Key(kind, name, namespace) if kind is not None else None


def budget_of(key: Key) -> Budget:
    """Return the time budget of a key; what is about many nodes or VMs is tried again, since others may cause its cost."""
    return Budget(_SECONDS[key.kind], subject_of(key), _RETRY_S if key.kind in _OF_MANY else None)


def log_keys(key: Key) -> dict[str, str]:
    """Give what a log line about a key carries: `node`, `pool`, `policy` or `vm`."""
    return {key.kind.value: key.path} if key.name else {}
