"""The keys of the controller's work queue."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["ALLOCATION", "Key", "Kind", "log_keys", "node_key", "policy_key", "pool_key", "vm_key"]


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


def log_keys(key: Key) -> dict[str, str]:
    """Give what a log line about a key carries: `node`, `pool`, `policy` or `vm`."""
    return {key.kind.value: key.path} if key.name else {}
