"""`kubectl vmnic status`: is everything as asked, and is what vmnic stands on there? Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..api.common import Condition
from ..nodes.state import NodeNicState
from ..policy.facts import KubeVirtFacts
from .decide import Decided
from .objects import Objects

__all__ = ["Line", "status_lines"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that was looked at."""

    ok: bool
    what: str
    text: str
    remedy: str = ""


def status_lines(objects: Objects, decided: Decided, missing: list[str]) -> list[Line]:
    """Look at pools, policies, nodes and prerequisites.

    Args:
        objects: What the cluster has.
        decided: What the policies make of it.
        missing: Kinds that the cluster does not know, in words.
    """
    lines = [_pool(name, pool.status.conditions) for name, pool in sorted(objects.pools.items())]
    lines += [_policy(name, policy.status.conditions) for name, policy in sorted(objects.policies.items())]
    lines += [_node(name, state) for name, state in sorted(objects.node_states.items())]
    lines += [Line(ok=False, what="prerequisite", text=text) for text in missing]
    return lines + _prerequisites(objects, decided)


def _condition(conditions: list[Condition], kind: str) -> Condition | None:
    return next((one for one in conditions if one.type == kind), None)


def _pool(name: str, conditions: list[Condition]) -> Line:
    ready = _condition(conditions, "Ready")
    if ready is None:
        return Line(ok=False, what=f"pool {name}", text="not looked at yet", remedy="is the controller running?")
    return Line(ok=ready.status == "True", what=f"pool {name}", text=f"{ready.reason}: {ready.message}")


def _policy(name: str, conditions: list[Condition]) -> Line:
    ready, stalled, compliant = (_condition(conditions, kind) for kind in ("Ready", "Stalled", "Compliant"))
    if ready is None or compliant is None:
        return Line(ok=False, what=f"policy {name}", text="not looked at yet", remedy="is the controller running?")
    if stalled is not None and stalled.status == "True":
        return Line(ok=False, what=f"policy {name}", text=f"{stalled.reason}: {stalled.message}")
    remedy = "" if compliant.status == "True" else f"kubectl get vnp {name} -o yaml names the first VMs"
    return Line(ok=ready.status == compliant.status == "True", what=f"policy {name}", text=compliant.message, remedy=remedy)


def _node(name: str, state: NodeNicState) -> Line:
    ready = next((one for one in state.status.conditions if one.type == "Ready"), None)
    if ready is None:
        return Line(ok=False, what=f"node {name}", text="its agent has not reported yet", remedy="is the agent's pod running?")
    return Line(ok=ready.status == "True", what=f"node {name}", text=f"{ready.reason}: {ready.message}".rstrip(": "))


def _prerequisites(objects: Objects, decided: Decided) -> list[Line]:
    kubevirt: KubeVirtFacts = decided.cluster.kubevirt
    if not objects.kubevirts:
        return [
            Line(
                ok=False,
                what="KubeVirt",
                text="there is no KubeVirt resource",
                remedy="install KubeVirt, or ignore this on libvirt nodes",
            )
        ]
    major, minor = kubevirt.version
    lines = [
        Line(
            ok=True,
            what="KubeVirt",
            text=f"{major}.{minor}, network binding plugins: {', '.join(sorted(kubevirt.plugins)) or 'none'}",
        )
    ]
    if "ExternalNetResourceInjection" in kubevirt.gates:
        text = "there" if kubevirt.injector else "missing: pods of VMs with VFs get no device"
        lines.append(
            Line(
                ok=bool(kubevirt.injector),
                what="network-resources-injector",
                text=text,
                remedy="" if kubevirt.injector else "install it, or disable the gate",
            )
        )
    physical = [pool for pool in decided.cluster.pools.values() if pool.physical]
    return [*lines, *(_permitted(pool.resource_name, kubevirt) for pool in physical)]


def _permitted(resource: str, kubevirt: KubeVirtFacts) -> Line:
    """A whole NIC needs an entry in the KubeVirt resource, which vmnic never writes."""
    snippet = f'{{pciVendorSelector: "VENDOR:DEVICE", resourceName: {resource}, externalResourceProvider: true}}'
    if kubevirt.permitted.get(resource):
        return Line(ok=True, what=f"permittedHostDevices {resource}", text="listed")
    remedy = f"add to spec.configuration.permittedHostDevices.pciHostDevices of the KubeVirt resource: {snippet}"
    return Line(
        ok=False, what=f"permittedHostDevices {resource}", text="not listed with externalResourceProvider", remedy=remedy
    )
