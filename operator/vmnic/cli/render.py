"""Tables of plans and states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..api.node_state import NodeNicState, PfStatus
from ..api.reasons import PfReason
from ..nodes.vf_limits import possible_vfs
from ..policy.facts import VmFacts
from ..policy.paths import LayerKind, Place
from ..policy.problems import ProblemReason
from .capacity import PoolRow, capacity_cells
from .format import (
    LAYER_STATES,
    LAYER_WORDS,
    PLACE_WORDS,
    guest_lines,
    guest_words,
    path_title,
    pool_words,
    shape_words,
    vm_name,
)
from .nodes import DeviceEntry, NodeEntry
from .path_schema import PathDocument
from .running import NOT_READ
from .schema import DrainPlan, NicPlan, Plan, ProblemEntry, Survival, UnplacedVm, VmPlan
from .set_aside import SetAside
from .setup import Line
from .terminal import say, show_table

__all__ = [
    "show_capacity",
    "show_drain_plan",
    "show_explanation",
    "show_functions",
    "show_nodes",
    "show_path",
    "show_plan",
    "show_set_aside",
    "show_status",
    "show_survival",
]

_MOST_NAMES = 5
"""Most names in one cell."""
_UNKNOWN = "-"


def show_plan(plan: Plan) -> None:
    """Print a plan with its VMs, pools, problems and a summary line."""
    nics = [(vm, nic) for vm in plan["vms"] for nic in vm["nics"]]
    if nics:
        show_table(
            ("VM", "NIC", "NOW", "WANTED", "VERDICT", "ACTION", "WHY", "THE GUEST WILL SEE"),
            [
                (
                    *(vm_name(vm), nic["name"], shape_words(nic["from"]), shape_words(nic["to"])),
                    *(nic["verdict"], nic["action"], _why(vm, nic), guest_words(nic)),
                )
                for vm, nic in nics
            ],
        )
    rows = [(pool["name"], node) for pool in plan["pools"] for node in pool["nodes"]]
    if rows:
        show_table(
            ("POOL", "NODE", "PF", "PLAN", "BLOCKED BY"),
            [(pool, node["node"], node["pf"], pool_words(node), ", ".join(node["blockedBy"])) for pool, node in rows],
        )
    for name, command in guest_lines(plan):
        say(f"{name}: after the change, run in the guest: {command}")
    _show_entries(plan["problems"])
    summary = plan["summary"]
    say(
        f"VMs: {summary['vms']}; NICs to change: {summary['changes']}, blocked: {summary['blocked']}; "
        f"pool actions: {sum(bool(node['actions']) for _, node in rows)}; disruptive: {summary['disruptive']}"
    )


def _show_entries(problems: Iterable[ProblemEntry]) -> None:
    for problem in problems:
        say(f"{problem['object'] or 'input'}: {problem['reason']}: {problem['message']}")


def _why(vm: VmPlan, nic: NicPlan) -> str:
    lacks_mac = not vm["patchComplete"] and nic["action"] == "Patch" and nic["macAddress"] is None
    return (nic["reason"] or nic["policy"] or "") + ("; vmnic adds the MAC address" if lacks_mac else "")


def show_explanation(vm: VmPlan, facts: VmFacts) -> None:
    """Print why each NIC of a VM is as it is, and why each other candidate is excluded."""
    guest = f"{vm['guestOS']} ({facts.guest_os_source})" if facts.guest_os_source else vm["guestOS"]
    say(f"VM {vm['namespace']}/{vm['name']}, guest {guest}")
    architecture = facts.architecture
    say(f"architecture {architecture.name} ({architecture.source})" if architecture.name else architecture.unknown)
    _show_problems(facts)
    for nic in vm["nics"]:
        say()
        say(f"NIC {nic['name']}: {nic['verdict']}" + (f" ({nic['reason']})" if nic["reason"] else ""))
        say(f"  now     {shape_words(nic['from'])}")
        say(f"  wanted  {shape_words(nic['to'])}" + (f" by policy {nic['policy']}" if nic["policy"] else ""))
        if nic["message"]:
            say(f"  why     {nic['message']}")
        if guest_words(nic):
            say(f"  guest   {guest_words(nic)}")
        if "queueCount" in nic:
            say(f"  queues  {nic['queueCount']} in the running VM, as KubeVirt reports")
        for warning in nic.get("warnings", ()):
            say(f"  warning {warning['reason']}: {warning['message']}")
        for candidate in nic["candidates"]:
            word = "chosen" if candidate["chosen"] else f"{candidate['reason']}: {candidate['message']}"
            say(f"  {candidate['datapath']:9} {word}")
    for command in vm["guestCommands"]:
        say()
        say(f"After the change, run in the guest: {command}")


def _show_problems(facts: VmFacts) -> None:
    """Print what is wrong with a VM, or with the networks that its NICs may use."""
    for problem in facts.problems:
        say(f"problem {problem.reason}: {problem.message}")
    networks = {(one.namespace, one.name): one.accept_fault for nic in facts.nics for one in (nic.network, *nic.equivalents)}
    for (namespace, name), fault in networks.items():
        if fault:
            say(f"problem {ProblemReason.NOT_ACCEPTABLE}: NetworkAttachmentDefinition {namespace}/{name}: {fault}")


def show_capacity(rows: Iterable[PoolRow]) -> None:
    """Print the pools, each followed by its nodes."""
    show_table(*capacity_cells(rows))


def show_path(document: PathDocument) -> None:
    """Print the layers of each NIC of a VM, from the guest to the physical port."""
    say(path_title(document))
    for nic in document["nics"]:
        for path in nic["paths"]:
            say()
            say(f"NIC {nic['name']} ({', '.join(path['states'])}): {shape_words(path)}")
            rows = [
                (
                    *(PLACE_WORDS[Place(layer["where"])], LAYER_WORDS[LayerKind(layer["kind"])]),
                    *(LAYER_STATES[layer["state"]] or layer["name"], layer["text"]),
                )
                for layer in path["layers"]
            ]
            show_table(("WHERE", "LAYER", "WHAT", "NOTE"), rows)


def show_drain_plan(plan: DrainPlan) -> None:
    """Print what a drain does to each VM of a node."""
    if plan["vms"]:
        rows = [(f"{vm['namespace']}/{vm['name']}", vm["outcome"], vm["node"] or "", vm["message"]) for vm in plan["vms"]]
        show_table(("VM", "OUTCOME", "TO", "WHY"), rows)
    _show_entries(plan["problems"])
    summary = plan["summary"]
    say(
        f"VMs on {plan['node']}: {summary['vms']}; migrate: {summary['migrates']}, lose their link meanwhile:"
        f" {summary['losesLink']}, stopped: {summary['stopped']}, block the drain: {summary['blocks']},"
        f" unknown: {summary['unknown']}"
    )
    say(NOT_READ)


def show_survival(survival: Survival) -> None:
    """Print what the loss of each node or PF does, and whether each pool survives any of them."""
    if survival["losses"]:
        rows = [
            (
                loss["node"],
                loss["pf"] or "",
                str(loss["vms"]),
                _answer(loss["survives"]),
                _unplaced(loss["unplaced"]),
                loss["message"],
            )
            for loss in survival["losses"]
        ]
        show_table(("NODE", "PF", "VMS TO MOVE", "ALL FIT", "NO PLACE FOR", "UNKNOWN"), rows)
    if survival["unplaced"]:
        say(f"no place even now: {_unplaced(survival['unplaced'])}")
    _show_entries(survival["problems"])
    for pool in survival["pools"]:
        say(f"pool {pool['name']} survives the loss of any {survival['lossOf']}: {_answer(pool['survives'])}")
    say(f"all VMs with VFs fit after the loss of any {survival['lossOf']}: {_answer(survival['survives'])}")
    say(NOT_READ)


def _answer(value: bool | None) -> str:
    return "unknown" if value is None else "yes" if value else "no"


def _unplaced(vms: Sequence[UnplacedVm]) -> str:
    names = ", ".join(f"{vm['namespace']}/{vm['name']}" for vm in vms[:_MOST_NAMES])
    return names + (f" and {len(vms) - _MOST_NAMES} more" if len(vms) > _MOST_NAMES else "")


def show_status(lines: Iterable[Line]) -> None:
    """Print the checks, and what to do about them."""
    rows = [
        ("ok" if line.ok and line.known else "??" if line.ok else "!!", line.what, line.text, tuple(line.remedy.split("\n")))
        for line in lines
    ]
    show_table(("", "WHAT", "STATE", "NEXT STEP"), rows)


def show_set_aside(found: Iterable[SetAside]) -> None:
    """Print the objects that are set aside, and what to do about them."""
    rows = [(one.kind, "/".join(filter(None, (one.namespace, one.name))), one.reason, one.message) for one in found]
    if rows:
        say()
        say("Set aside")
        show_table(("KIND", "OBJECT", "REASON", "MESSAGE"), rows)
        say("Next step: correct or delete each object. It is read again as soon as it changes; until then nothing that depends")
        say("on it is changed (docs/troubleshooting.md, An object is set aside).")


def show_nodes(states: Iterable[NodeNicState]) -> None:
    """Print the PFs of nodes, the holders of their VFs, and their plans."""
    rows = []
    for state in states:
        pools = {pf.pci_address: ", ".join(group.pool for group in pf.groups) or pf.pool for pf in state.spec.pfs}
        released = {pf.pci_address: f"released ({pf.release}), " for pf in state.spec.pfs if pf.release}
        for pf in state.status.pfs:
            held = ", ".join(f"{held.by or 'unknown'} {held.vf}" for held in pf.held)
            drivers = ", ".join(f"{part.range} {part.driver or 'none'}" for part in pf.vfs)
            pool = pools.get(pf.pci_address, "")
            count = f"{pf.num_vfs}/{possible_vfs(pf, state.status.pfs)}" if pf.total_vfs or pf.num_vfs else "none"
            row = (state.metadata.name, pf.pci_address, pf.name, pf.model, count, drivers, held, pool)
            rows.append((*row, released.get(pf.pci_address, "") + _state(pf, pool)))
    show_table(("NODE", "PF", "NAME", "MODEL", "VFS", "DRIVER", "HELD BY", "POOL", "STATE"), rows)


def _state(pf: PfStatus, pool: str) -> str:
    if pf.problem is not None:
        return f"{pf.problem.reason}: {pf.problem.message}"
    if pf.plan is not None:
        blocked = f"; {', '.join(pf.plan.blocked_by)}" if pf.plan.blocked_by else ""
        return f"planned: {pf.plan.text}{blocked}"
    if pf.link_type and not pool:
        return f"in no pool ({PfReason.LINK_TYPE_DIFFERS}: the link is {pf.link_type}, so only function: Physical may take it)"
    return "as desired" if pool else "in no pool"


def show_functions(nodes: Iterable[NodeEntry]) -> None:
    """Print each function of nodes as a device, followed by its VFs."""
    rows: list[tuple[str, ...]] = []
    for node in nodes:
        for pf in node["functions"]:
            place = (node["name"], pf["address"], pf["name"])
            rows.append((*place, "", pf["address"], *_device(pf, ", ".join(pf["pools"]), "")))
            for vf in pf["vfs"]:
                vlan = str(vf["vlan"] or "none") if "vlan" in vf else _UNKNOWN
                rows.append((*place, str(vf["index"]), vf["address"] or _UNKNOWN, *_device(vf, vf["pool"] or "", vlan)))
    show_table(
        ("NODE", "PF", "NAME", "VF", "ADDRESS", "DRIVER", "HELD BY", "POOL", "IOMMU GROUP", "MAC", "VLAN", "NODEDEV"), rows
    )


def _device(entry: DeviceEntry, pool: str, vlan: str) -> tuple[str, ...]:
    """Return the cells of a function, in which `-` stands for what is unknown."""
    driver = entry["driver"] or "none" if "driver" in entry else _UNKNOWN
    group = "none" if entry.get("iommuGroup", 0) is None else str(entry.get("iommuGroup", _UNKNOWN))
    holder = entry["holder"] or "" if "holder" in entry else _UNKNOWN
    return driver, holder, pool, group, entry.get("mac", _UNKNOWN), vlan, entry.get("nodedev", _UNKNOWN)
