"""A decision becomes a JSON Patch of the VirtualMachine.

KubeVirt's interface list is atomic, so a merge patch would replace all of it. Each change therefore tests first that the entry
at its index is still the one that was decided on; where it is not, the API server answers 422 and the VM is decided anew.
"""

from __future__ import annotations

from typing import Any

from ..policy.engine import Action, NicDecision, VmDecision
from ..policy.facts import Datapath, VmFacts

__all__ = ["render_patch"]

_SPEC = "/spec/template/spec"
_INTERFACES = f"{_SPEC}/domain/devices/interfaces"
_MULTIQUEUE = f"{_SPEC}/domain/devices/networkInterfaceMultiqueue"


def render_patch(decision: VmDecision) -> list[dict[str, Any]]:
    """Give the operations that make a VM as decided; empty where nothing is to be patched."""
    patched = [nic for nic in decision.nics if nic.action is Action.PATCH]
    operations = [
        operation
        for nic in patched
        if nic.wanted.model != nic.nic.present.model
        for operation in (_explicit(nic) if nic.nic.index is None else _change(nic, nic.nic.index))
    ]
    queues = {nic.wanted.queues for nic in patched if nic.wanted.datapath is Datapath.VHOST}
    if queues and queues != {decision.vm.virtio_queues}:
        operations += _multiqueue(decision.vm, on=max(queues) > 1)
    return operations


def _multiqueue(vm: VmFacts, *, on: bool) -> list[dict[str, Any]]:
    """Set the one switch of the whole VM; unset, it would be the preference's."""
    operations = [] if vm.multiqueue is None else [{"op": "test", "path": _MULTIQUEUE, "value": vm.multiqueue}]
    return [*operations, {"op": "add", "path": _MULTIQUEUE, "value": on}]


def _change(decision: NicDecision, index: int) -> list[dict[str, Any]]:
    """Set the model of an entry, and pin the MAC address of a running NIC that its spec does not name."""
    nic = decision.nic
    entry = f"{_INTERFACES}/{index}"
    operations: list[dict[str, Any]] = [{"op": "test", "path": f"{entry}/name", "value": nic.name}]
    if nic.explicit_model is not None:
        operations.append({"op": "test", "path": f"{entry}/model", "value": nic.explicit_model})
    operations.append({"op": "add", "path": f"{entry}/model", "value": decision.wanted.model})
    if nic.spec_mac is None and nic.live_mac is not None:
        operations.append({"op": "add", "path": f"{entry}/macAddress", "value": nic.live_mac})
    return operations


def _explicit(decision: NicDecision) -> list[dict[str, Any]]:
    """Write out the NIC that KubeVirt would add by itself, since a model needs an entry to stand in."""
    nic = decision.nic
    entry: dict[str, Any] = {"name": nic.name, "bridge": {}, "model": decision.wanted.model}
    if nic.live_mac is not None:
        entry["macAddress"] = nic.live_mac
    return [
        {"op": "add", "path": _INTERFACES, "value": [entry]},
        {"op": "add", "path": f"{_SPEC}/networks", "value": [{"name": nic.name, "pod": {}}]},
    ]
