"""The Plan, which shows what the policies and pools would do.

One object that can be written as JSON, in stable order and without times. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal, cast

import msgspec

from ..api.node_state import NodeNicState, PfSpec
from ..api.reasons import PfReason
from ..kubevirt.patch import render_patch
from ..libvirt.rewrite import rewrite_domain
from ..nodes.observed import ObservedPf, hold_groups, observed_of
from ..nodes.planning.drivers import DriverFacts
from ..nodes.planning.plan import Planned, hold_partners, plan_pf
from ..nodes.pools.guests import find_mixed_support
from ..nodes.pools.match import LinkRefusal, find_link_refusals, matching_pfs, reported_refusals
from ..nodes.pools.merge import merge_pools
from ..nodes.pools.nic_data import find_nic_data_problems
from ..nodes.rollout.release import released_pfs
from ..nodes.vf_limits import count_other_ports
from ..policy.facts import Datapath, GuestOs, NicState, Platform, VmFacts
from ..policy.guest_view import guest_view, uncarried_settings
from ..policy.problems import ProblemReason
from ..policy.reasons import Reason
from ..policy.types import Action, NicDecision, VmDecision
from .objects import UNMANAGED, Objects, shown_name
from .offline import Decided, kind_of
from .recorded import RecordedPlans, pool_row, unknown_values
from .schema import (
    FailOn,
    GuestEntry,
    NicPlan,
    NicShape,
    NumberChange,
    PatchOperation,
    Plan,
    PoolNode,
    PoolPlan,
    ProblemEntry,
    VmPlan,
)
from .set_aside import SetAside, try_object

__all__ = ["difference", "fails", "make_plan", "plan_vm"]

_GUEST_NICS = "/sys/bus/virtio/devices/*/net/*"
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}", re.ASCII)
_MOST_NAMES = 5
"""Most names in one problem."""


def make_plan(objects: Objects, decided: Decided, missing: list[str], recorded: RecordedPlans | None = None) -> Plan:
    """Build the Plan.

    Args:
        objects: Objects from files, or of the cluster.
        decided: Decisions about them.
        missing: Descriptions of kinds that the cluster does not have.
        recorded: Plans on recorded hosts.
    """
    aside = [*objects.set_aside, *decided.set_aside]
    selected = [decision for decision in decided.vms if decision.selected]
    pools, pool_problems = _pools(objects, aside, recorded)
    # A policy that cannot be read might select any VM and decide differently from the others, so no VM is changed.
    is_open = any(one.kind == "VmNicPolicy" for one in aside)
    vms = [] if is_open else _vms(objects, decided, selected, aside)
    problems = _problems(decided, selected, missing) + _networks(objects) + _not_managed(objects)
    problems += [_entry(one) for one in aside]
    problems += [_problem(kind, ProblemReason.FORBIDDEN, text) for kind, text in objects.refused.items()]
    unknown: list[ProblemEntry] = [
        {"object": where, "reason": reason, "message": message} for where, reason, message in decided.problems
    ]
    return _plan(vms, pools, problems + unknown + pool_problems)


def _vms(objects: Objects, decided: Decided, selected: list[VmDecision], aside: list[SetAside]) -> list[VmPlan]:
    found = (
        try_object(aside, kind_of(one.vm), (one.vm.namespace, one.vm.name), plan_vm, objects, decided, one) for one in selected
    )
    pools = [_plan_new_vm(key, decision) for key, decision in decided.vm_pools if decision.selected]
    return [one for one in found if one is not None] + pools


def _networks(objects: Objects) -> list[ProblemEntry]:
    """Return a problem for each network whose annotation vmnic.dev/accept has a fault."""
    return [
        _problem(f"NetworkAttachmentDefinition/{namespace}/{name}", ProblemReason.NOT_ACCEPTABLE, network.accept_fault)
        for (namespace, name), network in sorted(objects.networks.items())
        if network.accept_fault
    ]


def _not_managed(objects: Objects) -> list[ProblemEntry]:
    """Return a problem for each kind and namespace of VMs that the plan does not show."""
    names: dict[tuple[str, str], list[str]] = {}
    for kind, namespace, name in sorted(objects.unmanaged):
        if kind != "VirtualMachineInstance" or (namespace, name) not in objects.machines:
            names.setdefault((kind, namespace), []).append(shown_name(name))
    return [
        {
            "object": f"{kind}/{namespace}",
            "reason": ProblemReason.NOT_MANAGED.value,
            "message": f"{', '.join(found[:_MOST_NAMES])}"
            + (f" and {len(found) - _MOST_NAMES} more" if len(found) > _MOST_NAMES else "")
            + f": {UNMANAGED[kind]}",
        }
        for (kind, namespace), found in names.items()
    ]


def _problem(where: str, reason: Reason | ProblemReason, message: str) -> ProblemEntry:
    return {"object": where, "reason": reason.value, "message": message}


def _entry(one: SetAside) -> ProblemEntry:
    """Convert an object that is set aside to a problem."""
    policy = "; no VM is planned, because it may select any VM" if one.kind == "VmNicPolicy" else ""
    message = ": ".join(filter(None, (one.where, one.message))) + policy
    return {"object": one.object, "reason": one.reason, "message": message}


def _plan(vms: list[VmPlan], pools: list[PoolPlan], problems: list[ProblemEntry]) -> Plan:
    verdicts = [nic["verdict"] for vm in vms if vm["kind"] != "VirtualMachinePool" for nic in vm["nics"]]
    disruptive = sum(node["disruptive"] for pool in pools for node in pool["nodes"])
    return {
        "apiVersion": "cli.vmnic.dev/v1alpha1",
        "kind": "Plan",
        "summary": {
            "vms": len(vms),
            "changes": verdicts.count("Change"),
            "blocked": verdicts.count("Blocked"),
            "disruptive": sum(vm["restartRequired"] for vm in vms) + disruptive,
        },
        "vms": vms,
        "pools": pools,
        "problems": problems,
    }


def difference(plan: Plan, before: Plan) -> Plan:
    """Return the parts of a plan that an earlier plan does not contain in the same words."""
    rows = {(pool["name"], node["node"], node["pf"]): node for pool in before["pools"] for node in pool["nodes"]}
    pools: list[PoolPlan] = []
    for pool in plan["pools"]:
        fresh = [node for node in pool["nodes"] if rows.get((pool["name"], node["node"], node["pf"])) != node]
        pools += [{"name": pool["name"], "nodes": fresh}] if fresh else []
    vms = [vm for vm in plan["vms"] if vm not in before["vms"]]
    return _plan(vms, pools, [problem for problem in plan["problems"] if problem not in before["problems"]])


def fails(plan: Plan, on: FailOn) -> bool:
    """Return whether a plan gives exit code 1."""
    match on:
        case FailOn.CHANGES:
            # The summary counts NICs of VMs only.
            actions = any(node["actions"] for pool in plan["pools"] for node in pool["nodes"])
            return bool(plan["summary"]["changes"]) or actions
        case FailOn.DISRUPTIVE:
            return bool(plan["summary"]["disruptive"])
        case FailOn.PROBLEMS:
            return bool(plan["problems"])
        case FailOn.NEVER:
            return False


def plan_vm(objects: Objects, decided: Decided, decision: VmDecision) -> VmPlan:
    """Build the plan of one VM."""
    vm = decision.vm
    plan = _decided(decision, "VirtualMachine" if vm.platform is Platform.KUBEVIRT else "Domain")
    if vm.platform is Platform.LIBVIRT:
        plan["domainXml"] = rewrite_domain(
            objects.domains[vm.namespace, vm.name], decision, decided.functions, objects.libvirt_networks
        )
        return plan
    machine = objects.machines[vm.namespace, vm.name]
    patch = render_patch(decision, machine, decided.capacity.total)
    plan["patch"] = cast("list[PatchOperation]", patch)
    return plan


def _plan_new_vm(pool: tuple[str, str], decision: VmDecision) -> VmPlan:
    """Build the plan of the VMs that a VirtualMachinePool creates. They are patched at their creation."""
    plan = _decided(decision, "VirtualMachinePool")
    plan["namespace"], plan["name"] = pool
    return plan


def _decided(decision: VmDecision, kind: Literal["VirtualMachine", "VirtualMachinePool", "Domain"]) -> VmPlan:
    vm = decision.vm
    return {
        "kind": kind,
        "namespace": vm.namespace,
        "name": vm.name if kind == "Domain" else shown_name(vm.name),
        "platform": "KubeVirt" if vm.platform is Platform.KUBEVIRT else "Libvirt",
        "guestOS": vm.guest_os.value,
        "restartRequired": decision.restart_required,
        "nics": [_nic(decision, nic) for nic in decision.nics],
        "patchComplete": not any(_needs_mac(decision, nic) for nic in decision.nics),
        "guestCommands": _guest_commands(decision),
    }


def _guest_commands(decision: VmDecision) -> list[str]:
    """Return the commands that set the number of queues inside a Linux guest.

    A Linux guest uses only as many queues as configured in it. Its names of NICs are not known: they depend on its distribution
    and on the order in which it finds the devices, so a NIC is found by its MAC address.
    """
    if decision.vm.guest_os is not GuestOs.LINUX:
        return []
    # KubeVirt's switch changes NICs that no policy decides, too.
    seen = [(nic, *guest_view(decision, nic).queues) for nic in decision.nics]
    grown = [(_mac(nic), after) for nic, before, after in seen if after > before]
    if all(mac and _MAC.fullmatch(mac) for mac, _ in grown):
        return [_command_of((mac or "").replace("-", ":"), after) for mac, after in grown]
    # Without an address only a command for all virtio NICs is certain. ethtool refuses more queues than a NIC has.
    counts = sorted({after for _, after in grown})
    return [f"for nic in {_GUEST_NICS}; do ethtool -L ${{nic##*/}} combined {after}; done" for after in counts]


def _command_of(mac: str, queues: int) -> str:
    return f"ethtool -L $(grep -li {mac} {_GUEST_NICS}/address | cut -d/ -f8) combined {queues}"


def _needs_mac(vm: VmDecision, decision: NicDecision) -> bool:
    """Return whether the patch lacks the MAC address of a running NIC, which only the cluster knows."""
    present, wanted = decision.nic.present, decision.wanted
    moves = (present.datapath, present.model) != (wanted.datapath, wanted.model)
    whole = wanted.datapath is Datapath.PASSTHROUGH
    return decision.action is Action.PATCH and moves and not whole and vm.vm.assumed_running and not _mac(decision)


def _mac(decision: NicDecision) -> str | None:
    return decision.nic.spec_mac or decision.nic.live_mac


def _guest(decision: VmDecision, nic: NicDecision) -> GuestEntry:
    view = guest_view(decision, nic)
    entry: GuestEntry = {
        "mtu": _number_change(view.mtu) if view.mtu is not None else None,
        "adapter": view.adapter,
        "interfaceName": view.interface_name,
        "queues": _number_change(view.queues),
        "link": view.link,
    }
    if view.static_mtu is not None:
        entry["staticMtu"] = _number_change(view.static_mtu)
    return entry


def _number_change(change: tuple[int, int]) -> NumberChange:
    return {"from": change[0], "to": change[1]}


def _nic(vm: VmDecision, decision: NicDecision) -> NicPlan:
    plan: NicPlan = {
        "name": decision.nic.name,
        "policy": decision.policy,
        "action": _action(decision),
        "verdict": decision.verdict.value,
        "reason": decision.reason.value if decision.reason is not None else None,
        "from": _state(decision.nic.present),
        "to": _state(decision.wanted),
        "message": decision.message,
        "macAddress": _mac(decision),
        "guest": _guest(vm, decision),
        "candidates": [
            {"datapath": one.datapath.value, "chosen": True}
            if one.finding is None
            else {
                "datapath": one.datapath.value,
                "chosen": False,
                "reason": one.finding.reason.value,
                "message": one.finding.message,
            }
            for one in decision.candidates
        ],
    }
    if decision.warnings:
        plan["warnings"] = [{"reason": one.reason.value, "message": one.message} for one in decision.warnings]
    if decision.nic.live_queues is not None:
        plan["queueCount"] = decision.nic.live_queues
    return plan


def _action(decision: NicDecision) -> Literal["None", "Audit", "Patch", "Admit"]:
    return "None" if decision.action is None else decision.action.value


def _state(state: NicState) -> NicShape:
    if state.model is None:
        return {"datapath": state.datapath.value, "queues": state.queues}
    return {"datapath": state.datapath.value, "model": state.model, "queues": state.queues}


def _pools(
    objects: Objects, aside: list[SetAside], recorded: RecordedPlans | None
) -> tuple[list[PoolPlan], list[ProblemEntry]]:
    """Return what the pools would do on the nodes whose state is known."""
    rows: dict[str, list[PoolNode]] = {name: [] for name in sorted(objects.pools)}
    problems: list[ProblemEntry] = []
    # A state that failed in the decisions would fail here again, and would be reported twice.
    left_out = {one.name for one in aside if one.kind == "NodeNicState"}
    for found in recorded.rows.values() if recorded is not None else ():
        for pool, row in found:
            rows[pool].append(row)
    problems += recorded.problems if recorded is not None else []
    planned = recorded.rows.keys() if recorded is not None else ()
    for name, state in sorted(objects.node_states.items()):
        # Which pools select a node depends on its labels.
        if name in left_out or name in planned or "Node" in objects.refused:
            continue
        made = try_object(aside, "NodeNicState", ("", name), _node_rows, objects, name, state)
        for pool, row in made[0] if made is not None else ():
            rows[pool].append(row)
        problems += made[1] if made is not None else []
    if "Node" not in objects.refused:
        problems += _link_refusals(objects, left_out)
        problems += _mixed_support(objects, left_out)
    told = {(one["object"], one["reason"]) for one in problems}
    problems += [one for one in _nic_data_problems(objects) if (one["object"], one["reason"]) not in told]
    return [{"name": name, "nodes": nodes} for name, nodes in rows.items()], problems


def _nic_data_problems(objects: Objects) -> list[ProblemEntry]:
    """Return what the pools ask for in vain on every node."""
    return [
        {"object": f"SriovNetworkPool/{name}", "reason": one.reason, "message": one.message}
        for name, pool in sorted(objects.pools.items())
        for one in find_nic_data_problems(pool)
    ]


def _mixed_support(objects: Objects, left_out: Collection[str]) -> list[ProblemEntry]:
    """Return the pools whose VFs have a driver for Windows on some nodes only."""
    states = [_with_spec(objects, name, state) for name, state in sorted(objects.node_states.items()) if name not in left_out]
    found = ((name, find_mixed_support(pool, states)) for name, pool in sorted(objects.pools.items()))
    return [
        {"object": f"SriovNetworkPool/{name}", "reason": problem.reason, "message": problem.message}
        for name, problem in found
        if problem is not None
    ]


def _with_spec(objects: Objects, name: str, state: NodeNicState) -> NodeNicState:
    """Return a state with the spec that the pools would give to its node."""
    if name in objects.host_records:
        return state
    labels = objects.nodes[name].metadata.labels if name in objects.nodes else {}
    merged = merge_pools(objects.pools.values(), labels, state.status.pfs, state.spec.pfs)
    return msgspec.structs.replace(state, spec=msgspec.structs.replace(state.spec, pfs=merged.pfs))


def _link_refusals(objects: Objects, left_out: Collection[str]) -> list[ProblemEntry]:
    """Return the functions that pools do not take because of the type of their link."""
    found: list[ProblemEntry] = []
    for name, pool in sorted(objects.pools.items()):
        refusals: list[LinkRefusal] = []
        matched = False
        for node, state in sorted(objects.node_states.items()):
            if node in left_out:
                continue
            record = objects.host_records.get(node)
            # The labels of a recorded node may be unknown, which excludes no pool.
            unlabelled = record.metadata.labels if record is not None else {}
            labels = objects.nodes[node].metadata.labels if node in objects.nodes else unlabelled
            unknown = unknown_values(record)
            refusals += find_link_refusals(pool, node, labels, state.status.pfs, unknown)
            matched = matched or bool(matching_pfs(pool, labels, state.status.pfs, state.spec.pfs, unknown))
        found += [
            {
                "object": f"SriovNetworkPool/{name}",
                "reason": PfReason.LINK_TYPE_DIFFERS.value,
                "message": f"{one.node}: {one.message}",
            }
            for one in reported_refusals(refusals, matched=matched)
        ]
    return found


def _node_rows(objects: Objects, name: str, state: NodeNicState) -> tuple[list[tuple[str, PoolNode]], list[ProblemEntry]]:
    """Return what the pools would do on one node, by pool."""
    rows: list[tuple[str, PoolNode]] = []
    node = objects.nodes.get(name)
    labels = node.metadata.labels if node is not None else {}
    merged = merge_pools(objects.pools.values(), labels, state.status.pfs, state.spec.pfs)
    problems: list[ProblemEntry] = []
    wanted = {desired.pci_address: desired for desired in merged.pfs}
    found = hold_groups([observed_of(pf, state.status.pfs) for pf in state.status.pfs])
    observed = {pf.pci_address: pf for pf in found}
    made = {address: _plan_pf(state, desired, observed[address], wanted) for address, desired in wanted.items()}
    plans = hold_partners(made, merged.pfs, observed)
    for desired in merged.pfs:
        row, problem = _pool_node(name, desired, plans[desired.pci_address])
        rows += [(desired.pool, row)] if row is not None else []
        problems += [problem] if problem is not None else []
    for given_up in released_pfs(state, objects.pools.values(), {pf.pci_address for pf in merged.pfs}):
        if given_up.pool in objects.pools:
            rows += [(given_up.pool, row) for row in _given_up(name, state, given_up)]
    problems += [
        {"object": f"SriovNetworkPool/{conflict.pool}", "reason": conflict.reason, "message": conflict.message}
        for conflict in merged.conflicts
    ]
    return rows, problems


def _given_up(node: str, state: NodeNicState, spec: PfSpec) -> list[PoolNode]:
    """Return what happens to a PF that no pool asks for any more.

    Only its agent knows its original settings.
    """
    status = next((pf for pf in state.status.pfs if pf.pci_address == spec.pci_address), None)
    if status is None:
        return []
    plan = status.plan if any(pf.release for pf in state.spec.pfs if pf.pci_address == spec.pci_address) else None
    return [
        {
            "node": node,
            "pf": spec.pci_address,
            "actions": plan.text.split(", ") if plan is not None else [f"release the function ({spec.release})"],
            # Before the agent has planned the release, held devices are the best sign of a disruption.
            "disruptive": plan.disruptive if plan is not None else spec.release == "Reset" and bool(status.held),
            "blockedBy": list(plan.blocked_by) if plan is not None else [],
            "problem": None,
        }
    ]


def _plan_pf(state: NodeNicState, desired: PfSpec, observed: ObservedPf, wanted: Mapping[str, PfSpec]) -> Planned:
    """Plan one PF from its published status."""
    # `merge_pools` takes its PFs from this status, so there is always one.
    status = next(pf for pf in state.status.pfs if pf.pci_address == desired.pci_address)
    holders = {held.vf: held.by for held in status.held if held.by}
    return plan_pf(
        desired,
        observed,
        host=state.status.host,
        boot_id=state.status.boot_id,
        attempt=status.attempt,
        holders=holders,
        driver=DriverFacts(other_ports_vfs=count_other_ports(status, state.status.pfs, wanted)),
        others=tuple(wanted.values()),
    )


def _pool_node(node: str, desired: PfSpec, planned: Planned) -> tuple[PoolNode | None, ProblemEntry | None]:
    """Return the row of one PF and its problem."""
    row = pool_row(node, desired.pci_address, planned)
    if planned.problem is None:
        return row, None
    where = f"SriovNetworkPool/{desired.pool}"
    return row, {"object": where, "reason": planned.problem.reason.value, "message": f"{node}: {planned.problem.message}"}


def _object_of(vm: VmFacts) -> str:
    if vm.platform is Platform.LIBVIRT:
        return f"Domain/{vm.name}"
    return f"VirtualMachine/{vm.namespace}/{shown_name(vm.name)}"


def _problems(decided: Decided, selected: list[VmDecision], problems: list[str]) -> list[ProblemEntry]:
    found = [_problem("", ProblemReason.KIND_ABSENT, text) for text in problems]
    named = [(_object_of(one.vm), one) for one in selected]
    named += [("/".join(("VirtualMachinePool", *key)), one) for key, one in decided.vm_pools if one.selected]
    for where, decision in named:
        vm = decision.vm
        found += [_problem(where, one.reason, one.message) for one in vm.problems]
        found += [
            {
                "object": where,
                "reason": Reason.PROPERTY_NOT_CARRIED.value,
                "message": f"NIC {nic.nic.name}: {nic.wanted.datapath} does not carry {', '.join(lost)}",
            }
            for nic in decision.nics
            if (lost := uncarried_settings(nic))
        ]
        found += [
            {
                "object": f"VmNicPolicy/{nic.policy}",
                "reason": ProblemReason.CONFLICT.value,
                "message": f"{where}, NIC {nic.nic.name}: policy {', '.join(nic.conflicts_with)} of the same priority decides"
                " differently: give one of them another spec.priority",
            }
            for nic in decision.nics
            if nic.conflicts_with
        ]
        found += [
            {"object": where, "reason": warning.reason.value, "message": f"NIC {nic.nic.name}: {warning.message}"}
            for nic in decision.nics
            for warning in nic.warnings
        ]
    return found
