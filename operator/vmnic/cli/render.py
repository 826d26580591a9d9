"""Plans and states as tables for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from ..nodes.state import NodeNicState, PfStatus
from .capacity import PoolRow
from .schema import Plan, VmPlan
from .setup import Line
from .words import shape_words, vm_name

__all__ = ["show_explanation", "show_nodes", "show_plan"]


_PLAIN_WIDTH = 200
"""Columns where the output is no terminal: a log or a file wraps nothing."""


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def show_plan(plan: Plan) -> None:
    """Print a plan: VMs, pools, problems, and one line that sums it up."""
    console = _console()
    if plan["vms"]:
        table = _table("VM", "NIC", "NOW", "WANTED", "VERDICT", "ACTION", "WHY")
        for vm in plan["vms"]:
            for nic in vm["nics"]:
                why = nic["reason"] or nic["policy"] or ""
                table.add_row(
                    vm_name(vm),
                    nic["name"],
                    shape_words(nic["from"]),
                    shape_words(nic["to"]),
                    nic["verdict"],
                    nic["action"],
                    why,
                )
        console.print(table)
    rows = [(pool["name"], node) for pool in plan["pools"] for node in pool["nodes"]]
    if rows:
        table = _table("POOL", "NODE", "PF", "PLAN", "BLOCKED BY")
        for pool, node in rows:
            table.add_row(pool, node["node"], node["pf"], ", ".join(node["actions"]), ", ".join(node["blockedBy"]))
        console.print(table)
    for problem in plan["problems"]:
        console.print(f"{problem['object'] or 'input'}: {problem['reason']}: {problem['message']}", soft_wrap=True)
    summary = plan["summary"]
    console.print(
        f"VMs: {summary['vms']}; NICs to change: {summary['changes']}, blocked: {summary['blocked']}; "
        f"pool actions: {len(rows)}; disruptive: {summary['disruptive']}"
    )


def show_explanation(vm: VmPlan, source: str) -> None:
    """Print why each NIC of a VM is what it is and why each other candidate fell out."""
    console = _console()
    guest = f"{vm['guestOS']} ({source})" if source else vm["guestOS"]
    console.print(f"VM {vm['namespace']}/{vm['name']}, guest {guest}")
    for nic in vm["nics"]:
        console.print(f"\nNIC {nic['name']}: {nic['verdict']}" + (f" ({nic['reason']})" if nic["reason"] else ""))
        console.print(f"  now     {shape_words(nic['from'])}")
        console.print(f"  wanted  {shape_words(nic['to'])}" + (f" by policy {nic['policy']}" if nic["policy"] else ""))
        if nic["message"]:
            console.print(f"  why     {nic['message']}", soft_wrap=True)
        for candidate in nic["candidates"]:
            word = "chosen" if candidate["chosen"] else f"{candidate['reason']}: {candidate['message']}"
            console.print(f"  {candidate['datapath']:9} {word}", soft_wrap=True)


def show_capacity(rows: Iterable[PoolRow]) -> None:
    """Print the pools, each with its nodes below it."""
    table = _table("POOL", "NODE", "NUMA", "DESIRED", "CONFIGURED", "IN USE", "ASSIGNED", "RESERVED", "FREE")
    for row in rows:
        counts = (row.desired, row.configured, row.in_use, row.assigned, row.reserved, row.free)
        table.add_row(row.name, "", "", *map(str, counts))
        for node in row.nodes:
            numa = "" if node.numa is None else str(node.numa)
            table.add_row("", node.node, numa, str(node.desired), str(node.configured), str(node.in_use), "", "", "")
    _console().print(table)


def show_status(lines: Iterable[Line]) -> None:
    """Print what was looked at, and what to do about it."""
    table = _table("", "WHAT", "STATE", "NEXT STEP")
    for line in lines:
        mark = "ok" if line.ok and line.known else "??" if line.ok else "!!"
        table.add_row(mark, line.what, line.text, line.remedy)
    _console().print(table)


def show_nodes(states: Iterable[NodeNicState]) -> None:
    """Print the physical functions of nodes, what holds their VFs, and what is planned."""
    console = _console()
    table = _table("NODE", "PF", "NAME", "MODEL", "VFS", "DRIVER", "HELD BY", "POOL", "STATE")
    for state in states:
        pools = {pf.pci_address: ", ".join(group.pool for group in pf.groups) or pf.pool for pf in state.spec.pfs}
        released = {pf.pci_address: f"given up ({pf.release}), " for pf in state.spec.pfs if pf.release}
        for pf in state.status.pfs:
            held = ", ".join(f"{held.by or 'unknown'} {held.vf}" for held in pf.held)
            drivers = ", ".join(f"{part.range} {part.driver or 'none'}" for part in pf.vfs)
            pool = pools.get(pf.pci_address, "")
            count = f"{pf.num_vfs}/{pf.total_vfs}"
            row = (state.metadata.name, pf.pci_address, pf.name, pf.model, count, drivers, held, pool)
            table.add_row(*row, released.get(pf.pci_address, "") + _state(pf, pool))
    console.print(table)


def _state(pf: PfStatus, pool: str) -> str:
    if pf.problem is not None:
        return f"{pf.problem.reason}: {pf.problem.message}"
    if pf.plan is not None:
        blocked = f"; {', '.join(pf.plan.blocked_by)}" if pf.plan.blocked_by else ""
        return f"planned: {pf.plan.text}{blocked}"
    return "as desired" if pool else "in no pool"
