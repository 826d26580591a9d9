"""A plan as one HTML page, with decisions, capacity and the paths of packets.

The page needs no script, no other file and no network. Names and messages are untrusted text, and `escape_text` is the only
way into the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .capacity import PoolRow, capacity_cells
from .format import guest_lines, guest_words, path_title, pool_words, shape_words, vm_name
from .path_schema import PathDocument
from .schema import Plan
from .svg import STYLE, escape_text, render_paths

__all__ = ["render_page"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What a browser may load for the page: nothing."""
_STYLE = (
    "body{font-family:system-ui,'Segoe UI',Helvetica,'DejaVu Sans',sans-serif;margin:2em;color:#1f2328;background:#fff}"
    "table{border-collapse:collapse;margin:.5em 0 1.5em}"
    "th,td{border:1px solid #d1d9e0;padding:.3em .6em;text-align:left;vertical-align:top;overflow-wrap:anywhere}"
    "th{background:#f6f8fa}caption{text-align:left;font-weight:600;padding:.3em 0}"
    "figure{margin:1em 0;overflow-x:auto}code{background:#f6f8fa}"
    ".Change{background:#fff8c5}.Blocked{background:#ffebe9}"
)


def render_page(plan: Plan, capacity: Iterable[PoolRow], paths: Sequence[PathDocument]) -> list[str]:
    """Render a plan as a page.

    Args:
        plan: The plan.
        capacity: Counts of the pools.
        paths: Paths of VMs of the plan.
    """
    summary = plan["summary"]
    counts = (
        f"VMs: {summary['vms']}; NICs to change: {summary['changes']}, blocked: {summary['blocked']}; "
        f"disruptive: {summary['disruptive']}"
    )
    return [
        "<!DOCTYPE html>",
        "<html lang='en'>",
        "<head>",
        "<meta charset='utf-8'>",
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        "<title>vmnic plan</title>",
        f"<style>{_STYLE}{STYLE}</style>",
        "</head>",
        "<body>",
        "<h1>vmnic plan</h1>",
        f"<p>{counts}</p>",
        *_problems(plan),
        *_decisions(plan),
        *_pools(plan),
        *_table("Capacity", *capacity_cells(capacity)),
        *_pictures(plan, paths),
        "</body>",
        "</html>",
    ]


def _problems(plan: Plan) -> Iterable[str]:
    rows = [(one["object"] or "input", one["reason"], one["message"]) for one in plan["problems"]]
    return _table("Problems", ("object", "reason", "message"), rows)


def _decisions(plan: Plan) -> Iterable[str]:
    nics = [(vm, nic) for vm in plan["vms"] for nic in vm["nics"]]
    rows = [
        (
            *(vm_name(vm), nic["name"], shape_words(nic["from"]), shape_words(nic["to"]), nic["verdict"], nic["action"]),
            *(nic["policy"] or "", ": ".join(filter(None, (nic["reason"], nic["message"]))), guest_words(nic)),
        )
        for vm, nic in nics
    ]
    columns = ("VM", "NIC", "now", "wanted", "verdict", "action", "policy", "why", "the guest will see")
    yield from _table("Decisions", columns, rows, marks=[nic["verdict"] for _, nic in nics])
    excluded = [
        (vm_name(vm), nic["name"], one["datapath"], one.get("reason", ""), one.get("message", ""))
        for vm, nic in nics
        for one in nic["candidates"]
        if not one["chosen"]
    ]
    yield from _table("Datapaths that are excluded", ("VM", "NIC", "datapath", "reason", "message"), excluded)
    yield from _table("Commands to run in guests after the change", ("VM", "command"), guest_lines(plan))


def _pools(plan: Plan) -> Iterable[str]:
    rows = [
        (pool["name"], node["node"], node["pf"], pool_words(node), ", ".join(node["blockedBy"]))
        for pool in plan["pools"]
        for node in pool["nodes"]
    ]
    return _table("Pools", ("pool", "node", "PF", "plan", "blocked by"), rows)


def _table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, marks: Sequence[str] | None = None
) -> Iterable[str]:
    """Yield a table, or nothing if it has no rows. A mark is the class of a row and is never untrusted."""
    if not rows:
        return
    yield "<table>"
    yield f"<caption>{escape_text(title)}</caption>"
    yield "<thead><tr>" + "".join(f"<th scope='col'>{escape_text(one)}</th>" for one in columns) + "</tr></thead>"
    yield "<tbody>"
    for number, row in enumerate(rows):
        mark = f" class='{marks[number]}'" if marks is not None else ""
        yield f"<tr{mark}>" + "".join(f"<td>{escape_text(cell)}</td>" for cell in row) + "</tr>"
    yield "</tbody>"
    yield "</table>"


def _pictures(plan: Plan, paths: Sequence[PathDocument]) -> Iterable[str]:
    if not paths:
        return
    yield "<h2>Path of a packet</h2>"
    for document in paths:
        yield "<figure>"
        yield f"<figcaption>{escape_text(path_title(document))}</figcaption>"
        yield from render_paths(document)
        yield "</figure>"
    # A pool of VMs has no VM yet, and so no path.
    more = sum(vm["kind"] != "VirtualMachinePool" for vm in plan["vms"]) - len(paths)
    if more:
        yield f"<p>{more} more VMs are left out. <code>kubectl vmnic path vm</code> shows one.</p>"
