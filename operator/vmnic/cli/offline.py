"""Decisions about all VMs of a collection of objects, with the controller's engine.

Only the given objects are known.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec

from ..api.node_state import NodeNicState
from ..api.pool import MOST_RESOURCES
from ..kubevirt.configuration import cluster_facts
from ..kubevirt.gather import MachineInput, gather_vm_facts
from ..kubevirt.images import Disks, FindImage, image_architecture, infer_reference
from ..kubevirt.inputs import default_architecture
from ..kubevirt.pools import NodeInput, gather_pools, node_devices
from ..kubevirt.quota import quota_left, unreadable_quota
from ..kubevirt.revisions import Revision, read_reference
from ..kubevirt.vm import Instancetype, Preference, Reference, VirtualMachine
from ..libvirt.domain import Domain
from ..libvirt.functions import FreeFunctions, free_functions
from ..libvirt.gather import gather_domain, named_addresses
from ..libvirt.rewrite import grant_functions
from ..nodes.pools.merge import merge_pools
from ..nodes.state import group_of
from ..policy.allocate import allocate
from ..policy.capacity import Capacity, Claim, claim_of, count_capacity
from ..policy.decision import decide
from ..policy.evaluate import evaluate_vm
from ..policy.facts import INJECTION_GATE, ClusterFacts, Datapath, Network, Platform, PoolFacts, VmFacts
from ..policy.problems import ProblemReason
from ..policy.reasons import Reason
from ..policy.rules import Rule, rules_of
from ..policy.sentences import join_sentences
from ..policy.types import VmDecision
from .objects import Objects, shown_name
from .set_aside import SetAside, try_object

__all__ = ["Decided", "decide_all", "facts_of_instance", "kind_of"]

T = TypeVar("T")


@dataclass(frozen=True)
class Decided:
    """All decisions, and the data that they are based on."""

    vms: list[VmDecision]
    cluster: ClusterFacts
    capacity: Capacity
    functions: FreeFunctions
    """Functions that domains may get. Each is given to one domain only."""
    problems: list[tuple[str, str, str]]
    """Object, reason and message of each unknown input."""
    set_aside: list[SetAside] = field(default_factory=list)
    """Objects that could be read but not handled."""
    vm_pools: list[tuple[tuple[str, str], VmDecision]] = field(default_factory=list)
    """Namespace and name of each VirtualMachinePool, and the decision about the VM that it would create next."""
    claims: tuple[Claim, ...] = ()
    """Devices that the VMs hold and ask for."""


def decide_all(
    objects: Objects, *, offline: bool, new: Collection[tuple[str, str]] = (), pod_network_mtu: int | None = None
) -> Decided:
    """Decide every VM.

    Args:
        objects: Objects from files, or of the cluster.
        offline: Whether objects that are not given may exist nevertheless. A VM without a VMI then counts as running, unless
            its
            spec halts it.
        new: VMs that are about to be created.
        pod_network_mtu: MTU of the pod network in bytes; None if unknown.
    """
    aside: list[SetAside] = []
    rules = _rules(objects, aside)
    nodes = _nodes(objects, aside)
    pools, problems = _pools(objects, nodes, rules, offline=offline)
    cluster = _cluster_facts(objects, pools, pod_network_mtu, offline=offline)
    states = {node.name: node.state for node in nodes if node.state is not None}
    # Addresses of all functions are needed first: they show which pool a domain's present VF belongs to.
    functions = free_functions(objects.pools, states)
    functions.withhold(_named_functions(objects))
    namespace_unknown = _namespace_unknown(objects, rules)
    facts = _facts(objects, cluster, functions, aside, namespace_unknown, offline=offline, new=new)
    known = {name: pool for name, pool in pools.items() if not offline or _has_functions(objects, nodes, name)}
    named = {rule.sriov_resource for rule in rules if rule.sriov_resource}
    if offline and not any(node.allocatable for node in nodes):
        # Without these numbers every node would count as having no such device, and no VM would get one.
        named = set()
    claims = [claim for vm in facts if (claim := claim_of(vm)) is not None]
    capacity = count_capacity(node_devices(nodes, known, named), claims)
    found = [one for vm in facts if (one := _try_vm(aside, vm, evaluate_vm, vm, rules, cluster)) is not None]
    choices = allocate(found, cluster, capacity)
    decisions = [made for one in found if (made := _try_vm(aside, one.vm, decide, one, choices)) is not None]
    decisions = [_granted(objects, one, functions) if one.vm.platform is Platform.LIBVIRT else one for one in decisions]

    def decide_next(key: tuple[str, str], machine: VirtualMachine) -> VmDecision:
        given = _input_of(objects, key, machine, cluster, offline=offline, is_new=True)
        facts = gather_vm_facts(replace(given, namespace_unknown=namespace_unknown))
        one = evaluate_vm(facts, rules, cluster)
        # The VMs that exist are served first: a new one gets what they leave.
        return decide(one, allocate([*found, one], cluster, capacity, choices))

    problems += _injector_unknown(objects, decisions, cluster)
    problems += _kubevirt_unknown(decisions, cluster) if offline else ()
    vm_pools = [
        (key, made)
        for key, machine in sorted(objects.vm_pools.items())
        if (made := try_object(aside, "VirtualMachinePool", key, decide_next, key, machine)) is not None
    ]
    return Decided(decisions, cluster, capacity, functions, problems, aside, vm_pools, tuple(claims))


def facts_of_instance(objects: Objects, key: tuple[str, str], cluster: ClusterFacts, *, offline: bool) -> VmFacts:
    """Return the facts of a running VM as its instance describes it, not as the VM's template does."""
    machine = objects.evictions[key].machine
    return gather_vm_facts(_input_of(objects, key, machine, cluster, offline=offline, is_new=False))


def _granted(objects: Objects, decision: VmDecision, functions: FreeFunctions) -> VmDecision:
    """Take the functions of a domain, on its host if the directory of its file has the name of a node."""
    name = decision.vm.name
    directory = objects.directories.get(name, "")
    host = directory if directory in objects.nodes or directory in objects.node_states else ""
    return grant_functions(objects.domains["", name], decision, functions, host)


def _named_functions(objects: Objects) -> dict[str, list[str]]:
    """Return the names of the domains that name a PCI function of the host, by its address."""
    found: dict[str, list[str]] = {}
    for domain in objects.domains.values():
        for address in dict.fromkeys(named_addresses(domain)):
            found.setdefault(address, []).append(domain.name)
    return found


def _kubevirt_unknown(decisions: Iterable[VmDecision], cluster: ClusterFacts) -> Iterator[tuple[str, str, str]]:
    """Yield a problem if a NIC gets a datapath that only a KubeVirt resource allows, and none is given."""
    if cluster.kubevirt.is_given or cluster.kubevirt.unreadable:
        return
    allowed = (Datapath.MACVTAP, Datapath.PASSTHROUGH)
    if any(
        nic.wanted.datapath in allowed and nic.wanted.datapath is not nic.nic.present.datapath
        for one in decisions
        if one.vm.platform is Platform.KUBEVIRT
        for nic in one.nics
    ):
        text = (
            "no KubeVirt resource is given, so it counts as allowing macvtap and passthrough: add `kubectl get kv -A -o yaml`"
        )
        yield "KubeVirt", ProblemReason.NOT_FOUND.value, text


def _injector_unknown(
    objects: Objects, decisions: Iterable[VmDecision], cluster: ClusterFacts
) -> Iterator[tuple[str, str, str]]:
    """Yield a problem if a NIC needs network-resources-injector, which may not be installed."""
    if cluster.kubevirt.injector is not None or INJECTION_GATE not in cluster.kubevirt.gates:
        return
    injected = (Datapath.SRIOV, Datapath.MACVTAP)
    nics = (nic for one in decisions if one.vm.platform is Platform.KUBEVIRT for nic in one.nics if nic.policy is not None)
    if any(nic.nic.present.datapath in injected or nic.wanted.datapath in injected for nic in nics):
        name = "/".join(next(iter(objects.kubevirts)))
        why = objects.refused.get("MutatingWebhookConfiguration", "its MutatingWebhookConfiguration is not given")
        text = f"whether network-resources-injector is installed is unknown ({why}), and KubeVirt's gate {INJECTION_GATE} is on"
        remedy = "Without it, pods of VMs with sriov and macvtap get no device, and vmnic would not choose these datapaths"
        yield f"KubeVirt/{name}", Reason.NET_RESOURCE_INJECTOR_MISSING.value, join_sentences(text, remedy)


def _try_vm(aside: list[SetAside], vm: VmFacts, work: Callable[..., T], *args: Any) -> T | None:
    return try_object(aside, kind_of(vm), (vm.namespace, shown_name(vm.name)), work, *args)


def kind_of(vm: VmFacts) -> str:
    """Return the kind of the object that defines a VM."""
    return "VirtualMachine" if vm.platform is Platform.KUBEVIRT else "domain"


def _rules(objects: Objects, aside: list[SetAside]) -> tuple[Rule, ...]:
    """Build the rules of every policy that can be handled.

    The final rules are built together, because they are sorted.
    """
    usable = [
        policy
        for name, policy in objects.policies.items()
        # One policy at a time, so that an error is attributed to it.
        if try_object(aside, "VmNicPolicy", ("", name), rules_of, [policy]) is not None
    ]
    return rules_of(usable)


def _facts(
    objects: Objects,
    cluster: ClusterFacts,
    functions: FreeFunctions,
    aside: list[SetAside],
    namespace_unknown: str,
    *,
    offline: bool,
    new: Collection[tuple[str, str]],
) -> list[VmFacts]:
    """Collect the facts of every VM and domain."""

    def of_machine(key: tuple[str, str], machine: VirtualMachine) -> VmFacts:
        given = _input_of(objects, key, machine, cluster, offline=offline, is_new=key in new)
        return gather_vm_facts(replace(given, namespace_unknown=namespace_unknown))

    found = [
        try_object(aside, "VirtualMachine", key, of_machine, key, machine) for key, machine in sorted(objects.machines.items())
    ]
    named = _named_functions(objects)

    def of_domain(domain: Domain) -> VmFacts:
        twice = {
            address: other
            for address, names in named.items()
            # Several hosts may have a function of this address, and nothing tells on which of them a domain is.
            if len(functions.places.get(address, ())) < 2
            for other in names
            if other != domain.name and domain.name in names
        }
        return gather_domain(domain, functions.owners, objects.libvirt_networks, twice)

    found += [try_object(aside, "domain", key, of_domain, domain) for key, domain in sorted(objects.domains.items())]
    return [one for one in found if one is not None]


def _namespace_unknown(objects: Objects, rules: Iterable[Rule]) -> str:
    """Return why the labels of namespaces are unknown.

    Empty if they are known, or no policy asks for them.
    """
    asked = any(rule.selector.namespace_selector is not None for rule in rules)
    return objects.refused.get("Namespace", "") if asked else ""


def _nodes(objects: Objects, aside: list[SetAside]) -> list[NodeInput]:
    """Collect all nodes for which any object is given.

    A state that cannot be handled is left out, but its node is kept.
    """
    found = []
    for name in sorted({*objects.nodes, *objects.node_states}):
        state = objects.node_states.get(name)
        if state is not None:
            node = try_object(aside, "NodeNicState", ("", name), _checked_node, objects, name, state)
            found.append(node if node is not None else _node(objects, name, None))
        else:
            found.append(_node(objects, name, None))
    return found


def _checked_node(objects: Objects, name: str, state: NodeNicState) -> NodeInput:
    """Build a node's input and derive all values that are needed later.

    An error is thus attributed to this node.
    """
    node = _node(objects, name, state)
    pools = gather_pools(objects.pools.values(), [node], known=True)
    count_capacity(node_devices([node], pools, set()), [])
    free_functions(objects.pools, {name: state})
    return node


def _node(objects: Objects, name: str, state: NodeNicState | None) -> NodeInput:
    """Build a node's input.

    If the state has no spec from the controller, its spec is computed from the pools.
    """
    node = objects.nodes.get(name)
    labels = node.metadata.labels if node is not None else None
    if state is not None and not state.spec.synced:
        state = _with_wishes(state, objects, labels or {})
    return NodeInput(
        name=name,
        labels=labels,
        schedulable=node is None or not node.spec.unschedulable,
        taints=node.spec.taints if node is not None else (),
        allocatable=node.devices if node is not None and node.status.allocatable else None,
        state=state,
    )


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
    """Collect the facts about pools that matter to VMs.

    Offline, a pool without any known function counts as ready.
    """
    found = gather_pools(objects.pools.values(), nodes, known=True)
    problems: list[tuple[str, str, str]] = []
    if not offline:
        return found, problems
    # A pull request often contains policies without the states of nodes. Refusing each VF would make its plan useless.
    trusting = gather_pools(objects.pools.values(), nodes, known=False)
    for name in found:
        if not _has_functions(objects, nodes, name):
            found[name] = _with_named_resources(trusting[name], objects)
            text = "no NodeNicState with its functions is given, so it counts as ready: add `kubectl get nicst -o yaml`"
            problems.append((f"SriovNetworkPool/{name}", ProblemReason.CAPACITY_UNKNOWN.value, text))
    for rule in rules:
        for name, physical in ((rule.sriov_pool, False), (rule.passthrough_pool, True)):
            if name and name not in found:
                found[name] = PoolFacts(name=name, resource_name=f"vmnic.dev/{name}", physical=physical)
                text = f"SriovNetworkPool {name} is not given, so it counts as ready with the resource vmnic.dev/{name}"
                problems.append((f"VmNicPolicy/{rule.policy}", ProblemReason.NOT_FOUND.value, text))
    return found, problems


def _with_named_resources(pool: PoolFacts, objects: Objects) -> PoolFacts:
    """Give a pool with `resourcePerPF` the resources that given networks name.

    No given node shows its PFs.
    """
    if not objects.pools[pool.name].spec.resource_per_pf:
        return pool
    prefix = f"{pool.resource_name}-"
    names = {network.resource_name for network in objects.networks.values() if network.resource_name.startswith(prefix)}
    return replace(pool, per_pf=tuple(sorted(names)[:MOST_RESOURCES]))


def _cluster_facts(
    objects: Objects, pools: dict[str, PoolFacts], pod_network_mtu: int | None, *, offline: bool
) -> ClusterFacts:
    states = objects.node_states.values()
    # A node without a report may have vhost_net, so only the reports of all nodes show that none has it.
    known = (
        "Node" not in objects.refused
        and bool(states)
        and all(state.status.boot_id for state in states)
        and len(states) >= len(objects.nodes)
    )
    resource = next(iter(objects.kubevirts.values()), None)
    return cluster_facts(
        pools,
        resource,
        vhost_net=any("vhost_net" in state.status.host.modules for state in states) if known else None,
        injector=_has_injector(objects, offline=offline),
        unreadable=objects.refused.get("KubeVirt") or next(_messages(objects, "KubeVirt"), ""),
        pod_network_mtu=pod_network_mtu,
    )


def _has_injector(objects: Objects, *, offline: bool) -> bool | None:
    """Return whether network-resources-injector is installed, or None if that is unknown."""
    kind = "MutatingWebhookConfiguration"
    # Its absence from the files proves nothing. One that cannot be read may be the injector's.
    unknown = offline or kind in objects.refused or any(_messages(objects, kind))
    return True if objects.injector else None if unknown else False


def _messages(objects: Objects, kind: str) -> Iterator[str]:
    """Yield why objects of a kind are set aside."""
    return (one.message for one in objects.set_aside if one.kind == kind)


def _input_of(
    objects: Objects, key: tuple[str, str], machine: VirtualMachine, cluster: ClusterFacts, *, offline: bool, is_new: bool
) -> MachineInput:
    namespace = key[0]
    # A VM that is about to be created has no instance, even if that of a deleted VM of the same name is still there.
    instance = None if is_new else objects.instances.get(key)
    # The API server gives every namespace this label.
    labels = objects.namespaces.get(namespace, {"kubernetes.io/metadata.name": namespace})
    find, disks = objects.find_image, objects.disks.get(key)
    architecture = image_architecture(disks, namespace, find) if disks is not None else None
    machine, inferred = _with_inferred(machine, disks, namespace, find)
    quotas = [quota for (where, _), quota in objects.quotas.items() if where == namespace]
    find_revision = functools.partial(_find_revision, objects, namespace, offline=offline)
    preference, preferred = read_reference(
        Preference,
        machine.spec.preference,
        machine.kept_preference,
        find_revision,
        lambda reference: _find_live(objects, reference, namespace, "Preference", objects.preferences, offline=offline),
    )
    instancetype, typed = read_reference(
        Instancetype,
        machine.spec.instancetype,
        machine.kept_instancetype,
        find_revision,
        lambda reference: _find_live(objects, reference, namespace, "Instancetype", objects.instancetypes, offline=offline),
    )
    return MachineInput(
        machine=machine,
        instance=instance,
        preference=preference,
        instancetype=instancetype,
        namespace_labels=labels,
        find_network=lambda where, name: _find_network(objects, where, name),
        find_segment=objects.segment,
        physical_resources=[name for pool in cluster.pools.values() if pool.physical for name in pool.resource_names],
        resources=cluster.resources,
        default_binding=cluster.kubevirt.default_binding,
        default_cpu=cluster.kubevirt.cpu_request,
        pod_network_mtu=cluster.pod_network_mtu,
        default_architecture=architecture or default_architecture(cluster),
        preference_unknown=inferred.get("preference", preferred),
        instancetype_unknown=inferred.get("instancetype", typed),
        quota=quota_left(quotas),
        quota_unknown=objects.unreadable("ResourceQuota", namespace) or unreadable_quota(quotas),
        is_new=is_new,
        counts_as_running=offline and instance is None and not machine.halted and not is_new,
    )


def _with_inferred(
    machine: VirtualMachine, disks: Disks | None, namespace: str, find: FindImage
) -> tuple[VirtualMachine, dict[str, str]]:
    """Replace references that name a volume, as KubeVirt does when the VM is created.

    Returns:
        The VM, and why its preference or instancetype is unknown, by these words.
    """
    unknown = {}
    for word in ("preference", "instancetype"):
        reference: Reference | None = getattr(machine.spec, word)
        if reference is None or disks is None or not reference.is_inferred:
            continue
        found = infer_reference(word, reference, disks, namespace, find)
        if isinstance(found, str):
            unknown[word] = found
        else:
            machine = msgspec.structs.replace(machine, spec=msgspec.structs.replace(machine.spec, **{word: found}))
    return machine, unknown


def _find_network(objects: Objects, namespace: str, name: str) -> Network | None:
    """Find a network. One that cannot be read is not absent."""
    unreadable = objects.unreadable("NetworkAttachmentDefinition", namespace, name)
    if unreadable:
        return Network(namespace=namespace, name=name, unreadable=unreadable)
    return objects.networks.get((namespace, name))


def _find_revision(objects: Objects, namespace: str, name: str, *, offline: bool) -> Revision | str:
    """Return a ControllerRevision, or why it cannot be read."""
    unreadable = objects.unreadable("ControllerRevision", namespace, name)
    if unreadable:
        return f"cannot be read: {unreadable}"
    absent = "is not given: add it to the files" if offline else "does not exist"
    return objects.revisions.get((namespace, name), absent)


def _find_live(
    objects: Objects, reference: Reference, namespace: str, kind: str, known: Mapping[tuple[str, str], T], *, offline: bool
) -> T | str:
    """Return the object that a VM refers to, or why it cannot be read."""
    place = "" if reference.cluster_wide else namespace
    name = f"VirtualMachineCluster{kind}" if reference.cluster_wide else f"VirtualMachine{kind}"
    absent = "is not given: add it to the files" if offline else "does not exist"
    unreadable = objects.unreadable(name, place, reference.name)
    return unreadable or known.get((place, reference.name), f"{kind.lower()} {reference.name} {absent}")
