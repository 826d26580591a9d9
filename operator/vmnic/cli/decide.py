"""Decides every VM of a collection of objects with the controller's engine; what is given is what is known."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ..kubevirt.configuration import cluster_facts
from ..kubevirt.gather import MachineInput, gather_vm_facts
from ..kubevirt.pools import NodeInput, gather_pools, node_devices
from ..kubevirt.projection import Machine, Reference
from ..kubevirt.quota import quota_left
from ..libvirt.functions import FreeFunctions, free_functions
from ..libvirt.gather import gather_domain
from ..nodes.merge import merge_pools
from ..nodes.state import NodeNicState, group_of
from ..policy.allocate import allocate
from ..policy.capacity import Capacity, claim_of, count_capacity
from ..policy.decision import VmDecision
from ..policy.enforce import decide
from ..policy.engine import candidates
from ..policy.facts import ClusterFacts, PoolFacts
from ..policy.rules import Rule, rules_of
from .objects import Objects

__all__ = ["Decided", "decide_all"]


@dataclass(frozen=True)
class Decided:
    """All decisions and what they rest on."""

    vms: list[VmDecision]
    cluster: ClusterFacts
    capacity: Capacity
    functions: FreeFunctions
    """What domains may be given; what one is given is not the next one's."""
    problems: list[tuple[str, str, str]]
    """Object, reason and message of what is not known."""


def decide_all(objects: Objects, *, offline: bool, new: Collection[tuple[str, str]] = ()) -> Decided:
    """Decide every VM.

    Args:
        objects: What is given, or what the cluster has.
        offline: Whether what is not given may be there all the same; a VM without a VMI whose spec does not halt it runs.
        new: VMs that are about to be created.
    """
    rules = rules_of(objects.policies.values())
    nodes = _nodes(objects)
    pools, problems = _pools(objects, nodes, rules, offline=offline)
    cluster = _cluster_facts(objects, pools, offline=offline)
    facts = [
        gather_vm_facts(_input_of(objects, key, machine, cluster, offline=offline, is_new=key in new))
        for key, machine in sorted(objects.machines.items())
    ]
    functions = free_functions(objects.pools, {node.name: node.state for node in nodes if node.state is not None})
    facts += [gather_domain(domain, functions.owners) for _, domain in sorted(objects.domains.items())]
    known = {name: pool for name, pool in pools.items() if not offline or _has_functions(objects, nodes, name)}
    named = {rule.sriov_resource for rule in rules if rule.sriov_resource}
    if offline and not any(node.allocatable for node in nodes):
        named = set()
    claims = [claim for vm in facts if (claim := claim_of(vm)) is not None]
    capacity = count_capacity(node_devices(nodes, known, named), claims)
    found = [candidates(vm, rules, cluster) for vm in facts]
    choices = allocate(found, cluster, capacity)
    return Decided([decide(one, choices) for one in found], cluster, capacity, functions, problems)


def _nodes(objects: Objects) -> list[NodeInput]:
    """All nodes of which anything is given; what the pools ask of one is worked out where its state does not say."""
    found = []
    for name in sorted({*objects.nodes, *objects.node_states}):
        node = objects.nodes.get(name)
        state = objects.node_states.get(name)
        labels = node.metadata.labels if node is not None else None
        if state is not None and not state.spec.synced:
            state = _with_wishes(state, objects, labels or {})
        found.append(
            NodeInput(
                name=name,
                labels=labels,
                schedulable=node is None or not node.spec.unschedulable,
                allocatable=node.devices if node is not None and node.status.allocatable else None,
                state=state,
            )
        )
    return found


def _with_wishes(state: NodeNicState, objects: Objects, labels: Mapping[str, str]) -> NodeNicState:
    merged = merge_pools(objects.pools.values(), labels, state.status.pfs, state.spec.pfs)
    return msgspec.structs.replace(state, spec=msgspec.structs.replace(state.spec, pfs=merged.pfs))


def _has_functions(objects: Objects, nodes: list[NodeInput], pool: str) -> bool:
    return pool in objects.pools and any(
        group_of(pf, pool) is not None for node in nodes if node.state is not None for pf in node.state.spec.pfs
    )


def _pools(
    objects: Objects, nodes: list[NodeInput], rules: tuple[Rule, ...], *, offline: bool
) -> tuple[dict[str, PoolFacts], list[tuple[str, str, str]]]:
    """What VMs have to know of the pools; offline, one of which nothing is given counts as ready."""
    found = gather_pools(objects.pools.values(), nodes, known=True)
    problems: list[tuple[str, str, str]] = []
    if not offline:
        return found, problems
    trusting = gather_pools(objects.pools.values(), nodes, known=False)
    for name in found:
        if not _has_functions(objects, nodes, name):
            found[name] = trusting[name]
            text = "no NodeNicState with its functions is given, so it counts as ready: add `kubectl get nns -o yaml`"
            problems.append((f"SriovNetworkPool/{name}", "CapacityUnknown", text))
    for rule in rules:
        for name, physical in ((rule.sriov_pool, False), (rule.passthrough_pool, True)):
            if name and name not in found:
                found[name] = PoolFacts(name=name, resource_name=f"vmnic.dev/{name}", physical=physical)
                text = f"SriovNetworkPool {name} is not given, so it counts as ready with the resource vmnic.dev/{name}"
                problems.append((f"VmNicPolicy/{rule.policy}", "NotFound", text))
    return found, problems


def _cluster_facts(objects: Objects, pools: dict[str, PoolFacts], *, offline: bool) -> ClusterFacts:
    states = objects.node_states.values()
    known = bool(states) and all(state.status.boot_id for state in states) and len(states) >= len(objects.nodes)
    resource = next(iter(objects.kubevirts.values()), None)
    return cluster_facts(
        pools,
        resource,
        vhost_net=any("vhost_net" in state.status.host.modules for state in states) if known else None,
        injector=objects.injector if not offline or objects.injector else None,
    )


def _input_of(
    objects: Objects, key: tuple[str, str], machine: Machine, cluster: ClusterFacts, *, offline: bool, is_new: bool
) -> MachineInput:
    namespace = key[0]
    instance = None if is_new else objects.instances.get(key)
    labels = objects.namespaces.get(namespace, {"kubernetes.io/metadata.name": namespace})
    return MachineInput(
        machine=machine,
        instance=instance,
        preference=_referred(machine.spec.preference, namespace, objects.preferences),
        instancetype=_referred(machine.spec.instancetype, namespace, objects.instancetypes),
        namespace_labels=labels,
        find_network=lambda where, name: objects.networks.get((where, name)),
        find_segment=objects.segment,
        physical_resources=[pool.resource_name for pool in cluster.pools.values() if pool.physical],
        default_binding=cluster.kubevirt.default_binding,
        quota=quota_left(quota for (where, _), quota in objects.quotas.items() if where == namespace),
        is_new=is_new,
        counts_as_running=offline and instance is None and not machine.halted and not is_new,
    )


def _referred(reference: Reference | None, namespace: str, known: dict[tuple[str, str], Any]) -> Any:
    if reference is None or not reference.name:
        return None
    return known.get(("" if reference.cluster_wide else namespace, reference.name))
