"""The Plan: what the policies and pools would do, as one JSON-able object. Pure; stable order, no times."""

from __future__ import annotations

from typing import Literal, cast

from ..kubevirt.patch import render_patch
from ..libvirt.rewrite import rewrite_domain
from ..nodes.merge import merge_pools
from ..nodes.observed import observed_of
from ..nodes.plan import plan_pf
from ..nodes.release import released_pfs
from ..nodes.state import NodeNicState, PfSpec
from ..policy.decision import NicDecision, VmDecision
from ..policy.facts import GuestOs, NicState, Platform
from .decide import Decided
from .objects import Objects
from .schema import FailOn, NicPlan, NicShape, PatchOperation, Plan, PoolNode, PoolPlan, ProblemEntry, VmPlan

__all__ = ["difference", "fails", "make_plan", "plan_vm"]


def make_plan(objects: Objects, decided: Decided, problems: list[str]) -> Plan:
    """Write the Plan."""
    selected = [decision for decision in decided.vms if decision.selected]
    pools, pool_problems = _pools(objects)
    vms = [plan_vm(objects, decided, decision) for decision in selected]
    unknown: list[ProblemEntry] = [
        {"object": where, "reason": reason, "message": message} for where, reason, message in decided.problems
    ]
    return _plan(vms, pools, _problems(selected, problems) + unknown + pool_problems)


def _plan(vms: list[VmPlan], pools: list[PoolPlan], problems: list[ProblemEntry]) -> Plan:
    verdicts = [nic["verdict"] for vm in vms for nic in vm["nics"]]
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
    """Keep of a plan only what an earlier one does not say in the same words."""
    rows = {(pool["name"], node["node"], node["pf"]): node for pool in before["pools"] for node in pool["nodes"]}
    pools: list[PoolPlan] = []
    for pool in plan["pools"]:
        fresh = [node for node in pool["nodes"] if rows.get((pool["name"], node["node"], node["pf"])) != node]
        pools += [{"name": pool["name"], "nodes": fresh}] if fresh else []
    vms = [vm for vm in plan["vms"] if vm not in before["vms"]]
    return _plan(vms, pools, [problem for problem in plan["problems"] if problem not in before["problems"]])


def fails(plan: Plan, on: FailOn) -> bool:
    """Tell whether a plan gives exit code 1."""
    match on:
        case FailOn.CHANGES:
            actions = any(node["actions"] for pool in plan["pools"] for node in pool["nodes"])
            return bool(plan["summary"]["changes"]) or actions
        case FailOn.DISRUPTIVE:
            return bool(plan["summary"]["disruptive"])
        case FailOn.PROBLEMS:
            return bool(plan["problems"])
        case FailOn.NEVER:
            return False


def plan_vm(objects: Objects, decided: Decided, decision: VmDecision) -> VmPlan:
    """Write what follows for one VM."""
    vm = decision.vm
    plan: VmPlan = {
        "namespace": vm.namespace,
        "name": vm.name,
        "platform": "KubeVirt" if vm.platform is Platform.KUBEVIRT else "Libvirt",
        "guestOS": vm.guest_os.value,
        "restartRequired": decision.restart_required,
        "nics": [_nic(nic) for nic in decision.nics],
        "guestCommands": _guest_commands(decision),
    }
    if vm.platform is Platform.LIBVIRT:
        plan["domainXml"] = rewrite_domain(objects.domains[vm.namespace, vm.name], decision, decided.functions)
        return plan
    machine = objects.machines[vm.namespace, vm.name]
    patch = render_patch(decision, machine, decided.capacity.total)
    plan["patch"] = cast("list[PatchOperation]", patch)
    return plan


def _guest_commands(decision: VmDecision) -> list[str]:
    """A Linux guest uses as many queues as it is told to; the command takes the kernel's own names for its NICs."""
    if decision.vm.guest_os is not GuestOs.LINUX:
        return []
    return [
        f"ethtool -L eth{index} combined {nic.wanted.queues}"
        for index, nic in enumerate(decision.nics)
        if nic.wanted.queues > nic.nic.present.queues
    ]


def _nic(decision: NicDecision) -> NicPlan:
    return {
        "name": decision.nic.name,
        "policy": decision.policy,
        "action": _action(decision),
        "verdict": decision.verdict.value,
        "reason": decision.reason.value if decision.reason is not None else None,
        "from": _state(decision.nic.present),
        "to": _state(decision.wanted),
        "message": decision.message,
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


def _action(decision: NicDecision) -> Literal["None", "Audit", "Patch", "Admit"]:
    return "None" if decision.action is None else decision.action.value


def _state(state: NicState) -> NicShape:
    if state.model is None:
        return {"datapath": state.datapath.value, "queues": state.queues}
    return {"datapath": state.datapath.value, "model": state.model, "queues": state.queues}


def _pools(objects: Objects) -> tuple[list[PoolPlan], list[ProblemEntry]]:
    """What the pools would do on the nodes whose state is known."""
    rows: dict[str, list[PoolNode]] = {name: [] for name in sorted(objects.pools)}
    problems: list[ProblemEntry] = []
    for name, state in sorted(objects.node_states.items()):
        node = objects.nodes.get(name)
        labels = node.metadata.labels if node is not None else {}
        merged = merge_pools(objects.pools.values(), labels, state.status.pfs, state.spec.pfs)
        for desired in merged.pfs:
            row, problem = _pool_node(name, state, desired)
            if row is not None:
                rows[desired.pool].append(row)
            if problem is not None:
                problems.append(problem)
        for given_up in released_pfs(state, objects.pools.values(), {pf.pci_address for pf in merged.pfs}):
            rows[given_up.pool] += _given_up(name, state, given_up)
        problems += [
            {"object": f"SriovNetworkPool/{conflict.pool}", "reason": "Conflict", "message": conflict.message}
            for conflict in merged.conflicts
        ]
    return [{"name": name, "nodes": nodes} for name, nodes in rows.items()], problems


def _given_up(node: str, state: NodeNicState, spec: PfSpec) -> list[PoolNode]:
    """What is done to a function that no pool asks for any more; only its agent knows what it was before."""
    status = next((pf for pf in state.status.pfs if pf.pci_address == spec.pci_address), None)
    if status is None:
        return []
    plan = status.plan if any(pf.release for pf in state.spec.pfs if pf.pci_address == spec.pci_address) else None
    return [
        {
            "node": node,
            "pf": spec.pci_address,
            "actions": plan.text.split(", ") if plan is not None else [f"give the function up ({spec.release})"],
            "disruptive": plan.disruptive if plan is not None else spec.release == "Reset" and bool(status.held),
            "blockedBy": list(plan.blocked_by) if plan is not None else [],
        }
    ]


def _pool_node(node: str, state: NodeNicState, desired: PfSpec) -> tuple[PoolNode | None, ProblemEntry | None]:
    """Plan one function from its published status."""
    status = next(pf for pf in state.status.pfs if pf.pci_address == desired.pci_address)
    holders = {held.vf: held.by for held in status.held if held.by}
    planned = plan_pf(
        desired,
        observed_of(status),
        host=state.status.host,
        boot_id=state.status.boot_id,
        attempt=status.attempt,
        holders=holders,
    )
    if planned.problem is not None:
        where = f"SriovNetworkPool/{desired.pool}"
        return None, {"object": where, "reason": planned.problem.reason.value, "message": f"{node}: {planned.problem.message}"}
    if planned.plan is None:
        return None, None
    return {
        "node": node,
        "pf": desired.pci_address,
        "actions": planned.plan.text.split(", "),
        "disruptive": planned.plan.disruptive,
        "blockedBy": list(planned.plan.blocked_by),
    }, None


def _problems(decisions: list[VmDecision], problems: list[str]) -> list[ProblemEntry]:
    found: list[ProblemEntry] = [{"object": "", "reason": "Unreadable", "message": text} for text in problems]
    for decision in decisions:
        vm = decision.vm
        where = f"VirtualMachine/{vm.namespace}/{vm.name}"
        found += [{"object": where, "reason": "NotFound", "message": text} for text in vm.problems]
        found += [
            {
                "object": f"VmNicPolicy/{nic.policy}",
                "reason": "Conflict",
                "message": f"{where}, NIC {nic.nic.name}: policy {', '.join(nic.conflicts_with)} of the same priority decides"
                " differently: give one of them another spec.priority",
            }
            for nic in decision.nics
            if nic.conflicts_with
        ]
    return found
