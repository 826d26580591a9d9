"""A plan as Markdown, for a pull request."""

from __future__ import annotations

from .schema import Plan
from .words import shape_words, vm_name

__all__ = ["render_markdown"]


def render_markdown(plan: Plan) -> str:
    """Write a plan: one line that sums it up, a table of NICs that are not as wanted, one of pools, and the problems."""
    summary = plan["summary"]
    rows = [
        f"| {vm_name(vm)} | {nic['name']} | {shape_words(nic['from'])} | {shape_words(nic['to'])} | {nic['verdict']} "
        f"| {nic['action']} | {_cell(nic['message'])} |"
        for vm in plan["vms"]
        for nic in vm["nics"]
        if nic["verdict"] in ("Change", "Blocked")
    ]
    pools = [
        f"| {pool['name']} | {node['node']} | {node['pf']} | {_cell(', '.join(node['actions']))} "
        f"| {_cell(', '.join(node['blockedBy']))} |"
        for pool in plan["pools"]
        for node in pool["nodes"]
    ]
    counts = (
        f"VMs: {summary['vms']}; **NICs to change: {summary['changes']}**, blocked: {summary['blocked']}; "
        f"disruptive: {summary['disruptive']}"
    )
    lines = ["### vmnic plan", "", counts]
    if rows:
        lines += ["", "| VM | NIC | now | wanted | verdict | action | why |", "|---|---|---|---|---|---|---|", *rows]
    if pools:
        lines += ["", "| pool | node | PF | plan | blocked by |", "|---|---|---|---|---|", *pools]
    if plan["problems"]:
        lines += ["", *(f"- `{one['object'] or 'input'}` {one['reason']}: {one['message']}" for one in plan["problems"])]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
