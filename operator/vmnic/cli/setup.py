"""Checks of vmnic's prerequisites. Pure.

An object that the user may not read is reported as such, never as absent. Nothing is written. The KubeVirt resource belongs to
another owner, so the required entries are printed for that owner.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..api.crd import KINDS, render_crd
from ..api.node_state import NodeNicState
from ..api.reasons import PfReason
from ..nodes.state import group_of
from ..policy.facts import INJECTION_GATE, KubeVirtFacts
from .objects import Objects
from .offline import Decided
from .set_aside import reason_of

__all__ = ["Line", "Setup", "setup_lines"]

_MODULES = ("vhost_net", "tun")
"""Modules that a virtio NIC needs on its node, regardless of the pools."""
_PCI_ID = re.compile(r"[0-9a-f]{4}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Result of one check."""

    ok: bool
    what: str
    text: str
    remedy: str = ""
    known: bool = True
    """False if the user may not read it. Then nothing is concluded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is installed in the cluster. None stands for what the user may not read."""

    daemons: tuple[str, ...] | None = None
    """Names and images of all DaemonSets."""
    definitions: Mapping[str, Mapping[str, Any]] | None = None
    """vmnic's CustomResourceDefinitions by name."""
    webhook: Mapping[str, Any] | None = None
    """The MutatingWebhookConfiguration `vmnic`; empty if it does not exist."""
    refusals: tuple[str, ...] = field(default_factory=tuple)
    """Descriptions of what the user may not read."""


def setup_lines(objects: Objects, decided: Decided, setup: Setup) -> Iterator[Line]:
    """Check all prerequisites of pools and policies."""
    # What is unknown is no fault, so it does not change the exit code.
    refusals = dict.fromkeys((*setup.refusals, *objects.refused.values()))
    yield from (Line(ok=True, known=False, what="rights", text=text) for text in refusals)
    yield from _guarded("CRDs", lambda: _definitions(setup))
    yield from _guarded("webhook", lambda: _webhook(setup))
    yield from _guarded("modules", lambda: _modules(objects.node_states))
    yield from _guarded("foreign owners", lambda: _foreign(objects.node_states, setup))
    yield from _guarded("KubeVirt", lambda: _kubevirt(objects, decided))
    if objects.kubevirts:
        yield from _guarded("networks", lambda: _network_parts(objects, decided, setup))


def _guarded(what: str, look: Callable[[], Iterable[Line]]) -> list[Line]:
    """Run one check. A malformed object affects only the lines of this check."""
    try:
        return list(look())
    except Exception as error:
        remedy = "read the object with kubectl get -o yaml and correct it"
        return [Line(ok=False, what=what, text=f"cannot be judged: {reason_of(error)}", remedy=remedy)]


def _definitions(setup: Setup) -> Iterator[Line]:
    if setup.definitions is None:
        return
    lacking, absent = [], []
    for kind in KINDS:
        ours = render_crd(kind)
        found = setup.definitions.get(ours["metadata"]["name"])
        if found is None:
            absent.append(kind.__name__)
        else:
            lacking += [f"{kind.__name__} {path}" for path in sorted(set(_fields(ours)) - set(_fields(found)))]
    if absent or lacking:
        text = f"not there: {', '.join(absent)}" if absent else f"older than this program and without {', '.join(lacking[:3])}"
        yield Line(ok=False, what="CRDs", text=text, remedy="kubectl apply --server-side -k crds")
    else:
        yield Line(ok=True, what="CRDs", text="up to date with this program")


def _fields(definition: Mapping[str, Any]) -> Iterator[str]:
    """Yield the paths of all fields of a definition's newest version."""

    def walk(schema: Mapping[str, Any], path: str) -> Iterator[str]:
        for name, inner in (schema.get("properties") or {}).items():
            yield f"{path}.{name}".lstrip(".")
            yield from walk(inner.get("items") or inner, f"{path}.{name}")

    yield from walk(definition["spec"]["versions"][-1]["schema"]["openAPIV3Schema"], "")


def _webhook(setup: Setup) -> Iterator[Line]:
    if setup.webhook is None:
        return
    hooks = setup.webhook.get("webhooks") or []
    untrusted = [one["name"] for one in hooks if not one["clientConfig"].get("caBundle")]
    if not hooks:
        text = "missing: new VMs are patched only after their creation"
        yield Line(ok=False, what="webhook", text=text, remedy="install deploy/overlays/default or the Helm chart again")
    elif untrusted:
        text = f"{untrusted[0]} has no caBundle, so the API server does not call it"
        # The controller's authority is written at run time, so a manifest without `caBundle` is normal at first.
        yield Line(
            ok=False, what="webhook", text=text, remedy="the leading controller writes it within seconds: check that one runs"
        )
    else:
        yield Line(ok=True, what="webhook", text="configured and trusted")


def _modules(states: Mapping[str, NodeNicState]) -> Iterator[Line]:
    missing: dict[str, list[str]] = {}
    unknown: dict[str, list[str]] = {}
    for name, state in sorted(states.items()):
        # Without a boot ID the agent has not reported yet, so nothing is known to be missing.
        wanted = {*_MODULES, *state.spec.host.modules} if state.status.boot_id else set()
        if any(pf.vfio for pf in state.spec.pfs):
            wanted.add("vfio_pci")
        for module in sorted(wanted - set(state.status.host.modules)):
            found = unknown if module in state.status.host.modules_unknown else missing
            found.setdefault(module, []).append(name)
    for module, nodes in missing.items():
        refused = {text for name in nodes for text in states[name].status.host.refused if module in text}
        why = f" ({'; '.join(sorted(refused))})" if refused else ""
        remedy = "load it at boot (/etc/modules-load.d), or let the agent's init container do it"
        yield Line(ok=False, what=f"module {module}", text=f"missing on {_some(nodes)}{why}", remedy=remedy)
    for module, nodes in unknown.items():
        text = f"the agent of {_some(nodes)} could not read whether it is there"
        yield Line(ok=True, known=False, what=f"module {module}", text=text)
    if states and not missing and not unknown:
        yield Line(ok=True, what="modules", text="loaded on every node")


def _foreign(states: Mapping[str, NodeNicState], setup: Setup) -> Iterator[Line]:
    found = [
        f"{name} {pf.pci_address}: {pf.problem.message}"
        for name, state in sorted(states.items())
        for pf in state.status.pfs
        if pf.problem is not None and pf.problem.reason is PfReason.FOREIGN_OWNER
    ]
    if found:
        remedy = "remove these NICs from the pool or from the other program (docs/migrate.md)"
        yield Line(ok=False, what="foreign owners", text=_some(found), remedy=remedy)
    elif _has(setup, "sriov-network-config-daemon"):
        text = "sriov-network-operator is there too: NICs that it manages are left alone"
        yield Line(ok=True, what="foreign owners", text=text)


def _kubevirt(objects: Objects, decided: Decided) -> Iterator[Line]:
    facts: KubeVirtFacts = decided.cluster.kubevirt
    if not objects.kubevirts and facts.unreadable:
        yield Line(ok=True, known=False, what="KubeVirt", text=facts.unreadable)
        return
    if not objects.kubevirts:
        remedy = "install KubeVirt, or ignore this on libvirt nodes"
        yield Line(ok=False, what="KubeVirt", text="there is no KubeVirt resource", remedy=remedy)
        return
    plugins = ", ".join(sorted(facts.plugins)) or "none"
    gates = ", ".join(sorted(facts.gates)) or "none"
    text = f"{_version(facts)}, network binding plugins: {plugins}, feature gates: {gates}"
    yield Line(ok=True, what="KubeVirt", text=text)
    physical = sorted(pool.resource_name for pool in decided.cluster.pools.values() if pool.physical)
    if physical and "HostDevices" not in facts.gates:
        remedy = "add it to spec.configuration.developerConfiguration.featureGates of the KubeVirt resource"
        yield Line(ok=False, what="feature gate HostDevices", text="off, and a Physical pool needs it", remedy=remedy)
    for name, pool in sorted(decided.cluster.pools.items()):
        if pool.physical:
            for resource in pool.resource_names:
                yield _permitted(resource, facts, _ids(objects.node_states.values(), name))


def _version(facts: KubeVirtFacts) -> str:
    """Describe KubeVirt's version, and the one that is being installed if that is higher."""
    running, highest = facts.version, facts.highest_version
    if highest is None:
        # The resource of a new KubeVirt names no version until virt-operator has finished.
        return "1.8 assumed, because its status names no version"
    words = [] if running is None else [f"{running[0]}.{running[1]}"]
    words += [] if running == highest else [f"{highest[0]}.{highest[1]} is being installed"]
    return ", ".join(words)


def _permitted(resource: str, facts: KubeVirtFacts, ids: Sequence[str]) -> Line:
    what = f"permittedHostDevices {resource}"
    if facts.permitted.get(resource):
        return Line(ok=True, what=what, text="listed")
    entries = "".join(
        f'\n- {{pciVendorSelector: "{one}", resourceName: {resource}, externalResourceProvider: true}}'
        for one in ids or ("VENDOR:DEVICE",)
    )
    remedy = f"add to spec.configuration.permittedHostDevices.pciHostDevices of the KubeVirt resource:{entries}"
    return Line(ok=False, what=what, text="not listed with externalResourceProvider", remedy=remedy)


def _ids(states: Iterable[NodeNicState], pool: str) -> list[str]:
    """Return the vendor and device IDs of a pool's functions."""
    found = set()
    for state in states:
        mine = {pf.pci_address for pf in state.spec.pfs if group_of(pf, pool) is not None}
        # A person pastes the IDs into the KubeVirt resource. They come from agents, so only well-formed ones are shown.
        found |= {
            f"{pf.vendor}:{pf.device}"
            for pf in state.status.pfs
            if pf.pci_address in mine and _PCI_ID.fullmatch(pf.vendor) and _PCI_ID.fullmatch(pf.device)
        }
    return sorted(found)


def _network_parts(objects: Objects, decided: Decided, setup: Setup) -> Iterator[Line]:
    """Check the network components that pools and policies need.

    These are Multus, sriov-cni, network-resources-injector and macvtap.
    """
    facts = decided.cluster.kubevirt
    virtual = sorted(name for name, pool in decided.cluster.pools.items() if not pool.physical)
    macvtap = sorted(name for name, one in objects.policies.items() if "macvtap" in one.spec.datapaths)
    if virtual or macvtap:
        yield from _daemon(
            setup, "multus", "Multus", f"pools and policies need secondary networks: {_some(virtual or macvtap)}"
        )
    if virtual:
        yield from _daemon(setup, "sriov-cni", "sriov-cni", f"VMs with VFs of {_some(virtual)} need it on their nodes")
    if macvtap:
        registered = "macvtap" in facts.plugins
        text = "registered" if registered else f"not registered, and needed by policy {_some(macvtap)}"
        remedy = "" if registered else "add it to spec.configuration.network.binding of the KubeVirt resource"
        yield Line(ok=registered, what="binding plugin macvtap", text=text, remedy=remedy)
    # With the gate off, virt-controller itself adds the resource to the VM's pod.
    if INJECTION_GATE in facts.gates and (virtual or macvtap):
        yield _injector(facts)


def _injector(facts: KubeVirtFacts) -> Line:
    what, lost = "network-resources-injector", "KubeVirt depends on it: without it, pods of VMs with VFs get no device"
    if facts.injector is None:
        return Line(ok=True, known=False, what=what, text=f"not known, and {lost}")
    if facts.injector:
        return Line(ok=True, what=what, text="there")
    remedy = f"install it, or disable the gate {INJECTION_GATE}"
    return Line(ok=False, what=what, text=f"missing, and {lost}", remedy=remedy)


def _daemon(setup: Setup, word: str, what: str, why: str) -> Iterator[Line]:
    if setup.daemons is None:
        return
    if _has(setup, word):
        yield Line(ok=True, what=what, text="a DaemonSet installs it")
    else:
        text = f"no DaemonSet installs it; {why}"
        yield Line(ok=False, what=what, text=text, remedy="install it, or ignore this if the nodes get it in another way")


def _has(setup: Setup, word: str) -> bool:
    return any(word in name for name in setup.daemons or ())


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
