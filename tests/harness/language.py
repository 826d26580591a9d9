"""Check the language of docstrings, comments, pages and test names (`make lint`)."""

from __future__ import annotations

import ast
import io
import pathlib
import re
import sys
import tokenize
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
LONGEST_LINE = 100
LONGEST_TEST_NAME = 60
VERBS = frozenset(
    """
    Accept Add Adopt Advance Advertise Allocate Allow Announce Answer Append Apply Approve Ask Assert Assign Attach
    Await Begin Bind Block Bound Bring Build Bypass Calculate Call Cancel Change Charge Check Choose Claim Clamp Clear
    Close Collect Combine Compare Compose Compute Configure Connect Consume Convert Copy Cordon Correct Count Create
    Cut Decide Decode Decrement Delete Deny Describe Detach Detect Determine Disable Discard Divide Drain Drop Dump
    Emit Enable Encode End Enqueue Ensure Enter Escape Estimate Evaluate Evict Exclude Execute Exit Expand Expire
    Explain Extend Fail Fence Fetch Fill Filter Find Finish Fit Fold Follow Forget Format Free Freeze Gather Generate
    Get Give Grant Group Guard Handle Hash Hide Hold Identify Ignore Import Include Increment Index Indicate Infer
    Inject Insert Install Invalidate Iterate Join Journal Keep Label Lead Let Limit Link List Listen Load Lock Log
    Look Make Map Mark Mask Match Measure Merge Migrate Mount Move Name Normalize Note Notify Observe Offer Omit Open
    Order Pad Parse Patch Pause Perform Pick Plan Poll Prefer Prepare Print Probe Prove Prune Publish Pull Push Put
    Query Queue Quote Raise Rank Read Rebuild Receive Reconcile Record Recover Reduce Refresh Refuse Register Reject
    Release Reload Remember Remove Rename Render Renew Repeat Replace Report Request Reserve Reset Resolve Restart
    Restore Resume Retry Return Revert Revoke Roll Rotate Round Run Sample Save Scale Schedule Select Send Separate
    Serve Set Settle Share Shorten Show Signal Simulate Skip Sleep Sort Split Start Stop Store Strip Submit Subtract
    Suspend Switch Sync Take Test Track Translate Trim Truncate Try Turn Uncordon Undo Unfence Unmount Update Use
    Validate Verify Visit Wait Wake Walk Warn Watch Withdraw Wrap Write Yield
    """.split()  # noqa: SIM905 - a list would take a line for each word
)
BANNED = re.compile(
    r"\b(anew|seldom|whoever|whatever|nobody|somebody|told|hears? of|befalls?|asked for no more|amid|afresh|hither|thereof|"
    r"whereupon|may be had|comes? back unasked|unasked|gives? in|given in|a look at)\b",
    re.IGNORECASE,
)
CODE = (
    *("agent", "api", "checked", "cli", "controller", "host", "kube", "kubevirt", "libvirt", "nodes", "policy"),
    *("inspection", "records", "simhost"),
)
"""Packages of `vmnic` whose docstrings and comments are held to the rules."""
PAGES = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "docs/*.md", "docs/kinds/*.md", "docs/runbooks/*.md")


def main() -> int:
    """Print every fault; return 1 if there is one."""
    faults = sorted({*code_faults(), *page_faults(), *test_faults()})
    for fault in faults:
        print(fault)
    return 1 if faults else 0


def code_faults() -> Iterator[str]:
    """Yield faults of docstrings and comments."""
    for package in CODE:
        for path in sorted((ROOT / "operator" / "vmnic" / package).rglob("*.py")):
            text, where = path.read_text(), path.relative_to(ROOT)
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    yield from docstring_faults(f"{where}:{getattr(node, 'lineno', 1)}", node)
            for token in tokenize.generate_tokens(io.StringIO(text).readline):
                if token.type in (tokenize.COMMENT, tokenize.STRING):
                    yield from banned_words(f"{where}:{token.start[0]}", re.sub(r"`[^`]*`|\{[^{}]*\}", " ", token.string))


def docstring_faults(where: str, node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Yield faults of the first line of a docstring."""
    text = ast.get_docstring(node)
    if not text:
        return
    first = text.splitlines()[0]
    plain = re.sub(r"`[^`]*`", "", first)
    if len(first) > LONGEST_LINE:
        yield f"{where}: the first line has {len(first)} characters, at most {LONGEST_LINE} are allowed"
    if ";" in plain or ":" in plain:
        yield f"{where}: the first line has more than one clause: move the second one to a line of its own"
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and first.split()[0].rstrip(",.") not in VERBS:
        yield f"{where}: the first line begins with {first.split()[0]!r}, not with a verb such as `Return`"
    if len(text.splitlines()) > 1 and text.splitlines()[1].strip():
        yield f"{where}: a blank line must follow the first line"


def page_faults() -> Iterator[str]:
    """Yield faults of the pages, except in blocks of code."""
    for pattern in PAGES:
        for path in sorted(ROOT.glob(pattern)):
            is_code = False
            for number, line in enumerate(path.read_text().splitlines(), 1):
                is_code ^= line.lstrip().startswith("```")
                if not is_code:
                    yield from banned_words(f"{path.relative_to(ROOT)}:{number}", re.sub(r"`[^`]*`", "", line))


def banned_words(where: str, text: str) -> Iterator[str]:
    """Yield words that the field does not use."""
    yield from (f"{where}: write {found[0]!r} in the field's words" for found in BANNED.finditer(text))


def test_faults() -> Iterator[str]:
    """Yield names of tests that are too long."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_function and node.name.startswith("test_") and len(node.name) > LONGEST_TEST_NAME:
                where = f"{path.relative_to(ROOT)}:{node.lineno}"
                yield f"{where}: {node.name} has {len(node.name)} characters, at most {LONGEST_TEST_NAME}"


if __name__ == "__main__":
    sys.exit(main())
