"""A plan as Markdown for a pull request.

Names and messages are untrusted text and are never interpreted.
"""

from __future__ import annotations

import re

from ..checked.printable import cut, printable
from .format import guest_lines, guest_words, pool_words, shape_words, vm_name
from .schema import Plan, ProblemEntry

__all__ = ["escape_markdown", "render_markdown"]

_MOST_BYTES = 1024
"""Maximum size of a cell."""
_PLAIN = re.compile(r"[A-Za-z0-9 .,;()='\"/:+_-]*", re.ASCII)
_SPECIAL = re.compile(r"://|www\.|:[\w+-]+:|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|\bGH-[0-9]", re.ASCII | re.IGNORECASE)
"""Text that GitHub turns into a link, an emoji, emphasis or a reference, although each of its characters is plain."""


def render_markdown(plan: Plan) -> list[str]:
    """Render a plan as Markdown.

    It has a summary line, a table of NICs that differ from their policy or have a reason, a table of pools, the commands for
    guests, and the problems.
    """
    summary = plan["summary"]
    rows = [
        _row(
            *(vm_name(vm), nic["name"], shape_words(nic["from"]), shape_words(nic["to"])),
            *(nic["verdict"], nic["action"], nic["message"], guest_words(nic)),
        )
        for vm in plan["vms"]
        for nic in vm["nics"]
        if nic["verdict"] in ("Change", "Blocked") or (nic["verdict"] == "Compliant" and nic["reason"])
    ]
    pools = [
        _row(pool["name"], node["node"], node["pf"], pool_words(node), ", ".join(node["blockedBy"]))
        for pool in plan["pools"]
        for node in pool["nodes"]
    ]
    counts = (
        f"VMs: {summary['vms']}; **NICs to change: {summary['changes']}**, blocked: {summary['blocked']}; "
        f"disruptive: {summary['disruptive']}"
    )
    lines = ["### vmnic plan", "", counts]
    if rows:
        lines += [
            "",
            "| VM | NIC | now | wanted | verdict | action | why | the guest will see |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
        ]
    if pools:
        lines += ["", "| pool | node | PF | plan | blocked by |", "|---|---|---|---|---|", *pools]
    commands = [f"- {_code(name)}: after the change, run in the guest: {_code(command)}" for name, command in guest_lines(plan)]
    if commands:
        lines += ["", *commands]
    if plan["problems"]:
        lines += ["", *map(_problem, plan["problems"])]
    return lines


def _problem(problem: ProblemEntry) -> str:
    where, reason, message = problem["object"] or "input", problem["reason"], problem["message"]
    return f"- {_code(where)} {escape_markdown(reason)}: {escape_markdown(message)}"


def _row(*cells: str) -> str:
    return "| " + " | ".join(map(escape_markdown, cells)) + " |"


def escape_markdown(text: str) -> str:
    """Escape text so that it shows literally in a cell of a table or in a line.

    Plain text stays as it is, other text becomes code. In code nothing is interpreted: no HTML, link, image, emphasis, mention,
    reference or emoji. A `|` would end the cell even there, so it is shown as an escape sequence, as control characters and
    line
    ends are.
    """
    text = cut(text, _MOST_BYTES)
    return text if _PLAIN.fullmatch(text) and not _SPECIAL.search(text) else _code(text)


def _code(text: str) -> str:
    text = printable(cut(text, _MOST_BYTES)).replace("|", "\\x7c")
    # A code span ends at the first run of as many backticks as it began with, so the fence is longer than any run inside.
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    # A backtick next to the fence would lengthen it. Markdown strips one blank on each side.
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}" if text.strip() else "` `"
