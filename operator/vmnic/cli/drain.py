"""The DrainPlan, which shows what a drain of a node does to its VMs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal

from ..checked.printable import cut
from ..kubevirt.eviction import gather_evicted
from ..policy.capacity import may_use
from ..policy.eviction import EvictionOutcome, Verdict, judge_drain
from .objects import Objects, shown_name
from .offline import Decided
from .running import RunningVms, gather_running, input_problems
from .schema import DrainedVm, DrainPlan, DrainSummary, ProblemEntry

__all__ = ["is_disruptive", "is_known", "make_drain_plan"]

_MOST_BYTES = 253
"""Longest name in Kubernetes."""
_IN_USE = "InUse"
_DECIDING = frozenset({"Node", "VirtualMachineInstance"})
"""Kinds of which one unread object may be a VM of the node, or keep one from a node."""
_HARMLESS = (EvictionOutcome.MIGRATES.value, EvictionOutcome.LOSES_LINK.value)


def is_known(objects: Objects, node: str) -> bool:
    """Return whether any object names a node."""
    there = {name for instance in objects.instances.values() if (name := instance.status.node_name)}
    return node in {*objects.nodes, *objects.node_states, *there}


def is_disruptive(plan: DrainPlan) -> bool:
    """Return whether a VM is stopped or blocks the drain, or may do so."""
    unread = {one["object"].partition("/")[0] for one in plan["problems"] if one["reason"] != _IN_USE}
    return not _DECIDING.isdisjoint(unread) or any(vm["outcome"] not in _HARMLESS for vm in plan["vms"])


def make_drain_plan(node: str, objects: Objects, decided: Decided, missing: list[str], *, offline: bool) -> DrainPlan:
    """Build the DrainPlan of a node.

    Args:
        node: The node.
        objects: Objects from files, or of the cluster.
        decided: Decisions about them.
        missing: Descriptions of kinds that the cluster does not have.
        offline: Whether objects that are not given may exist nevertheless.
    """
    running = gather_running(objects, decided, offline=offline)
    kubevirt = decided.cluster.kubevirt
    evicted = [
        gather_evicted(objects.evictions[key], vm, objects.machines.get(key), kubevirt)
        for key, vm in running.vms.items()
        if vm.node == node
    ]
    vms = [_row(objects, verdict) for verdict in judge_drain(node, evicted, running.capacity)]
    vms += [*_unreadable(objects, running), *_without_instance(node, objects, decided)]
    vms.sort(key=lambda vm: (vm["namespace"], vm["name"]))
    return {
        "apiVersion": "cli.vmnic.dev/v1alpha1",
        "kind": "DrainPlan",
        "node": node,
        "summary": _summary(vms),
        "vms": vms,
        "problems": [*input_problems(objects, decided, running, missing), *_other_holders(node, objects, running)],
    }


def _summary(vms: list[DrainedVm]) -> DrainSummary:
    counts = Counter(vm["outcome"] for vm in vms)
    return {
        "vms": len(vms),
        "migrates": counts["Migrates"],
        "losesLink": counts["LosesLink"],
        "stopped": counts["Stopped"],
        "blocks": counts["Blocks"],
        "unknown": counts["Unknown"],
    }


def _row(objects: Objects, verdict: Verdict) -> DrainedVm:
    claim = verdict.vm.claim
    owner = objects.instances[claim.key].machine
    is_stopped = verdict.outcome is EvictionOutcome.STOPPED
    return {
        "kind": "VirtualMachine" if owner or claim.key in objects.machines else "VirtualMachineInstance",
        "namespace": claim.vm.namespace,
        "name": cut(owner, _MOST_BYTES) or claim.vm.name,
        "outcome": verdict.outcome.value,
        "node": verdict.node or None,
        "devices": dict(sorted(claim.held.items())),
        "linkLost": list(verdict.vm.vf_nics) if verdict.outcome is EvictionOutcome.LOSES_LINK else [],
        "startsAgain": verdict.vm.starts_again if is_stopped else None,
        "message": verdict.message,
    }


def _unreadable(objects: Objects, running: RunningVms) -> Iterator[DrainedVm]:
    """Yield the instances that may run on the node and cannot be read."""
    for one in (*objects.set_aside, *running.set_aside):
        if one.kind == "VirtualMachineInstance":
            text = "its VirtualMachineInstance cannot be read, so whether it runs on the node is not known"
            yield _unknown("VirtualMachineInstance", one.namespace, one.name, text)


def _without_instance(node: str, objects: Objects, decided: Decided) -> Iterator[DrainedVm]:
    """Yield the VMs that may run on the node, and whose instances are not given."""
    devices = decided.capacity.nodes.get(node)
    refused = objects.refused.get("VirtualMachineInstance", "")
    remedy = refused or "add `kubectl get vmi -A -o yaml`"
    for one in decided.vms:
        vm = one.vm
        may_run = vm.assumed_running or (bool(refused) and not vm.halted)
        if may_run and (devices is None or may_use(vm, devices)):
            text = "its VirtualMachineInstance is not given, so whether it runs on the node is not known"
            yield _unknown("VirtualMachine", vm.namespace, shown_name(vm.name), f"{text}: {remedy}")


def _unknown(kind: Literal["VirtualMachine", "VirtualMachineInstance"], namespace: str, name: str, text: str) -> DrainedVm:
    return {
        "kind": kind,
        "namespace": namespace,
        "name": name,
        "outcome": "Unknown",
        "node": None,
        "devices": {},
        "linkLost": [],
        "startsAgain": None,
        "message": text,
    }


def _other_holders(node: str, objects: Objects, running: RunningVms) -> Iterator[ProblemEntry]:
    """Yield the holders of devices on the node that are no VMs of the node."""
    state = objects.node_states.get(node)
    for pf in state.status.pfs if state is not None else ():
        for held in pf.held:
            if running.holder(node, held) is None:
                vm = running.owner(held)
                what = "is no VM of KubeVirt: a drain may leave it"
                if vm is not None:
                    what = f"belongs to a VM on {running.vms[vm].node or 'no node'}, which may migrate here: wait for it"
                text = f"{held.by or 'an unknown process'} holds {held.vf} and {what}"
                yield {"object": f"NodeNicState/{node}", "reason": _IN_USE, "message": text}
