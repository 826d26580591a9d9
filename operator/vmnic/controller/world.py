"""What the controller knows of the cluster: one reflector a kind, and who is asked to look again when an object changes.

Every replica keeps these caches, because every replica answers admission requests; only the leader acts on changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

import msgspec

from ..api.policy import VmNicPolicy
from ..api.pool import SriovNetworkPool
from ..kube.client import ApiClient
from ..kube.reflector import ObjectKey, Reflector
from ..kube.resources import (
    CLUSTER_INSTANCETYPES,
    CLUSTER_PREFERENCES,
    INSTANCETYPES,
    NAMESPACES,
    NETWORKS,
    NODE_NIC_STATES,
    NODES,
    POLICIES,
    POOLS,
    PREFERENCES,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
)
from ..kube.tasks import run_together
from ..kubevirt.gather import MachineInput
from ..kubevirt.projection import (
    Machine,
    NetworkDefinition,
    Reference,
    decode_instance,
    decode_instancetype,
    decode_machine,
    decode_network,
    decode_preference,
)
from ..nodes.state import NodeNicState, decode_node_state
from ..policy.facts import ClusterFacts
from ..policy.rules import Rule, rules_of
from .keys import Key, node_key, policy_key, pool_key, vm_key

__all__ = ["Enqueue", "LabelledObject", "World", "run_reflectors"]

T = TypeVar("T")

_SETTLE_S = 0.1
"""Pools and policies are summed up over all their nodes and VMs: a burst of changes is looked at once."""


class Enqueue(Protocol):
    """Asks for a look at a key, at once or later."""

    def __call__(self, key: Key, after_s: float = 0.0) -> None:
        """Add the key; a key that waits already is not added twice."""
        ...


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    uid: str = ""
    labels: dict[str, str] = {}
    deletion_timestamp: str | None = None


class LabelledObject(msgspec.Struct, frozen=True):
    """The parts of a Node or Namespace that decisions read."""

    metadata: _Meta


def _decode_pool(raw: msgspec.Raw) -> SriovNetworkPool:
    return SriovNetworkPool.model_validate_json(bytes(raw))


def _decode_policy(raw: msgspec.Raw) -> VmNicPolicy:
    return VmNicPolicy.model_validate_json(bytes(raw))


class World:
    """The caches and the fan-out of their changes.

    Args:
        api: Its requests are reads only.
        enqueue: Takes the keys whose objects, or whose facts, have changed.
    """

    def __init__(self, api: ApiClient, enqueue: Enqueue) -> None:
        self._enqueue = enqueue
        labelled = msgspec.json.Decoder(LabelledObject).decode
        self.nodes = Reflector(api, NODES, decode=labelled, on_change=self._node_changed)
        self.node_states = Reflector(api, NODE_NIC_STATES, decode=decode_node_state, on_change=self._state_changed)
        self.pools = Reflector(api, POOLS, decode=_decode_pool, on_change=self._pool_changed)
        self.policies = Reflector(api, POLICIES, decode=_decode_policy, on_change=self._policy_changed)
        self.namespaces = Reflector(api, NAMESPACES, decode=labelled, on_change=self._namespace_changed)
        self.machines = Reflector(api, VIRTUAL_MACHINES, decode=decode_machine, on_change=self._machine_changed)
        self.instances = Reflector(api, VIRTUAL_MACHINE_INSTANCES, decode=decode_instance, on_change=self._machine_changed)
        self.preferences = Reflector(api, PREFERENCES, decode=decode_preference, on_change=self._any_machine)
        self.cluster_preferences = Reflector(api, CLUSTER_PREFERENCES, decode=decode_preference, on_change=self._any_machine)
        self.instancetypes = Reflector(api, INSTANCETYPES, decode=decode_instancetype, on_change=self._any_machine)
        self.cluster_instancetypes = Reflector(
            api, CLUSTER_INSTANCETYPES, decode=decode_instancetype, on_change=self._any_machine
        )
        self.networks = Reflector(api, NETWORKS, decode=decode_network, on_change=self._any_machine, optional=True)
        self._rules: tuple[Rule, ...] | None = None
        self._told = 0
        """Nodes whose agent has spoken."""
        self._with_vhost = 0

    @property
    def reflectors(self) -> tuple[Reflector[Any], ...]:
        """All caches."""
        return (
            *(self.nodes, self.node_states, self.pools, self.policies, self.namespaces),
            *(self.machines, self.instances, self.preferences, self.cluster_preferences),
            *(self.instancetypes, self.cluster_instancetypes, self.networks),
        )

    @property
    def nodes_synced(self) -> bool:
        """Whether everything that decides about nodes has been listed."""
        return all(one.synced.is_set() for one in (self.nodes, self.node_states, self.pools))

    @property
    def machines_synced(self) -> bool:
        """Whether everything that decides about VMs has been listed; never without KubeVirt's CRDs."""
        return all(one.synced.is_set() for one in self.reflectors[3:])

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The policies, ready for deciding."""
        if self._rules is None:
            self._rules = rules_of(self.policies.items.values())
        return self._rules

    @property
    def cluster_facts(self) -> ClusterFacts:
        """What holds for all VMs; nodes without an agent's word are not known, which excludes nothing."""
        known = 0 < self._told == len(self.nodes.items)
        return ClusterFacts(vhost_net=self._with_vhost > 0 if known else None)

    def node_views(self) -> Iterable[tuple[LabelledObject, NodeNicState | None]]:
        """Give every node with its NodeNicState, if it has one yet."""
        for key, node in self.nodes.items.items():
            yield node, self.node_states.items.get(key)

    def input_of(self, machine: Machine, namespace: str, *, is_new: bool = False) -> MachineInput:
        """Give a VM with what belongs to it."""
        name, spec = machine.metadata.name, machine.spec
        home = self.namespaces.items.get(ObjectKey("", namespace))
        instance = None if is_new else self.instances.items.get(ObjectKey(namespace, name))
        return MachineInput(
            machine=machine,
            instance=instance,
            preference=_referred(spec.preference, namespace, self.preferences, self.cluster_preferences),
            instancetype=_referred(spec.instancetype, namespace, self.instancetypes, self.cluster_instancetypes),
            # A namespace may be younger than the cache; this label every one has.
            namespace_labels=home.metadata.labels if home is not None else {"kubernetes.io/metadata.name": namespace},
            find_network=self._find_network,
            is_new=is_new,
        )

    def enqueue_everything(self) -> None:
        """Ask for a look at every object, as a new leader does."""
        for key in self.nodes.items:
            self._enqueue(node_key(key.name))
        for key in self.pools.items:
            self._enqueue(pool_key(key.name))
        self._every_machine()
        for key in self.policies.items:
            self._enqueue(policy_key(key.name), _SETTLE_S)

    def _find_network(self, namespace: str, name: str) -> NetworkDefinition | None:
        return self.networks.items.get(ObjectKey(namespace, name))

    def _node_changed(self, key: ObjectKey, old: LabelledObject | None, new: LabelledObject | None) -> None:
        self._enqueue(node_key(key.name))
        if old is None or new is None or old.metadata.labels != new.metadata.labels:
            self._every_pool()

    def _state_changed(self, key: ObjectKey, old: NodeNicState | None, new: NodeNicState | None) -> None:
        self._enqueue(node_key(key.name))
        self._count_vhost(old, new)
        pools = {pf.pool for state in (old, new) if state is not None for pf in state.spec.pfs}
        for pool in pools:
            self._enqueue(pool_key(pool), _SETTLE_S)
        if old is None or new is None or {pf.pci_address for pf in old.status.pfs} != {pf.pci_address for pf in new.status.pfs}:
            self._every_pool()

    def _count_vhost(self, old: NodeNicState | None, new: NodeNicState | None) -> None:
        """Keep count instead of walking all nodes for each VM; where the answer changes, VMs are decided anew."""
        before = self.cluster_facts
        for state, step in ((old, -1), (new, 1)):
            if state is not None and state.status.boot_id:
                self._told += step
                self._with_vhost += step * ("vhost_net" in state.status.host.modules)
        if before != self.cluster_facts and self.machines_synced:
            self._every_machine()

    def _pool_changed(self, key: ObjectKey, _old: object, _new: object) -> None:
        self._enqueue(pool_key(key.name))
        self._every_pool()
        for node in self.nodes.items:
            self._enqueue(node_key(node.name))

    def _policy_changed(self, key: ObjectKey, old: VmNicPolicy | None, new: VmNicPolicy | None) -> None:
        self._rules = None
        self._enqueue(policy_key(key.name), _SETTLE_S)
        if old is None or new is None or old.spec != new.spec:
            self._every_machine()

    def _namespace_changed(self, key: ObjectKey, old: LabelledObject | None, new: LabelledObject | None) -> None:
        if old is None or new is None or old.metadata.labels != new.metadata.labels:
            for machine in self.machines.items:
                if machine.namespace == key.name:
                    self._enqueue(vm_key(*machine))

    def _machine_changed(self, key: ObjectKey, _old: object, _new: object) -> None:
        """Before the caches are complete nothing can be decided, and then all VMs are asked for."""
        if self.machines_synced:
            self._enqueue(vm_key(*key))

    def _any_machine(self, _key: ObjectKey, _old: object, _new: object) -> None:
        """A preference, an instancetype or a network has changed: any VM may refer to it."""
        if self.machines_synced:
            self._every_machine()

    def _every_machine(self) -> None:
        for key in self.machines.items:
            self._enqueue(vm_key(*key))

    def _every_pool(self) -> None:
        for key in self.pools.items:
            self._enqueue(pool_key(key.name), _SETTLE_S)


def _referred(reference: Reference | None, namespace: str, own: Reflector[T], cluster: Reflector[T]) -> T | None:
    """Find what a VM refers to; without a kind it is the cluster's, as in KubeVirt."""
    if reference is None or not reference.name:
        return None
    if "cluster" in reference.kind.lower() or not reference.kind:
        return cluster.items.get(ObjectKey("", reference.name))
    return own.items.get(ObjectKey(namespace, reference.name))


async def run_reflectors(world: World) -> None:
    """Run all caches until cancelled."""
    await run_together(*(reflector.run() for reflector in world.reflectors))
