"""Parsed objects from which a plan is made. Other modules read them from files or the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from ..api.node_state import NodeNicState
from ..api.policy import VmNicPolicy
from ..api.pool import SriovNetworkPool
from ..checked.quantities import read_quantity
from ..kubevirt.configuration import KubeVirt, is_injector
from ..kubevirt.networks import read_network
from ..kubevirt.vm import Instancetype, Preference, Quota, VirtualMachine, decode_machine
from ..kubevirt.vmi import VirtualMachineInstance
from ..libvirt.domain import Domain, DomainError, read_domain
from ..libvirt.gather import gather_domain
from ..nodes.observed import observed_of
from ..nodes.pools.shares import count_vfs, pool_shares
from ..policy.facts import Network
from .set_aside import DuplicateError, SetAside, reason_of

__all__ = ["MalformedObjectError", "Node", "Objects"]


K = TypeVar("K")
V = TypeVar("V")
M = TypeVar("M", SriovNetworkPool, VmNicPolicy)


class MalformedObjectError(Exception):
    """An object cannot be read. The message names object and field.

    Args:
        kind: Its kind, as far as known.
        key: Its namespace and name, as far as known.
        message: Field and remedy.
    """

    def __init__(self, kind: str, key: tuple[str, str], message: str) -> None:
        self.kind, self.key, self.message = kind, key, message
        name = "/".join(filter(None, key))
        super().__init__(": ".join(filter(None, (f"{kind} {name}".strip(), message))))


class _NodeMeta(msgspec.Struct, frozen=True):
    name: str
    labels: dict[str, str] = {}


class _NodeSpec(msgspec.Struct, frozen=True):
    unschedulable: bool = False


class _NodeStatus(msgspec.Struct, frozen=True):
    allocatable: dict[str, str | int] = {}


class Node(msgspec.Struct, frozen=True):
    """The fields of a Node that decisions read."""

    metadata: _NodeMeta
    spec: _NodeSpec = _NodeSpec()
    status: _NodeStatus = _NodeStatus()

    @property
    def devices(self) -> dict[str, int]:
        """Return its allocatable extended resources."""
        # Extended resources have a domain in their names. `cpu` and `memory` have none.
        return {name: read_quantity(count) or 0 for name, count in self.status.allocatable.items() if "/" in name}


@dataclass
class Objects:
    """Objects by kind and (namespace, name)."""

    of_server: bool = False
    """Whether the objects come from the API server. Then fields that this build does not know are ignored, not refused."""
    machines: dict[tuple[str, str], VirtualMachine] = field(default_factory=dict)
    instances: dict[tuple[str, str], VirtualMachineInstance] = field(default_factory=dict)
    preferences: dict[tuple[str, str], Preference] = field(default_factory=dict)
    instancetypes: dict[tuple[str, str], Instancetype] = field(default_factory=dict)
    networks: dict[tuple[str, str], Network] = field(default_factory=dict)
    quotas: dict[tuple[str, str], Quota] = field(default_factory=dict)
    kubevirts: dict[tuple[str, str], KubeVirt] = field(default_factory=dict)
    domains: dict[tuple[str, str], Domain] = field(default_factory=dict)
    """libvirt domains. Their namespace is empty."""
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    """Labels by namespace."""
    nodes: dict[str, Node] = field(default_factory=dict)
    policies: dict[str, VmNicPolicy] = field(default_factory=dict)
    pools: dict[str, SriovNetworkPool] = field(default_factory=dict)
    node_states: dict[str, NodeNicState] = field(default_factory=dict)
    injector: bool = False
    """Whether the webhook of network-resources-injector is among the objects."""
    refused: dict[str, str] = field(default_factory=dict)
    """Kinds that the user may not read, each with a sentence that says so. Nothing is concluded from their absence."""
    skipped: int = 0
    """Number of objects of other kinds."""
    set_aside: list[SetAside] = field(default_factory=list)
    """Objects that cannot be read."""

    def segment(self, namespace: str, segment: str) -> Iterable[Network]:
        """Return the networks of a namespace that carry the label of a segment."""
        return [one for (where, _), one in self.networks.items() if where == namespace and one.segment == segment]

    def unreadable(self, kind: str, namespace: str, name: str = "") -> str:
        """Return why an object, or without a name any object of the namespace, cannot be read.

        Empty if it can be read, or is not among the objects.
        """
        if kind in self.refused:
            return self.refused[kind]
        return next(
            (
                f"{one.kind} {one.name} cannot be read: {one.message}"
                for one in self.set_aside
                if one.kind == kind and one.namespace == namespace and name in ("", one.name)
            ),
            "",
        )

    def add_domain(self, text: str) -> None:
        """Add the XML of a libvirt domain.

        Raises:
            MalformedObjectError: it cannot be read, or the same domain was added before.
        """
        name = ""
        try:
            domain = read_domain(text)
            name = domain.name
            gather_domain(domain)  # Malformed parts are reported here, where the file is known.
            _put(self.domains, ("", name), domain)
        except (DomainError, DuplicateError) as error:
            raise MalformedObjectError("", ("", ""), str(error)) from error
        except Exception as error:
            raise MalformedObjectError("domain", ("", name), reason_of(error)) from error

    def takes(self, kind: str) -> bool:
        """Return whether objects of a kind are used. A List may hold some."""
        return kind in self._takers() or kind.endswith("List")

    def add(self, raw: Any) -> None:
        """Add one object.

        Raises:
            MalformedObjectError: it cannot be read, or the same object was added before.
        """
        if not isinstance(raw, dict):
            raise MalformedObjectError("", ("", ""), "not a Kubernetes object")
        kind = raw["kind"] if isinstance(raw.get("kind"), str) else ""
        if kind.endswith("List") and isinstance(raw.get("items"), list):
            # `kubectl get -o yaml` prints a List.
            for item in raw["items"]:
                self.add(item)
            return
        take = self._takers().get(kind)
        if take is None:
            self.skipped += 1
            return
        meta = raw.get("metadata")
        if not isinstance(meta, dict) or not isinstance(meta.get("name"), str):
            raise MalformedObjectError(kind, ("", ""), "metadata.name is missing")
        key = (meta["namespace"] if isinstance(meta.get("namespace"), str) else "", meta["name"])
        try:
            take(raw)
        except Exception as error:
            # Any fault of one object, wherever it shows, affects only that object.
            raise MalformedObjectError(kind, key, reason_of(error)) from error

    def overlaid(self, other: Objects) -> Objects:
        """Return these objects with those of another collection added. The other collection wins."""
        merged = Objects(skipped=other.skipped, injector=self.injector or other.injector)
        merged.set_aside = [*self.set_aside, *other.set_aside]
        for name, theirs in vars(other).items():
            # Each dictionary is one collection by key, so no kind is forgotten.
            if isinstance(theirs, dict):
                setattr(merged, name, {**getattr(self, name), **theirs})
        return merged

    def _takers(self) -> dict[str, Callable[[dict[str, Any]], None]]:
        return {
            # The VM is encoded again, because its applier is read from the unparsed managed fields.
            "VirtualMachine": lambda raw: _put(self.machines, _key(raw), decode_machine(msgspec.json.encode(_placed(raw)))),
            "VirtualMachineInstance": lambda raw: _put(self.instances, _key(raw), msgspec.convert(raw, VirtualMachineInstance)),
            "VirtualMachinePreference": lambda raw: _put(self.preferences, _key(raw), msgspec.convert(raw, Preference)),
            "VirtualMachineClusterPreference": lambda raw: _put(
                self.preferences, ("", raw["metadata"]["name"]), msgspec.convert(raw, Preference)
            ),
            "VirtualMachineInstancetype": lambda raw: _put(self.instancetypes, _key(raw), msgspec.convert(raw, Instancetype)),
            "VirtualMachineClusterInstancetype": lambda raw: _put(
                self.instancetypes, ("", raw["metadata"]["name"]), msgspec.convert(raw, Instancetype)
            ),
            "NetworkAttachmentDefinition": lambda raw: _put(self.networks, _key(raw), read_network(_placed(raw))),
            "ResourceQuota": lambda raw: _put(self.quotas, _key(raw), msgspec.convert(raw, Quota)),
            "KubeVirt": lambda raw: _put(self.kubevirts, _key(raw), msgspec.convert(raw, KubeVirt)),
            "MutatingWebhookConfiguration": self._look_for_injector,
            "Namespace": lambda raw: _put(self.namespaces, raw["metadata"]["name"], _labels(raw)),
            "Node": lambda raw: _put(self.nodes, raw["metadata"]["name"], msgspec.convert(raw, Node)),
            "VmNicPolicy": lambda raw: _put(self.policies, raw["metadata"]["name"], self._parsed(VmNicPolicy, raw)),
            "SriovNetworkPool": lambda raw: _put(self.pools, raw["metadata"]["name"], self._parsed(SriovNetworkPool, raw)),
            "NodeNicState": lambda raw: _put(self.node_states, raw["metadata"]["name"], _checked_state(raw)),
        }

    def _parsed(self, kind: type[M], raw: dict[str, Any]) -> M:
        return kind.model_validate(raw, extra="ignore" if self.of_server else None)

    def _look_for_injector(self, raw: dict[str, Any]) -> None:
        names = [raw["metadata"]["name"], *(str(one.get("name", "")) for one in raw.get("webhooks") or [])]
        self.injector = self.injector or is_injector(names)


def _checked_state(raw: dict[str, Any]) -> NodeNicState:
    """Decode a node's state and derive all values that decisions and tables need.

    An error in any of them shows here.
    """
    state = msgspec.convert(raw, NodeNicState)
    for pool in {pf.pool for pf in state.spec.pfs} | {group.pool for pf in state.spec.pfs for group in pf.groups}:
        count_vfs(state, pool)
        list(pool_shares(state, pool))
    for pf in state.status.pfs:
        observed_of(pf)
    return state


def _key(raw: dict[str, Any]) -> tuple[str, str]:
    return (raw["metadata"].get("namespace") or "default", raw["metadata"]["name"])


def _placed(raw: dict[str, Any]) -> dict[str, Any]:
    """Set the namespace of an object without one to `default`, as kubectl does."""
    return raw | {"metadata": raw["metadata"] | {"namespace": _key(raw)[0]}}


def _labels(raw: dict[str, Any]) -> dict[str, str]:
    """Return the labels of an object.

    A namespace has its own name as a label, even if the API server has not added it yet.
    """
    labels: dict[str, str] = dict(raw["metadata"].get("labels") or {})
    if raw["kind"] == "Namespace":
        # Selectors of policies often name a namespace by this label.
        labels.setdefault("kubernetes.io/metadata.name", raw["metadata"]["name"])
    return labels


def _put(collection: dict[K, V], key: K, value: V) -> None:
    if key in collection:
        raise DuplicateError("the same object is given twice: remove one of them")
    collection[key] = value
