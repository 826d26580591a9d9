"""Inputs of VM decisions, read from the caches.

They are the rules, the cluster facts, and each VM with its references. Expensive results are kept until a cache reports a
change.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol, TypeVar

import msgspec

from ...api.node_state import NodeNicState, ObjectMeta
from ...api.policy import VmNicPolicy
from ...api.pool import SriovNetworkPool
from ...checked.quantities import read_quantity
from ...kube.reflector import ObjectKey, Reflector
from ...kube.resources import CONTROLLER_REVISIONS
from ...kube.time_budget import uncharged
from ...kubevirt.configuration import KubeVirt, cluster_facts, is_injector
from ...kubevirt.gather import MachineInput, gather_vm_facts
from ...kubevirt.inputs import default_architecture
from ...kubevirt.pools import NodeInput, gather_pools
from ...kubevirt.quota import quota_left, unreadable_quota
from ...kubevirt.revisions import Revision, read_reference, revision_names
from ...kubevirt.vm import Instancetype, Preference, Quota, Reference, VirtualMachine
from ...kubevirt.vmi import VirtualMachineInstance
from ...policy.facts import ClusterFacts, Network, PoolFacts, VmFacts
from ...policy.rules import Rule, decides_nic, rules_of, selecting_rules, unreadable_rule
from .projections import LabelledObject, Nad, NodeObject, WebhookConfiguration
from .readers import Readers, Thing, segment_of
from .revisions import RevisionCache

__all__ = ["FactGatherer"]

T = TypeVar("T")
_Note = Callable[[Thing], None]

_SLICE = 100
"""VMs visited before the event loop gets a turn."""


class Caches(Protocol):
    """The caches that are read."""

    nodes: Reflector[NodeObject]
    node_states: Reflector[NodeNicState]
    pools: Reflector[SriovNetworkPool]
    policies: Reflector[VmNicPolicy]
    namespaces: Reflector[LabelledObject]
    machines: Reflector[VirtualMachine]
    instances: Reflector[VirtualMachineInstance]
    preferences: Reflector[Preference]
    cluster_preferences: Reflector[Preference]
    instancetypes: Reflector[Instancetype]
    cluster_instancetypes: Reflector[Instancetype]
    revisions: RevisionCache
    networks: Reflector[Nad]
    kubevirts: Reflector[KubeVirt]
    quotas: Reflector[Quota]
    webhooks: Reflector[WebhookConfiguration]


class FactGatherer:
    """Reads the caches for decisions."""

    def __init__(self, caches: Caches, pod_network_mtu: int | None = None) -> None:
        self._caches = caches
        self._pod_network_mtu = pod_network_mtu
        self.readers = Readers()
        """Which VMs read which networks, preferences, instancetypes and ControllerRevisions."""
        self._segments: dict[tuple[str, str], dict[str, Network]] = defaultdict(dict)
        """Networks by namespace and segment."""
        self._quotas: dict[str, dict[str, Quota]] = defaultdict(dict)
        """Quotas by namespace and name."""
        self._rules: tuple[Rule, ...] | None = None
        self._facts: ClusterFacts | None = None
        self._told = 0
        """Number of nodes whose agent has reported."""
        self._with_vhost = 0

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Return the policies as rules.

        A policy that cannot be read keeps the NICs that it selects as they are.
        """
        if self._rules is None:
            with uncharged():
                self._rules = self._make_rules()
        return self._rules

    def _make_rules(self) -> tuple[Rule, ...]:
        cache = self._caches.policies
        unreadable = [unreadable_rule(key.name, cache.last_readable.get(key), why) for key, why in cache.malformed.items()]
        return (*unreadable, *rules_of(cache.items.values()))

    @property
    def cluster_facts(self) -> ClusterFacts:
        """Return the facts that hold for all VMs.

        As long as the agent of any node has not reported, support for vhost-net is unknown, which excludes nothing.
        """
        if self._facts is None:
            with uncharged():
                self._facts = self._make_facts()
        return self._facts

    def _make_facts(self) -> ClusterFacts:
        kubevirts = self._caches.kubevirts
        known = 0 < self._told == len(self._caches.nodes.items)
        return cluster_facts(
            self._pools(),
            # There is one at most: virt-operator refuses a second KubeVirt object.
            next(iter(kubevirts.items.values()), None),
            vhost_net=self._with_vhost > 0 if known else None,
            injector=self._has_injector(),
            unreadable=next(iter(kubevirts.malformed.values()), ""),
            pod_network_mtu=self._pod_network_mtu,
        )

    def _pools(self) -> dict[str, PoolFacts]:
        """Return the pools.

        A pool that cannot be read keeps its devices, and new claims wait for it.
        """
        cache = self._caches.pools
        found = gather_pools((pool for _, pool in cache.known()), self.nodes(), known=True)
        for key, why in cache.malformed.items():
            if key.name in found:
                found[key.name] = replace(found[key.name], blocker=f"it cannot be read: {why}")
        return found

    def _has_injector(self) -> bool | None:
        """Return whether network-resources-injector is installed.

        The result is None if it is not found, but a configuration that may be its own cannot be read.
        """
        cache = self._caches.webhooks
        found = any(is_injector(one.names) for one in cache.items.values())
        return None if cache.malformed and not found else found

    def nodes(self) -> Iterable[NodeInput]:
        """Yield every node as VM decisions read it."""
        for key, node in self._nodes():
            yield NodeInput(
                name=key.name,
                labels=node.metadata.labels,
                schedulable=node.ready and not node.spec.unschedulable,
                taints=node.spec.taints,
                allocatable={name: read_quantity(count) or 0 for name, count in node.status.allocatable.items()},
                state=self._state_of(key),
            )

    def _nodes(self) -> Iterator[tuple[ObjectKey, NodeObject]]:
        """Yield every node.

        One that cannot be read counts as existing and not ready, so nothing new begins there.
        """
        cache = self._caches.nodes
        yield from cache.items.items()
        for key in cache.malformed:
            last = cache.last_readable.get(key)
            if last is not None:
                yield key, last.out_of_service()

    def _state_of(self, key: ObjectKey) -> NodeNicState | None:
        """Return a node's NodeNicState.

        One that cannot be read counts as existing and unreadable.
        """
        cache = self._caches.node_states
        last = cache.last(key)
        if key not in cache.malformed:
            return last
        last = last or NodeNicState(metadata=ObjectMeta(name=key.name))
        return msgspec.structs.replace(last, unreadable=cache.malformed[key])

    def node_views(self) -> Iterable[tuple[NodeObject, NodeNicState | None]]:
        """Yield every node with its NodeNicState, or None if it has none yet."""
        for key, node in self._nodes():
            yield node, self._state_of(key)

    def input_of(self, machine: VirtualMachine, namespace: str, *, is_new: bool = False) -> MachineInput:
        """Return a VM with everything that its decision reads.

        The reads of a stored VM are recorded. A new VM is the object of an admission review, which may never be stored.
        """
        name, caches = machine.metadata.name, self._caches
        key = ObjectKey(namespace, name)
        note: _Note = _note_nothing
        if not is_new:
            self.readers.forget(key)
            note = functools.partial(self.readers.note, key)
        place = ObjectKey("", namespace)
        home = caches.namespaces.last(place)
        # Labels that were readable before still select the VM, so only a namespace without any counts as unknown.
        unreadable = caches.namespaces.malformed.get(place) if home is None else None
        instance = None if is_new else caches.instances.items.get(key)
        preference, preferred = self._preference(machine, namespace, note)
        instancetype, typed = self._instancetype(machine, namespace, note)
        return MachineInput(
            machine=machine,
            instance=instance,
            preference=preference,
            instancetype=instancetype,
            # A namespace may be newer than the cache. Every namespace has this label.
            namespace_labels=home.metadata.labels if home is not None else {"kubernetes.io/metadata.name": namespace},
            namespace_unknown=f"Namespace {namespace} cannot be read: {unreadable}" if unreadable is not None else "",
            find_network=functools.partial(self._find_network, note),
            find_segment=functools.partial(self._find_segment, note),
            physical_resources=[
                name for pool in self.cluster_facts.pools.values() if pool.physical for name in pool.resource_names
            ],
            resources=self.cluster_facts.resources,
            default_binding=self.cluster_facts.kubevirt.default_binding,
            default_cpu=self.cluster_facts.kubevirt.cpu_request,
            pod_network_mtu=self._pod_network_mtu,
            default_architecture=default_architecture(self.cluster_facts),
            preference_unknown=preferred,
            instancetype_unknown=typed,
            quota=self._quota_left(namespace),
            quota_unknown=self._quota_unknown(namespace),
            is_new=is_new,
        )

    def _find_revision(self, note: _Note, namespace: str, name: str) -> Revision | str:
        key = ObjectKey(namespace, name)
        note(Thing(CONTROLLER_REVISIONS.plural, *key))
        return self._caches.revisions.find(key)

    def has_type_devices(self, key: ObjectKey, machine: VirtualMachine) -> bool:
        """Return whether a VM's instancetype lists devices, as far as is known."""
        if machine.spec.instancetype is None:
            return False
        found, _ = self._instancetype(machine, key.namespace, _note_nothing)
        return found is not None and found.spec.has_devices

    def _instancetype(self, machine: VirtualMachine, namespace: str, note: _Note) -> tuple[Instancetype | None, str]:
        return read_reference(
            Instancetype,
            machine.spec.instancetype,
            machine.kept_instancetype,
            functools.partial(self._find_revision, note, namespace),
            functools.partial(_find_live, namespace, self._caches.instancetypes, self._caches.cluster_instancetypes, note),
        )

    def _preference(self, machine: VirtualMachine, namespace: str, note: _Note) -> tuple[Preference | None, str]:
        return read_reference(
            Preference,
            machine.spec.preference,
            machine.kept_preference,
            functools.partial(self._find_revision, note, namespace),
            functools.partial(_find_live, namespace, self._caches.preferences, self._caches.cluster_preferences, note),
        )

    def lacks_revisions(self, machine: VirtualMachine, namespace: str) -> bool:
        """Return whether a ControllerRevision that a VM names has not been read yet."""
        return any(not self._caches.revisions.knows(ObjectKey(namespace, name)) for name in revision_names(machine))

    async def load_revisions(self, machine: VirtualMachine, namespace: str) -> float | None:
        """Read the ControllerRevisions that a VM names, unless they are known.

        Returns:
            Seconds after which one of them should be read again, or None if all were read.

        Raises:
            ApiError: the API server does not answer.
        """
        # Without a policy nothing is decided, and a cluster may have as many revisions as VMs.
        if not self.rules:
            return None
        return await self._caches.revisions.load(ObjectKey(namespace, name) for name in revision_names(machine))

    def _quota_unknown(self, namespace: str) -> str:
        malformed = self._caches.quotas.malformed
        found = ((key.name, why) for key, why in malformed.items() if key.namespace == namespace)
        text = next((f"ResourceQuota {name} cannot be read: {why}" for name, why in found), "")
        return text or unreadable_quota(self._quotas.get(namespace, {}).values())

    def gather(self, key: ObjectKey) -> VmFacts | None:
        """Return the facts of a VM, or None if it is gone."""
        machine = self._caches.machines.items.get(key)
        return gather_vm_facts(self.input_of(machine, key.namespace)) if machine is not None else None

    def named_resources(self) -> set[str]:
        """Return the resources of other operators that policies name."""
        return {rule.sriov_resource for rule in self.rules if rule.sriov_resource}

    async def selects_any(self, policy: VmNicPolicy) -> bool:
        """Return whether a policy selects any NIC of an existing VM.

        The scan runs in slices, because there may be many VMs.
        """
        rules = rules_of([policy])
        # A copy, because the cache may change while this scan waits.
        for number, key in enumerate(list(self._caches.machines.items)):
            if number % _SLICE == 0:
                await asyncio.sleep(0)
            with contextlib.suppress(Exception):  # The queue reports a VM that cannot be decided.
                facts = self.gather(key)
                if facts is not None and any(
                    decides_nic(rule, nic) for rule in selecting_rules(rules, facts) for nic in facts.nics
                ):
                    return True
        return False

    def invalidate_rules(self) -> None:
        """Discard the rules after a policy has changed."""
        self._rules = None

    def invalidate_facts(self) -> None:
        """Discard the cluster facts after a node, a pool, KubeVirt or a webhook has changed."""
        self._facts = None

    def update_state(self, old: NodeNicState | None, new: NodeNicState | None) -> None:
        """Update the counts of reporting nodes after a NodeNicState has changed."""
        for state, step in ((old, -1), (new, 1)):
            # The controller creates the object without bootID; the first report of the agent sets it.
            if state is not None and state.status.boot_id:
                self._told += step
                self._with_vhost += step * ("vhost_net" in state.status.host.modules)

    def update_network(self, key: ObjectKey, old: Network | None, new: Network | None) -> None:
        """Update the index of segments after a network has changed."""
        for network in (old, new):
            if network is not None and network.segment:
                self._segments[key.namespace, network.segment].pop(key.name, None)
        if new is not None and new.segment:
            self._segments[key.namespace, new.segment][key.name] = new

    def update_quota(self, key: ObjectKey, new: Quota | None) -> None:
        """Update the quotas of a namespace after one has changed."""
        own = self._quotas[key.namespace]
        own.pop(key.name, None)
        if new is not None:
            own[key.name] = new

    def _quota_left(self, namespace: str) -> Mapping[str, int]:
        own = self._quotas.get(namespace)
        return quota_left(own.values()) if own else {}

    def _find_network(self, note: _Note, namespace: str, name: str) -> Network | None:
        key, cache = ObjectKey(namespace, name), self._caches.networks
        # Also if there is no such network, so that its creation has the VM decided again.
        note(Thing(cache.resource.plural, *key))
        last = cache.last(key)
        network = last.network if last is not None else None
        if key not in cache.malformed:
            return network
        return replace(network or Network(namespace=namespace, name=name), unreadable=cache.malformed[key])

    def _find_segment(self, note: _Note, namespace: str, segment: str) -> Iterable[Network]:
        note(segment_of(namespace, segment))
        return self._segments.get((namespace, segment), {}).values()


def _find_live(namespace: str, own: Reflector[T], cluster: Reflector[T], note: _Note, reference: Reference) -> T | str:
    """Return the preference or instancetype that a VM refers to, or why it cannot be read.

    The read is recorded.
    """
    cache = cluster if reference.cluster_wide else own
    key = ObjectKey("" if reference.cluster_wide else namespace, reference.name)
    note(Thing(cache.resource.plural, *key))
    why = cache.malformed.get(key)
    if why is not None:
        return f"{cache.resource.kind} {reference.name} cannot be read: {why}"
    return cache.items.get(key, f"{cache.resource.kind} {reference.name} does not exist")


def _note_nothing(_: Thing) -> None:
    """Ignore a read."""
