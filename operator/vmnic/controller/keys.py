"""The keys of the controller's work queue."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["ALLOCATION", "Key", "Kind", "node_key", "policy_key", "pool_key", "vm_key"]


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
