"""Running VMs and their devices, from VirtualMachineInstances. Pure."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..api.node_state import Held
from ..kubevirt.launchers import base_of_pod, launcher_base, pod_of
from ..policy.capacity import Capacity, Claim, NodeDevices, claim_of, count_capacity
from ..policy.facts import VmFacts
from .objects import Objects
from .offline import Decided, facts_of_instance
from .schema import ProblemEntry
from .set_aside import SetAside, try_object

__all__ = ["NOT_READ", "RunningVms", "gather_running", "input_problems", "unread_kinds"]

NOT_READ = (
    "as far as VFs, node selectors, node affinity and taints go; not read: PodDisruptionBudgets, affinity to pods, CPU, memory"
)


@dataclass(frozen=True)
class RunningVms:
    """VMs that have an instance, and the devices of all VMs."""

    vms: Mapping[tuple[str, str], VmFacts]
    """By namespace and name of the instance, with the placement of the instance."""
    claims: tuple[Claim, ...]
    capacity: Capacity
    set_aside: list[SetAside] = field(default_factory=list)
    """Instances that could be read but not handled."""

    def holder(self, node: str, held: Held) -> tuple[str, str] | None:
        """Return the VM of a node that holds a device, or None if no VM is known to hold it."""
        pod = pod_of(held)
        return self._launchers.get((node, pod[0], base_of_pod(pod[1]))) if pod is not None else None

    def owner(self, held: Held) -> tuple[str, str] | None:
        """Return the VM whose launcher holds a device on any node, as during a migration, or None."""
        pod = pod_of(held)
        return self._bases.get((pod[0], base_of_pod(pod[1]))) if pod is not None else None

    @functools.cached_property
    def _bases(self) -> dict[tuple[str, str], tuple[str, str]]:
        return {(key[0], launcher_base(key[1])): key for key in self.vms}

    @functools.cached_property
    def _launchers(self) -> dict[tuple[str, str, str], tuple[str, str]]:
        return {(vm.node, key[0], launcher_base(key[1])): key for key, vm in self.vms.items()}


def gather_running(objects: Objects, decided: Decided, *, offline: bool) -> RunningVms:
    """Collect the facts of every instance that has not ended.

    Args:
        objects: Objects from files, or of the cluster.
        decided: Decisions about the VMs.
        offline: Whether objects that are not given may exist nevertheless.
    """
    aside: list[SetAside] = []
    owners = {(one.vm.namespace, one.vm.name): one.vm for one in decided.vms}
    vms: dict[tuple[str, str], VmFacts] = {}
    for key, instance in sorted(objects.instances.items()):
        if instance.final:
            continue
        vm = try_object(aside, "VirtualMachineInstance", key, _facts, objects, decided, key, owners.get(key), offline)
        if vm is not None:
            vms[key] = vm
    # An instance holds its devices even if no VirtualMachine owns it, or its VirtualMachine cannot be read.
    known = {claim.key for claim in decided.claims} | owners.keys()
    more = [claim for key, vm in vms.items() if key not in known and (claim := claim_of(vm)) is not None]
    claims = (*decided.claims, *more)
    nodes = _with_unknown(objects, decided, offline=offline)
    return RunningVms(vms, claims, count_capacity(nodes, claims), aside)


def _with_unknown(objects: Objects, decided: Decided, *, offline: bool) -> dict[str, NodeDevices]:
    """Return the nodes, with the devices of pools as unknown where the node's state is not known."""
    resources = frozenset(name for pool in decided.cluster.pools.values() for name in pool.resource_names)
    unread = {one.name for one in (*objects.set_aside, *decided.set_aside) if one.kind == "NodeNicState"}
    return {
        name: replace(node, unknown=node.unknown | resources)
        if name in unread or ((offline or "NodeNicState" in objects.refused) and name not in objects.node_states)
        else node
        for name, node in decided.capacity.nodes.items()
    }


def _facts(objects: Objects, decided: Decided, key: tuple[str, str], owner: VmFacts | None, offline: bool) -> VmFacts:
    vm = facts_of_instance(objects, key, decided.cluster, offline=offline)
    # The owner's preference and annotations name the guest OS, and an instance has none of them.
    return vm if owner is None else replace(vm, guest_os=owner.guest_os)


def unread_kinds(objects: Objects, decided: Decided, running: RunningVms) -> frozenset[str]:
    """Return the kinds of which an object could not be read."""
    aside = (*objects.set_aside, *decided.set_aside, *running.set_aside)
    return frozenset({*objects.refused, *(one.kind for one in aside)})


def input_problems(objects: Objects, decided: Decided, running: RunningVms, missing: list[str]) -> list[ProblemEntry]:
    """Return what could not be read."""
    aside = (*objects.set_aside, *decided.set_aside, *running.set_aside)
    problems: list[ProblemEntry] = [{"object": "", "reason": "NotFound", "message": text} for text in missing]
    problems += [
        {"object": one.object, "reason": one.reason, "message": ": ".join(filter(None, (one.where, one.message)))}
        for one in aside
    ]
    return problems + [{"object": kind, "reason": "Forbidden", "message": text} for kind, text in objects.refused.items()]
