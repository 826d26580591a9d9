"""Caches of the cluster, with one reflector per kind and the keys to enqueue when an object changes.

Every replica keeps these caches, because every replica answers admission requests. Only the leader acts on changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import msgspec

from ...api.node_state import NodeNicState
from ...api.policy import VmNicPolicy
from ...api.pool import SriovNetworkPool
from ...kube.client import ApiClient
from ...kube.reflector import ObjectKey, Reflector
from ...kube.resources import (
    CLUSTER_INSTANCETYPES,
    CLUSTER_PREFERENCES,
    CONTROLLER_REVISIONS,
    INSTANCETYPES,
    KUBEVIRTS,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    NETWORKS,
    NODE_NIC_STATES,
    NODES,
    POLICIES,
    POOLS,
    PREFERENCES,
    RESOURCE_QUOTAS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    VM_NIC_STATES,
    Resource,
)
from ...kube.set_aside import SetAside, SetAsideReason
from ...kube.tasks import run_together
from ...kube.time_budget import uncharged
from ...kubevirt.configuration import KubeVirt, decode_kubevirt
from ...kubevirt.vm import (
    Instancetype,
    Quota,
    VirtualMachine,
    decode_instancetype,
    decode_preference,
    decode_quota,
    salvage_machine,
)
from ...kubevirt.vm_state import decode_vm_state
from ...kubevirt.vmi import VirtualMachineInstance
from ...nodes.state import decode_node_state
from .capacity_cache import CapacityCache
from .facts import FactGatherer
from .keys import ALLOCATION, Key, node_key, policy_key, pool_key, vm_key
from .projections import (
    LabelledObject,
    Nad,
    NodeObject,
    decode_labelled,
    decode_nad,
    decode_node,
    decode_policy,
    decode_pool,
    decode_webhooks,
    salvage_node,
)
from .readers import Thing, segment_of
from .revisions import RevisionCache
from .shared_parts import decode_shared_instance, decode_shared_machine

__all__ = ["ClusterCache", "Enqueue", "run_reflectors"]

T = TypeVar("T")

_MANY = 500
"""Keys that are enqueued in one go: about a millisecond."""
_SETTLE_S = 0.1
"""Delay that lets one pass serve a burst of changes. Pools and policies are summed up over all their nodes and VMs."""
_REPORT_S = 1.0
"""Delay where a change only affects the counts that a pool reports."""


class Enqueue(Protocol):
    """Enqueues a key, at once or after a delay."""

    def __call__(self, key: Key, after_s: float = 0.0) -> None:
        """Add the key.

        A key that already waits is not added twice.
        """
        ...


class ClusterCache:
    """The caches, and the fan-out of their changes to keys.

    Args:
        api: A client that is used for reads only.
        enqueue: Receives the keys whose objects, or whose facts, have changed.
        readmit: Receives the keys of objects that have themselves changed, so that an object that was set aside is tried again.
        set_aside: Registry for objects that cannot be decoded or handled.
        pod_network_mtu: MTU of the pod network in bytes; None if unknown.
    """

    def __init__(
        self,
        api: ApiClient,
        enqueue: Enqueue,
        readmit: Callable[[Key], None] = lambda _: None,
        set_aside: SetAside | None = None,
        pod_network_mtu: int | None = None,
    ) -> None:
        self._enqueue = enqueue
        self._readmit = readmit
        self.set_aside = set_aside or SetAside()

        def cache(
            resource: Resource,
            decode: Callable[[msgspec.Raw], T],
            on_change: Callable[[ObjectKey, T | None, T | None], None],
            **options: Any,
        ) -> Reflector[T]:
            return Reflector(api, resource, decode=decode, on_change=on_change, set_aside=self.set_aside, **options)

        def foreign(
            resource: Resource,
            decode: Callable[[msgspec.Raw], T],
            on_change: Callable[[ObjectKey, T | None, T | None], None],
            **options: Any,
        ) -> Reflector[T]:
            """Make the cache of a kind that comes with KubeVirt or Multus.

            A cluster may lack it.
            """
            return cache(resource, decode, on_change, optional=True, **options)

        self.nodes = cache(NODES, decode_node, self._node_changed, salvage=salvage_node)
        self.node_states = cache(NODE_NIC_STATES, decode_node_state, self._state_changed)
        self.pools = cache(POOLS, decode_pool, self._pool_changed)
        self.policies = cache(POLICIES, decode_policy, self._policy_changed)
        self.namespaces = cache(NAMESPACES, decode_labelled, self._namespace_changed)
        self.machines = foreign(VIRTUAL_MACHINES, decode_shared_machine, self._machine_changed, salvage=salvage_machine)
        self.instances = foreign(VIRTUAL_MACHINE_INSTANCES, decode_shared_instance, self._instance_changed)
        read, typed = self._reference_changed, self._instancetype_changed
        self.preferences = foreign(PREFERENCES, decode_preference, read(PREFERENCES))
        self.cluster_preferences = foreign(CLUSTER_PREFERENCES, decode_preference, read(CLUSTER_PREFERENCES))
        self.instancetypes = foreign(INSTANCETYPES, decode_instancetype, typed(INSTANCETYPES))
        self.cluster_instancetypes = foreign(CLUSTER_INSTANCETYPES, decode_instancetype, typed(CLUSTER_INSTANCETYPES))
        self.networks = foreign(NETWORKS, decode_nad, self._network_changed)
        self.kubevirts = foreign(KUBEVIRTS, decode_kubevirt, self._kubevirt_changed)
        self.quotas = cache(RESOURCE_QUOTAS, decode_quota, self._quota_changed)
        self.webhooks = cache(MUTATING_WEBHOOKS, decode_webhooks, self._webhook_changed)
        self.vm_states = cache(VM_NIC_STATES, decode_vm_state, self._vm_state_changed)
        self.inputs = FactGatherer(self, pod_network_mtu)
        self.devices = CapacityCache(
            self.inputs.nodes,
            lambda: self.inputs.cluster_facts.pools,
            self.inputs.gather,
            self.machines.items.get,
            self.inputs.named_resources,
            self.inputs.has_type_devices,
            self.set_aside,
        )
        self.revisions = RevisionCache(
            api,
            self.set_aside,
            is_named=lambda key: bool(self.inputs.readers.of([_revision(key)])),
            on_change=lambda key: self._count_devices_of(self.inputs.readers.of([_revision(key)])),
        )

    @property
    def reflectors(self) -> tuple[Reflector[Any], ...]:
        """Return all caches."""
        return (
            # The order counts: `machines_synced` leaves out the first three, for which every new leader waits.
            *(self.nodes, self.node_states, self.pools, self.policies, self.namespaces),
            *(self.machines, self.instances, self.preferences, self.cluster_preferences),
            *(self.instancetypes, self.cluster_instancetypes, self.networks),
            *(self.kubevirts, self.quotas, self.webhooks, self.vm_states),
        )

    @property
    def machines_synced(self) -> bool:
        """Return whether every kind that decides about VMs has been listed.

        A kind that the API server does not serve counts as listed, with no objects.
        """
        return all(one.synced.is_set() for one in self.reflectors[3:])

    def enqueue_all(self) -> None:
        """Enqueue every object, as a new leader does."""
        for key in self.nodes.items:
            self._enqueue(node_key(key.name))
        for key in self.pools.items:
            self._enqueue(pool_key(key.name))
        self.enqueue_machines()
        self._enqueue(ALLOCATION)
        for key in self.policies.items:
            self._enqueue(policy_key(key.name), _SETTLE_S)

    def _changed(self, key: Key, after_s: float = 0.0) -> None:
        """Enqueue a key whose own object has changed.

        If it was set aside, it is tried again.
        """
        self._readmit(key)
        self._enqueue(key, after_s)

    def _node_changed(self, key: ObjectKey, old: NodeObject | None, new: NodeObject | None) -> None:
        self._changed(node_key(key.name))
        # The number of nodes is part of the facts: vhost-net is unknown until the agents of all nodes have reported.
        self._count_again(devices_only=old is not None and new is not None)
        if old is None or new is None or _place(old) != _place(new):
            self._every_pool()

    def _state_changed(self, key: ObjectKey, old: NodeNicState | None, new: NodeNicState | None) -> None:
        self._changed(node_key(key.name))
        self.inputs.update_state(old, new)
        self._count_again(devices_only=False)
        pools = {group.pool for state in (old, new) if state is not None for pf in state.spec.pfs for group in pf.groups}
        pools |= {pf.pool for state in (old, new) if state is not None for pf in state.spec.pfs}
        for pool in pools:
            self._enqueue(pool_key(pool), _SETTLE_S)
        # A PF that is new on the node may match any pool.
        if old is None or new is None or {pf.pci_address for pf in old.status.pfs} != {pf.pci_address for pf in new.status.pfs}:
            self._every_pool()

    def _count_again(self, *, devices_only: bool) -> None:
        """Discard the device count after a node or pool has changed, and enqueue the allocation.

        The allocation finds out whether all VMs are affected.
        """
        self.devices.invalidate_nodes()
        if not devices_only:
            self.inputs.invalidate_facts()
        self._enqueue(ALLOCATION, _SETTLE_S)

    def _pool_changed(self, key: ObjectKey, old: SriovNetworkPool | None, new: SriovNetworkPool | None) -> None:
        self._changed(pool_key(key.name))
        if old is None or new is None or _intent(old) != _intent(new):
            self._every_pool()
            for node in self.nodes.items:
                self._enqueue(node_key(node.name))
            self.devices.invalidate_claims()
            self._count_again(devices_only=False)

    def _network_changed(self, key: ObjectKey, old: Nad | None, new: Nad | None) -> None:
        """Enqueue the VMs that read a network, and the pools that own it or want one of its name."""
        before, after = (one.network if one is not None else None for one in (old, new))
        self.inputs.update_network(key, before, after)
        segments = [segment_of(key.namespace, one.segment) for one in (before, after) if one is not None]
        self._decide_readers([Thing(NETWORKS.plural, *key), *segments])
        # Also the pool that owned it before, which has to report that it is gone.
        owners = {one.own.pool_uid for one in (old, new) if one is not None and one.own is not None}
        for name, pool in self.pools.items.items():
            if pool.metadata.uid in owners or any(network.name == key.name for network in pool.spec.networks):
                self._enqueue(pool_key(name.name), _SETTLE_S)

    def _reference_changed(self, resource: Resource) -> Callable[[ObjectKey, object, object], None]:
        """Return a handler that enqueues the VMs which refer to a preference or an instancetype."""
        return lambda key, _old, _new: self._decide_readers([Thing(resource.plural, *key)])

    def _instancetype_changed(
        self, resource: Resource
    ) -> Callable[[ObjectKey, Instancetype | None, Instancetype | None], None]:
        """Return a handler like `_reference_changed` that also counts the devices of instancetypes."""
        decide_readers = self._reference_changed(resource)

        def changed(key: ObjectKey, old: Instancetype | None, new: Instancetype | None) -> None:
            if any(one is not None and one.spec.has_devices for one in (old, new)):
                # Only VMs with devices are counted, so nothing has recorded what the others read.
                with uncharged():
                    self._count_devices_of([name for name, vm in self.machines.items.items() if _refers(name, vm, key)])
            decide_readers(key, old, new)

        return changed

    def _count_devices_of(self, machines: Iterable[ObjectKey]) -> None:
        for key in machines:
            machine = self.machines.items.get(key)
            # The claim of a VM that cannot be read stays.
            if machine is not None:
                self.devices.update_vm(key, machine)

    def _decide_readers(self, things: Iterable[Thing]) -> None:
        readers = self.inputs.readers.of(things)
        self.devices.invalidate_facts_of(readers)
        if self.machines_synced:
            self._enqueue_slice(list(readers), 0)

    def _kubevirt_changed(self, _key: ObjectKey, _old: KubeVirt | None, _new: KubeVirt | None) -> None:
        self.inputs.invalidate_facts()
        self._enqueue(ALLOCATION, _SETTLE_S)

    def _webhook_changed(self, _key: ObjectKey, _old: object, _new: object) -> None:
        self.inputs.invalidate_facts()
        self._enqueue(ALLOCATION, _SETTLE_S)

    def _quota_changed(self, key: ObjectKey, old: Quota | None, new: Quota | None) -> None:
        """Update a quota, and enqueue the namespace's VMs only if its limits have changed.

        The used amount changes with every pod, and matters only to the next VM that wants a device.
        """
        self.inputs.update_quota(key, new)
        limits = [quota.spec.hard if quota is not None else None for quota in (old, new)]
        if limits[0] != limits[1]:
            self._enqueue_namespace(key.namespace)

    def _vm_state_changed(self, key: ObjectKey, _old: object, new: object) -> None:
        """Enqueue the VM of a deleted VmNicState, so that the record is written again."""
        if new is None and self.machines_synced:
            self._enqueue(vm_key(*key))

    def _policy_changed(self, key: ObjectKey, old: VmNicPolicy | None, new: VmNicPolicy | None) -> None:
        self.inputs.invalidate_rules()
        # A policy may name a resource of another operator, whose devices then count.
        self.devices.invalidate_nodes()
        self._changed(policy_key(key.name), _SETTLE_S)
        if old is None or new is None or old.spec != new.spec:
            self.enqueue_machines()

    def _namespace_changed(self, key: ObjectKey, old: LabelledObject | None, new: LabelledObject | None) -> None:
        if old is None or new is None or old.metadata.labels != new.metadata.labels:
            # A pool keeps its networks in the namespaces whose labels it selects.
            self._every_pool()
            self._enqueue_namespace(key.name)

    def _enqueue_namespace(self, namespace: str) -> None:
        if self.machines_synced:
            for machine in self.machines.items:
                if machine.namespace == namespace:
                    self._enqueue(vm_key(*machine))

    def _machine_changed(self, key: ObjectKey, old: VirtualMachine | None, new: VirtualMachine | None) -> None:
        """Update the devices of a VM and enqueue it.

        Before the caches are complete nothing can be decided. All VMs are enqueued then.
        """
        if self.machines_synced:
            # The first list is no change: a VM that stalled the last run of the process stays set aside.
            self.set_aside.discard(VIRTUAL_MACHINES.kind, "/".join(key), SetAsideReason.EXCEPTION)
            self.set_aside.discard(VIRTUAL_MACHINES.kind, "/".join(key), SetAsideReason.TIME)
        if key in self.machines.malformed:
            self.devices.hold(key, self.machines.last_readable.get(key))
        else:
            has_devices = self.devices.update_vm(key, new)
            # No agent reports the devices of stopped VMs, which pools count too.
            if has_devices and (old is None or new is None or old.spec != new.spec):
                self._every_pool(_REPORT_S)
            if new is None:
                self.inputs.readers.forget(key)
        if self.machines_synced:
            self._changed(vm_key(*key))

    def _instance_changed(
        self, key: ObjectKey, _old: VirtualMachineInstance | None, _new: VirtualMachineInstance | None
    ) -> None:
        """Update the devices of a VM and enqueue it.

        An instance that cannot be read still runs, so the VM keeps the devices that it was last known to have.
        """
        if not self.is_unreadable(key):
            self.devices.update_vm(key, self.machines.items.get(key))
        if self.machines_synced:
            self._changed(vm_key(*key))

    def is_unreadable(self, key: ObjectKey) -> bool:
        """Return whether a VM, its instance or its VmNicState cannot be read.

        Nothing of the VM changes then.
        """
        return any(key in cache.malformed for cache in (self.machines, self.instances, self.vm_states))

    def enqueue_machines(self) -> None:
        """Enqueue every VM, in slices because there may be many."""
        self._enqueue_slice(list(self.machines.items), 0)

    def _enqueue_slice(self, keys: list[ObjectKey], start: int) -> None:
        end = start + _MANY
        for key in keys[start:end]:
            self._enqueue(vm_key(*key))
        if end < len(keys):
            asyncio.get_running_loop().call_soon(self._enqueue_slice, keys, end)

    def _every_pool(self, after_s: float = _SETTLE_S) -> None:
        for key in self.pools.items:
            self._enqueue(pool_key(key.name), after_s)


def _refers(name: ObjectKey, machine: VirtualMachine, key: ObjectKey) -> bool:
    """Return whether a VM refers to an instancetype."""
    reference = machine.spec.instancetype
    return reference is not None and key == ("" if reference.cluster_wide else name.namespace, reference.name)


def _revision(key: ObjectKey) -> Thing:
    return Thing(CONTROLLER_REVISIONS.plural, *key)


def _intent(pool: SriovNetworkPool) -> tuple[Any, ...]:
    """Return what users set on a pool.

    Changes of its status alone do not count.
    """
    meta = pool.metadata
    return (pool.spec, meta.uid, meta.generation, meta.deletion_timestamp, meta.annotations)


def _place(node: NodeObject) -> tuple[Any, ...]:
    """Return the parts of a node that pools read."""
    return (node.metadata.labels, node.metadata.annotations, node.spec, node.status)


async def run_reflectors(world: ClusterCache) -> None:
    """Run all caches until cancelled."""
    await run_together(*(reflector.run() for reflector in world.reflectors))
