"""Paths of the packets of a VM's NICs, in each state that the NICs have or will have. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

from ..kubevirt.assignment import binding_of
from ..nodes.nics import model_of
from ..nodes.pools.shares import PoolShare, pool_shares
from ..policy.capacity import may_use
from ..policy.facts import Datapath, Network, NicFacts, NicState, Platform, VmFacts
from ..policy.paths import Layer, Port, path_of
from ..policy.types import NicDecision, VmDecision
from .objects import Objects, shown_name
from .offline import Decided
from .path_schema import LayerEntry, NicPaths, PathDocument, PathEntry, StateName
from .schema import Plan

__all__ = ["PortIndex", "index_ports", "paths_of_plan", "paths_of_vm", "vm_key"]

_MOST_PATHS = 200
"""Most VMs of a plan whose paths are shown."""
_GENERATED, _RANDOM = 58, 5
"""Characters of a pod's name that Kubernetes takes from `generateName`, and those that it adds."""


@dataclass(frozen=True, slots=True)
class PortIndex:
    """Ports of the devices of all pools."""

    by_node: Mapping[str, Mapping[str, tuple[Port, ...]]]
    """Ports by node and resource."""
    by_holder: Mapping[tuple[str, str, str], tuple[Port, ...]]
    """Ports by node, generated name of the pod that holds a device there, and resource."""


def index_ports(objects: Objects) -> PortIndex:
    """Collect the ports from the states of all nodes."""
    nodes: dict[str, dict[str, tuple[Port, ...]]] = {}
    holders: dict[tuple[str, str, str], tuple[Port, ...]] = {}
    for node, state in sorted(objects.node_states.items()):
        resources = nodes.setdefault(node, {})
        for name, pool in sorted(objects.pools.items()):
            resource = pool.resource_name
            for share in pool_shares(state, name):
                if share.is_partner or not share.addresses:
                    continue
                port = _port(node, share)
                resources[resource] = (*resources.get(resource, ()), port)
                for held in share.pf.held:
                    if held.by and held.vf in share.held:
                        key = (node, held.by[:-_RANDOM], resource)
                        holders[key] = tuple(dict.fromkeys((*holders.get(key, ()), port)))
    return PortIndex(nodes, holders)


def _port(node: str, share: PoolShare) -> Port:
    pf = share.pf
    model = model_of(pf.vendor, pf.device)
    driver = "" if model is None else model.driver if share.indexes is None else model.vf_driver
    return Port(name=f"{pf.name or pf.pci_address}{f' ({pf.model})' if pf.model else ''}", node=node, guest_driver=driver)


def vm_key(vm: VmFacts) -> tuple[Literal["VirtualMachine", "Domain"], str, str]:
    """Return kind, namespace and name of a VM as a user names it."""
    if vm.platform is Platform.LIBVIRT:
        return "Domain", vm.namespace, vm.name
    return "VirtualMachine", vm.namespace, shown_name(vm.name)


def paths_of_vm(decided: Decided, decision: VmDecision, index: PortIndex) -> PathDocument:
    """Build the Path of one VM."""
    vm = decision.vm
    kind, namespace, name = vm_key(vm)
    return {
        "apiVersion": "cli.vmnic.dev/v1alpha1",
        "kind": "Path",
        "vm": {
            "kind": kind,
            "namespace": namespace,
            "name": name,
            "guestOS": vm.guest_os.value,
            "node": vm.node,
        },
        "nics": [_nic(decided, vm, nic, index) for nic in decision.nics],
    }


def paths_of_plan(plan: Plan, objects: Objects, decided: Decided) -> list[PathDocument]:
    """Build the Paths of the first VMs of a plan, beginning with those that would change or are blocked."""
    planned = {(vm["kind"], vm["namespace"], vm["name"]): vm for vm in plan["vms"]}
    found: list[tuple[bool, VmDecision]] = []
    for decision in decided.vms:
        vm = planned.get(vm_key(decision.vm))
        if vm is not None:
            found.append((all(nic["verdict"] not in ("Change", "Blocked") for nic in vm["nics"]), decision))
    index = index_ports(objects)
    return [paths_of_vm(decided, one, index) for _, one in sorted(found, key=lambda one: one[0])[:_MOST_PATHS]]


def _nic(decided: Decided, vm: VmFacts, decision: NicDecision, index: PortIndex) -> NicPaths:
    paths: list[PathEntry] = []
    last: NicFacts | None = None
    for name, nic in _states(vm, decision):
        if last is not None and _traits(vm, last) == _traits(vm, nic):
            paths[-1]["states"].append(name)
            continue
        ports = _ports(decided, vm, nic.present, index, is_running=name == "Running")
        paths.append(_path(name, nic.present, path_of(vm, nic, decided.cluster, {nic.present.resource: ports})))
        last = nic
    return {"name": decision.nic.name, "paths": paths}


def _traits(vm: VmFacts, nic: NicFacts) -> tuple[NicState, Network, str, bool]:
    """Return what distinguishes two states of a NIC."""
    return nic.present, nic.network, nic.binding, bool(vm.preference_unknown) and not nic.explicit_model


def _states(vm: VmFacts, decision: NicDecision) -> list[tuple[StateName, NicFacts]]:
    """Return the NIC in each of its states."""
    spec, found = decision.nic, cast("list[tuple[StateName, NicFacts]]", [])
    if spec.live is not None:
        found.append(("Running", _running(vm, spec, spec.live)))
    found.append(("Spec", spec))
    wanted = replace(
        spec,
        present=decision.wanted,
        network=decision.network or spec.network,
        explicit_model=decision.wanted.model or spec.explicit_model,
    )
    if vm.platform is Platform.KUBEVIRT and decision.wanted.datapath.is_bridged and not spec.present.datapath.is_bridged:
        wanted = replace(wanted, binding=binding_of(decision.wanted.datapath)[0])
    if wanted.present != spec.present:
        found.append(("Wanted", wanted))
    return found


def _running(vm: VmFacts, spec: NicFacts, live: NicState) -> NicFacts:
    """Return the NIC as it runs. Only its datapath is known, so another one may be on another network."""
    running = replace(spec, present=live, explicit_model=live.model or spec.explicit_model)
    moved = live.datapath is not spec.present.datapath and not (live.datapath.is_bridged and spec.present.datapath.is_bridged)
    if not moved or (spec.network.pod and live.datapath.is_bridged):
        return running
    binding = binding_of(live.datapath)[0] if vm.platform is Platform.KUBEVIRT and live.datapath.is_bridged else ""
    return replace(running, network=Network(known=False), binding=binding)


def _ports(decided: Decided, vm: VmFacts, state: NicState, index: PortIndex, *, is_running: bool) -> tuple[Port, ...]:
    """Return the ports that the device of a NIC is on, or may be on."""
    if not state.datapath.needs_device:
        return ()
    if is_running and vm.node:
        pod = f"pod {vm.namespace}/" + f"virt-launcher-{vm.name}-"[:_GENERATED]
        exact = index.by_holder.get((vm.node, pod, state.resource))
        return exact or index.by_node.get(vm.node, {}).get(state.resource, ())
    nodes = decided.capacity.nodes
    return tuple(
        port
        for node, resources in index.by_node.items()
        if node not in nodes or may_use(vm, nodes[node])
        for port in resources.get(state.resource, ())
    )


def _path(name: StateName, state: NicState, layers: tuple[Layer, ...]) -> PathEntry:
    entries: list[LayerEntry] = [
        {
            "kind": layer.kind.value,
            "where": layer.kind.place.value,
            "state": layer.state.value,
            "name": layer.name,
            "text": layer.text,
        }
        for layer in layers
    ]
    entry: PathEntry = {"states": [name], "datapath": state.datapath.value, "queues": state.queues, "layers": entries}
    if state.model is not None and state.datapath is not Datapath.OTHER:
        entry["model"] = state.model
    return entry
