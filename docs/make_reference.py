"""Makes `docs/reference/` from the models and the reasons: `python docs/make_reference.py DIRECTORY` (`make docs`)."""

from __future__ import annotations

import ast
import inspect
import json
import pathlib
import sys
from enum import StrEnum
from typing import Any

import yaml
from pydantic import TypeAdapter

from vmnic.agent.metrics import AGENT_METRICS
from vmnic.api.crd import KINDS, render_crd
from vmnic.cli.schema import Plan
from vmnic.controller.metrics import CONTROLLER_METRICS
from vmnic.metrics import Metric
from vmnic.nodes.state import PfReason
from vmnic.policy.reasons import Reason

_PAGES: dict[str, tuple[str, str]] = {
    "SriovNetworkPool": ("examples/pools/tenant-fast.yaml", "kubectl get snp"),
    "VmNicPolicy": ("examples/policies/tenants.yaml", "kubectl get vnp"),
    "NodeNicState": ("", "kubectl get nns"),
    "VmNicState": ("", "kubectl get vns -n NAMESPACE"),
}
_CONDITIONS: dict[str, list[tuple[str, str, str]]] = {
    "SriovNetworkPool": [
        (
            "Ready=True",
            "AllNodesReady, NoNodesMatched, WaitingForVMs",
            "Every node that is not legitimately waiting is as asked.",
        ),
        (
            "Ready=False",
            "RollingOut, Paused, NodesFailed, Conflict, Removing, NadExists, NadRefused",
            "Read `message`, then `status.problems`: each names the remedy.",
        ),
        ("UpToDate", "as Ready", "False also while VMs hold VFs that would go: stop or move them, the plan goes on by itself."),
        ("Reconciling", "RollingOut", "Nodes are changing or wait for their turn."),
        ("Stalled", "as Ready", "A person must act: a node failed or cannot be prepared."),
        ("Conflict", "Conflict", "An older pool has the function or the resource name: narrow one of the selectors."),
    ],
    "VmNicPolicy": [
        ("Ready", "Evaluated", "The policy was evaluated at `observedGeneration`."),
        ("Reconciling", "RollingOut, Settled", "With `existingVMs: Rolling`, VMs still have to be changed and restarted."),
        (
            "Stalled",
            "InvalidWindow, VmDidNotComeBack",
            "A person must act: the window cannot be understood, or a restarted VM does not run; no further VM is restarted.",
        ),
        (
            "Compliant",
            "AllCompliant, NotCompliant",
            "Whether every selected VM is as wanted; `status.problems` names the first ten NICs that are not.",
        ),
        (
            "Conflict",
            "Conflict",
            "Another policy of the same priority decides differently: give one of them another `spec.priority`.",
        ),
    ],
    "NodeNicState": [
        (
            "Ready",
            "AsDesired, PlanPending, Blocked, Degraded, NotSynced",
            "True: everything that pools ask of this node is done.",
        ),
        (
            "Degraded",
            "Degraded",
            "A function cannot be prepared, or a step failed; the message names function, step and errno.",
        ),
        ("Blocked", "WaitingForVMs", "A plan waits for the VMs that it names."),
        ("RolledBack", "RolledBack", "A change cut the node off and was undone; until the pool changes or a person approves."),
        ("Fenced", "Changing", "VFs are kept from pods while they are changed; seconds."),
    ],
}
POOL_REASONS: dict[str, tuple[str, str]] = {
    "Conflict": (
        "An older pool has the function, the range of VFs or the resource name.",
        "Narrow one of the selectors, or let both agree on `numVfs`, `mtu` and `queues`.",
    ),
    "WaitingForVMs": (
        "The plan would take VFs that somebody holds; the message names who.",
        "Stop or move them, or let `rollout.disruption: Drain` move the VMs.",
    ),
    "WaitingForApproval": (
        "With `rollout.disruption: Manual` a disruptive plan waits for a person.",
        "Read it with `kubectl vmnic nodes`, then `kubectl vmnic approve NODE`.",
    ),
    "Draining": ("VMs are leaving the node.", "Nothing; `rollout.drainTimeout` bounds it."),
    "NoVfsForDrain": (
        "VMs with VFs cannot be moved, since no other node has as many free ones.",
        "Free some, add nodes, or set `reserveForMigration` so that some stay free.",
    ),
    "NodeNotReady": ("The node is not ready, so nothing is begun on it.", "Bring the node back."),
    "NodeLost": (
        "The node has not been heard of for ten minutes, and its change failed or is unfinished; it counts as failed.",
        "Bring the node back, or delete its Node: the rollout goes on then.",
    ),
    "NadExists": (
        "A NetworkAttachmentDefinition of that name is there already and is not the pool's.",
        "Rename the network in the pool, or delete that object.",
    ),
    "NadInUse": (
        "A NetworkAttachmentDefinition that the pool no longer asks for is one that VMs refer to; the message names them.",
        "Give those VMs another network. It goes by itself then; the annotation `vmnic.dev/abandon` lets go at once.",
    ),
    "NadRefused": ("The API server refused the NetworkAttachmentDefinition.", "The message has its words."),
}
"""Problems of a pool that are no function's: cause and what to do."""


def render_pages() -> dict[str, str]:
    """Give every page by its file name."""
    pages = {f"{kind.__name__.lower()}.md": _page(kind) for kind in KINDS}
    pages["reasons.md"] = _reasons()
    pages["metrics.md"] = _metrics()
    pages["plan.schema.json"] = json.dumps(TypeAdapter(Plan).json_schema(), indent=2) + "\n"
    return pages


def _page(kind: Any) -> str:
    crd = render_crd(kind)
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    names = crd["spec"]["names"]
    example, command = _PAGES[kind.__name__]
    lines = [f"# {kind.__name__}", "", schema["description"], ""]
    scope = "Cluster-wide" if crd["spec"]["scope"] == "Cluster" else "In the VM's namespace"
    lines += [f"{scope}; short name `{names['shortNames'][0]}`; `{command}` lists them."]
    if example:
        lines += ["", "```yaml", _example(example), "```"]
    for part in ("spec", "status"):
        if part not in schema["properties"]:
            continue
        lines += ["", f"## {part}", "", "| field | type | default | meaning |", "|---|---|---|---|"]
        lines += _rows(schema["properties"][part], part)
    rules = list(_rules(schema["properties"].get("spec", {}), "spec"))
    if rules:
        lines += ["", "## What is refused", "", *(f"- `{path}`: {message}" for path, message in rules)]
    if kind.__name__ in _CONDITIONS:
        lines += ["", "## Conditions", "", "| condition | reasons | meaning and next step |", "|---|---|---|"]
        lines += [f"| {name} | {reasons} | {text} |" for name, reasons, text in _CONDITIONS[kind.__name__]]
    return "\n".join(lines) + "\n"


def _example(path: str) -> str:
    text = (pathlib.Path(__file__).parents[1] / path).read_text()
    return text.removeprefix("---\n").rstrip("\n")


def _rows(schema: dict[str, Any], path: str) -> list[str]:
    rows = []
    for name, field in schema.get("properties", {}).items():
        where = f"{path}.{name}"
        default = (
            "" if "default" not in field else f"`{yaml.safe_dump(field['default'], default_flow_style=True).split(chr(10))[0]}`"
        )
        rows.append(f"| `{where}` | {_type(field)} | {default} | {field.get('description', '')} |")
        inner = field.get("items", field)
        rows += _rows(inner, f"{where}[]" if "items" in field else where)
    return rows


def _type(field: dict[str, Any]) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if isinstance(field.get("additionalProperties"), dict):
        return f"map of {_type(field['additionalProperties'])}"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    return str(field.get("type", "object"))


def _rules(schema: dict[str, Any], path: str) -> Any:
    for rule in schema.get("x-kubernetes-validations", []):
        yield path + rule.get("fieldPath", ""), rule["message"]
    for name, field in schema.get("properties", {}).items():
        yield from _rules(field, f"{path}.{name}")


def _reasons() -> str:
    lines = ["# Reasons", "", "Every word that vmnic gives as a reason, with its cause and the remedy.", ""]
    for title, enum in (
        ("Of a NIC (`kubectl vmnic explain`, `plan`, VmNicPolicy)", Reason),
        ("Of a physical function (NodeNicState, SriovNetworkPool)", PfReason),
    ):
        lines += [f"## {title}", "", "| reason | cause | what to do |", "|---|---|---|"]
        lines += [f"| {value} | {' | '.join(cause_and_remedy(text))} |" for value, text in member_docs(enum).items()]
        lines.append("")
    lines += ["## Of a pool (SriovNetworkPool)", "", "| reason | cause | what to do |", "|---|---|---|"]
    lines += [f"| {value} | {cause} | {remedy} |" for value, (cause, remedy) in POOL_REASONS.items()]
    return "\n".join(lines) + "\n"


def _metrics() -> str:
    lines = [
        "# Metrics",
        "",
        "What is listed here is what is served, no more and no less: a test scrapes real processes. Labels carry names of",
        "pools and policies, never of nodes or VMs. Beside these there are Prometheus' own `process_…` metrics.",
        "",
        "## Controller",
        "",
        "At `/metrics` of the probe port (8080). Those marked *leader* are served by the leading replica alone.",
        "",
        *_metric_rows(CONTROLLER_METRICS),
        "",
        "## Agent",
        "",
        "At `/metrics` of `--metrics-address` (`VMNIC_METRICS_ADDRESS`, such as `127.0.0.1:9417`), which is empty unless it is",
        "set: agents use the host's network, where no NetworkPolicy keeps anybody away.",
        "",
        *_metric_rows(AGENT_METRICS),
    ]
    return "\n".join(lines) + "\n"


def _metric_rows(metrics: tuple[Metric, ...]) -> list[str]:
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for metric in metrics:
        labels = "; ".join(f"`{name}`: {text}" for name, text in metric.labels.items())
        leader = " *leader*" if metric.leader_only else ""
        rows.append(f"| `{metric.name}` | {metric.type} | {labels} | {metric.text}{leader} |")
    return rows


def cause_and_remedy(text: str) -> tuple[str, str]:
    """Split what a reason's docstring says: its first sentence is the cause, the rest is what to do."""
    cause, _, remedy = text.partition(". ")
    return cause.rstrip(".") + ".", remedy


def member_docs(enum: type[StrEnum]) -> dict[str, str]:
    """Give the docstring below each member of an enum, by the member's value."""
    tree = ast.parse(inspect.getsource(enum)).body[0]
    assert isinstance(tree, ast.ClassDef)
    docs = {}
    for member, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(member, ast.Assign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            assert isinstance(member.value, ast.Constant)
            docs[str(member.value.value)] = " ".join(str(text.value.value).split())
    return docs


if __name__ == "__main__":
    directory = pathlib.Path(sys.argv[1])
    for name, text in render_pages().items():
        (directory / name).write_text(text)
