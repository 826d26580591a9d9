"""Makes `docs/reference/` from the models and the reasons: `python docs/make_reference.py DIRECTORY` (`make docs`)."""

from __future__ import annotations

import ast
import inspect
import json
import math
import pathlib
import re
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import yaml
from pydantic import TypeAdapter
from typer.core import TyperGroup
from typer.main import get_command

from vmnic.agent.metrics import AGENT_METRICS
from vmnic.api.crd import KINDS, render_crd
from vmnic.api.reasons import NodeReason, PfReason, PoolProblemReason, PoolReason
from vmnic.cli.app import app
from vmnic.cli.nodes import Nodes
from vmnic.cli.path_schema import PathDocument
from vmnic.cli.schema import DrainPlan, Plan, Survival
from vmnic.controller.metrics import CONTROLLER_METRICS
from vmnic.metrics import Metric
from vmnic.policy.condition_reasons import PolicyReason
from vmnic.policy.problems import ProblemReason
from vmnic.policy.reasons import Reason
from vmnic.records.record import record_schema

_DOCS = pathlib.Path(__file__).parent
_HELP_WIDTH = 110
"""Columns of the help texts, whatever terminal `make docs` runs in."""
REASONS: dict[str, type[StrEnum]] = {
    "Of a NIC (`kubectl vmnic explain`, `plan`, VmNicPolicy)": Reason,
    "Of a physical function (NodeNicState, SriovNetworkPool)": PfReason,
    "Of a pool (SriovNetworkPool)": PoolProblemReason,
    "Of a pool's conditions": PoolReason,
    "Of a node's conditions (NodeNicState)": NodeReason,
    "Of a policy's conditions (VmNicPolicy)": PolicyReason,
    "Of a plan's problems, beside those above (`kubectl vmnic plan`)": ProblemReason,
}
"""The enum behind each section of `reasons.md`."""


def render_pages() -> dict[str, str]:
    """Give every page by its file name."""
    pages = {f"{kind.__name__.lower()}.md": _page(kind) for kind in KINDS}
    pages["reasons.md"] = _reasons()
    pages["metrics.md"] = _metrics()
    pages["commands.md"] = _commands()
    pages["hostrecord.schema.json"] = json.dumps(record_schema(), indent=2) + "\n"
    pages["path.schema.json"] = json.dumps(TypeAdapter(PathDocument).json_schema(), indent=2) + "\n"
    for shape in (Plan, DrainPlan, Survival, Nodes):
        pages[f"{shape.__name__.lower()}.schema.json"] = json.dumps(TypeAdapter(shape).json_schema(), indent=2) + "\n"
    return pages


def _page(kind: Any) -> str:
    """Give a kind's page: `docs/kinds/KIND.md`, in which comments stand where the example and the fields go."""
    crd = render_crd(kind)
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    short = crd["spec"]["names"]["shortNames"][0]
    scope = (
        f"Cluster-wide; short name `{short}`." if crd["spec"]["scope"] == "Cluster" else f"Namespaced; short name `{short}`."
    )
    text = (_DOCS / "kinds" / f"{kind.__name__.lower()}.md").read_text()
    text = re.sub(r"<!-- example: (\S+) -->", lambda found: f"```yaml\n{_example(found[1])}\n```", text)
    text = text.replace("<!-- fields -->", "\n".join(_fields(schema)))
    return f"# {kind.__name__}\n\n{schema['description']}\n\n{scope}\n\n{text}"


def _fields(schema: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    if "spec" in schema["properties"]:
        spec = schema["properties"]["spec"]
        lines += ["## spec", "", "| field | type | default | meaning |", "|---|---|---|---|", *_rows(spec, "spec"), ""]
        refused = [f"- `{path}`: {message}" for path, message in _rules(spec, "spec")]
        lines += ["What is refused:", "", *refused, ""] if refused else []
    rows = _rows(schema["properties"]["status"], "status", defaults=False)
    return [*lines, "## status", "", "| field | type | meaning |", "|---|---|---|", *rows]


def _example(path: str) -> str:
    text = (_DOCS.parent / path).read_text()
    return text.removeprefix("---\n").rstrip("\n")


def _rows(schema: dict[str, Any], path: str, *, defaults: bool = True) -> list[str]:
    rows = []
    for name, field in schema.get("properties", {}).items():
        where = f"{path}.{name}"
        default = f"{_default(field, required=name in schema.get('required', ()))} | " if defaults else ""
        rows.append(f"| `{where}` | {_type(field)} | {default}{field.get('description', '')} |")
        inner = field.get("items", field)
        rows += _rows(inner, f"{where}[]" if "items" in field else where, defaults=defaults)
    return rows


def _default(field: dict[str, Any], *, required: bool) -> str:
    """What holds without the field; an object's defaults are those of its fields, which have rows of their own."""
    if required:
        return "*required*"
    if "default" not in field or "properties" in field:
        return ""
    return f"`{yaml.safe_dump(field['default'], default_flow_style=True, width=math.inf).splitlines()[0]}`"


def _type(field: dict[str, Any]) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if isinstance(field.get("additionalProperties"), dict):
        return f"map of {_type(field['additionalProperties'])}"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"] if value)
    if "maximum" in field:
        return f"integer, {field.get('minimum', 0)} to {field['maximum']}"
    return str(field.get("type", "object"))


def _rules(schema: dict[str, Any], path: str) -> Any:
    for rule in schema.get("x-kubernetes-validations", []):
        yield path + rule.get("fieldPath", ""), rule["message"]
    for name, field in schema.get("properties", {}).items():
        yield from _rules(field, f"{path}.{name}")


def _reasons() -> str:
    lines = ["# Reasons", "", "Every reason that vmnic gives, with its cause and what to do.", ""]
    for title, enum in REASONS.items():
        lines += [f"## {title}", "", "| reason | cause | what to do |", "|---|---|---|"]
        lines += [f"| {value} | {' | '.join(cause_and_remedy(text))} |" for value, text in member_docs(enum).items()]
        lines.append("")
    return "\n".join(lines)


def _metrics() -> str:
    lines = [
        "# Metrics",
        "",
        "What is listed here is what is served, no more and no less: a test scrapes real processes. Labels carry names of",
        "pools and policies, never of nodes or VMs. Beside these there are Prometheus' own `process_…` metrics.",
        "",
        "## Controller",
        "",
        "At `/metrics` of the metrics port (8081). Those marked *leader* are served by the leading replica alone.",
        "",
        *_metric_rows(CONTROLLER_METRICS),
        "",
        "## Agent",
        "",
        "At `/metrics` of `--metrics-address` (`VMNIC_METRICS_ADDRESS`, such as `127.0.0.1:9417`), which is empty unless it is",
        "set: agents use the host's network, where no NetworkPolicy applies.",
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


def _commands() -> str:
    lines = [
        "# kubectl vmnic",
        "",
        "What `--help` says of each command. `-o json` prints for programs. These have schemas:",
        "[plan](plan.schema.json), [nodes](nodes.schema.json), [path](path.schema.json), [drain-plan](drainplan.schema.json),",
        "[capacity --survive](survival.schema.json). After an error the exit code is 2, after a crash 3.",
        "`--nic-data FILE` ([NIC models](../nics.md)) and `--guest-data FILE` ([guest systems](../guests.md)) go before the",
        "command.",
    ]
    for name, command in _leaves(get_command(app), "kubectl vmnic"):
        context = command.context_class(command, info_name=name, terminal_width=_HELP_WIDTH)
        lines += ["", f"## {name}", "", "```text", command.get_help(context), "```"]
    return "\n".join(lines) + "\n"


def _leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Give the commands of a group by name, also those of groups in it."""
    if not isinstance(command, TyperGroup):
        yield name, command
        return
    for word, inner in sorted(command.commands.items()):
        yield from _leaves(inner, f"{name} {word}")


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
