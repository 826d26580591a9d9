"""Status of everything that vmnic manages, and of its prerequisites. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from ..api.common import Condition
from ..api.node_state import NodeNicState
from ..api.policy import PolicyStatus
from .objects import Objects
from .offline import Decided
from .set_aside import SetAside
from .setup import Line, Setup, setup_lines

__all__ = ["merge_set_aside", "status_lines", "wire_status"]


def status_lines(objects: Objects, decided: Decided, setup: Setup, missing: list[str]) -> list[Line]:
    """Check pools, policies, nodes and prerequisites.

    Args:
        objects: Objects of the cluster.
        decided: Decisions about them.
        setup: What is installed in the cluster.
        missing: Descriptions of kinds that the cluster does not have.
    """
    lines = [_pool(name, pool.status.conditions) for name, pool in sorted(objects.pools.items())]
    lines += [_policy(name, policy.status) for name, policy in sorted(objects.policies.items())]
    lines += [_node(name, state) for name, state in sorted(objects.node_states.items())]
    lines += [Line(ok=False, what="prerequisite", text=text) for text in missing]
    return lines + list(setup_lines(objects, decided, setup))


def merge_set_aside(*sources: Iterable[SetAside]) -> list[SetAside]:
    """Return each object once, as in the first source that has it, in a stable order."""
    found: dict[tuple[str, str, str], SetAside] = {}
    for one in (one for source in sources for one in source):
        found.setdefault((one.kind, one.namespace, one.name), one)
    return [found[key] for key in sorted(found)]


def wire_status(lines: Iterable[Line], set_aside: Iterable[SetAside]) -> dict[str, Any]:
    """Return the status for `-o json`."""
    fields = ("kind", "namespace", "name", "reason", "message")
    return {
        "apiVersion": "cli.vmnic.dev/v1alpha1",
        "kind": "Status",
        "checks": [asdict(line) for line in lines],
        "setAside": [{field: getattr(one, field) for field in fields} for one in set_aside],
    }


def _condition(conditions: list[Condition], kind: str) -> Condition | None:
    return next((one for one in conditions if one.type == kind), None)


def _pool(name: str, conditions: list[Condition]) -> Line:
    ready = _condition(conditions, "Ready")
    if ready is None:
        return Line(ok=False, what=f"pool {name}", text="not reconciled yet", remedy="is the controller running?")
    return Line(ok=ready.status == "True", what=f"pool {name}", text=f"{ready.reason}: {ready.message}")


def _policy(name: str, status: PolicyStatus) -> Line:
    ready, stalled, compliant = (_condition(status.conditions, kind) for kind in ("Ready", "Stalled", "Compliant"))
    # A policy that cannot be read may have no other condition.
    if stalled is not None and stalled.status == "True":
        return Line(ok=False, what=f"policy {name}", text=f"{stalled.reason}: {stalled.message}")
    if ready is None or compliant is None:
        return Line(ok=False, what=f"policy {name}", text="not reconciled yet", remedy="is the controller running?")
    ok = ready.status == compliant.status == "True" and not status.vms.at_risk
    remedy = "" if ok else f"kubectl get vnp {name} -o yaml names the first VMs"
    return Line(ok=ok, what=f"policy {name}", text=compliant.message, remedy=remedy)


def _node(name: str, state: NodeNicState) -> Line:
    ready = next((one for one in state.status.conditions if one.type == "Ready"), None)
    if ready is None:
        return Line(ok=False, what=f"node {name}", text="its agent has not reported yet", remedy="is the agent's pod running?")
    return Line(ok=ready.status == "True", what=f"node {name}", text=f"{ready.reason}: {ready.message}".rstrip(": "))
