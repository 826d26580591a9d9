"""Admission reviews of VMs and VMIs.

A pure function from a review to a response with a patch. It never refuses a VM.

A new VirtualMachine gets what the policies want. An update restores vmnic's assignments only if the manager that applies the
VM has reset the NICs to their originals, as a GitOps tool does. An edit by a person is kept. A VMI gets model and queues if a
policy has `action: Admit`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from ..json_patch import add, check
from ..policy.decision import decide
from ..policy.evaluate import evaluate_vm
from ..policy.facts import ClusterFacts, VmFacts
from ..policy.rules import Rule
from ..policy.types import Action, NicDecision, VmCandidates, VmDecision
from .assignment import AssignmentRecord, RecordedNic, parse_record
from .gather import MachineInput, gather_vm_facts
from .patch import render_patch
from .vm import Interface, VirtualMachine, decode_machine
from .vmi import VirtualMachineInstance, decode_instance

__all__ = ["AdmissionReviewer"]

Operation = dict[str, Any]
_INTERFACES = "/spec/domain/devices/interfaces"
_MULTIQUEUE = "/spec/domain/devices/networkInterfaceMultiqueue"


class _Options(msgspec.Struct, rename="camel"):
    field_manager: str = ""


class _Request(msgspec.Struct, rename="camel"):
    uid: str
    object: msgspec.Raw
    operation: str = "CREATE"
    namespace: str = ""
    old_object: msgspec.Raw = msgspec.Raw(b"null")
    options: _Options | None = None


class _Review(msgspec.Struct):
    request: _Request


_decoder = msgspec.json.Decoder(_Review)


class AdmissionReviewer:
    """Answers reviews with data from its owner.

    Args:
        complete: Adds to a VM of a namespace the objects that belong to it.
        settle: Second phase of the decision. It also returns the total number of devices by resource.
        find_machine: Finds a VirtualMachine by namespace and name.
    """

    def __init__(
        self,
        complete: Callable[[VirtualMachine, str], MachineInput],
        settle: Callable[[VmCandidates], tuple[VmDecision, dict[str, int]]],
        find_machine: Callable[[str, str], VirtualMachine | None],
    ) -> None:
        self._complete = complete
        self._settle = settle
        self._find_machine = find_machine

    def review_machine(self, raw: bytes, rules: tuple[Rule, ...], cluster: ClusterFacts) -> dict[str, Any]:
        """Answer for a VirtualMachine that is created or updated.

        Raises:
            msgspec.MsgspecError: raw is not an AdmissionReview.
        """
        request = _decoder.decode(raw).request
        try:
            machine = decode_machine(request.object)
            if request.operation == "UPDATE":
                return _answer(request, self._review_update(request, machine, rules, cluster))
        except msgspec.MsgspecError as error:
            # KubeVirt's own webhook validates VMs. vmnic adds nothing to a VM that it cannot read.
            # The API server cuts warnings of more than 256 characters.
            warning = f"vmnic leaves this VirtualMachine unchanged, because it cannot be read: {error}"[:200]
            return _answer(request, [], warning)
        found = evaluate_vm(gather_vm_facts(self._complete(machine, request.namespace)), rules, cluster)
        decision, totals = self._settle(found)
        return _answer(request, render_patch(decision, machine, totals))

    def _review_update(
        self, request: _Request, machine: VirtualMachine, rules: tuple[Rule, ...], cluster: ClusterFacts
    ) -> list[Operation]:
        """Restore assignments of vmnic that the update has removed.

        Capacity is not checked again.
        """
        writer = request.options.field_manager if request.options is not None else ""
        # Another field manager is a person or another tool. Its edit is meant, even if it restores the original.
        if not writer or writer != machine.applier:
            return []
        old = decode_machine(request.old_object)
        notes = old.metadata.annotations
        # A client that replaces the VM sends it without the annotation, so the record of the stored VM counts.
        record = parse_record(notes.assigned) if notes is not None else None
        if record is None or machine.metadata.deletion_timestamp:
            return []
        reverted = _reverted(record, old, machine)
        switched = _switched_back(record, old, machine)
        if not reverted and not switched:
            return []
        facts = _with_macs(gather_vm_facts(self._complete(machine, request.namespace)), old)
        # The stored VM has the assignment, so its devices are already counted as taken.
        decision = decide(evaluate_vm(facts, rules, cluster), {})
        # Everything else waits for the leader, which respects windows, slots and the capacity.
        nics = tuple(
            nic if _is_ours(nic, record, reverted, switched=switched) else replace(nic, action=None) for nic in decision.nics
        )
        # The number at the first assignment stays. With today's number, a later loss of capacity would not show.
        totals = {nic.resource: nic.of for nic in record.nics.values() if nic.of is not None}
        return render_patch(replace(decision, nics=nics), machine, totals)

    def review_instance(self, raw: bytes, rules: tuple[Rule, ...], cluster: ClusterFacts) -> dict[str, Any]:
        """Answer for a VirtualMachineInstance that is created.

        Raises:
            msgspec.MsgspecError: raw is not an AdmissionReview.
        """
        request = _decoder.decode(raw).request
        try:
            instance = decode_instance(request.object)
        except msgspec.MsgspecError as error:
            return _answer(request, [], f"vmnic leaves this instance unchanged, because it cannot be read: {error}"[:200])
        machine = self._find_machine(request.namespace, instance.machine) if instance.machine else None
        if machine is None:
            return _answer(request, [])
        # An earlier VMI of this VM that still exists has ended, so it is ignored.
        facts = gather_vm_facts(replace(self._complete(machine, request.namespace), is_new=False, instance=None))
        # Admit excludes each change of network or binding, so no device has to be allocated.
        decision = decide(evaluate_vm(facts, rules, cluster), {})
        return _answer(request, _instance_patch(decision, instance))


def _answer(request: _Request, patch: list[Operation], warning: str = "") -> dict[str, Any]:
    response: dict[str, Any] = {"uid": request.uid, "allowed": True}
    if warning:
        response["warnings"] = [warning]
    if patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(msgspec.json.encode(patch)).decode()
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def _reverted(record: AssignmentRecord, old: VirtualMachine, new: VirtualMachine) -> set[str]:
    """Return the NICs that the update changed from their assignment to their original."""
    return {
        name for name, entry in record.nics.items() if _is_original(entry, new, name) and not _is_original(entry, old, name)
    }


def _is_original(entry: RecordedNic, machine: VirtualMachine, name: str) -> bool:
    spec = machine.spec.template.spec
    interface = next((one for one in spec.domain.devices.interfaces if one.name == name), None)
    network = next((one for one in spec.networks if one.name == name), None)
    if interface is None:
        return False
    if "model" in entry.was:
        return bool(interface.model == entry.was["model"])
    before = entry.was.get("interface", {})
    same = _comparable(interface) == _without_mac(before) and msgspec.to_builtins(network) == entry.was.get("network")
    return bool(same)


def _comparable(interface: Interface) -> dict[str, Any]:
    return _without_mac(msgspec.to_builtins(interface))


def _without_mac(entry: dict[str, Any]) -> dict[str, Any]:
    """Remove the MAC address from an interface, because vmnic may have pinned it."""
    return {key: value for key, value in entry.items() if key != "macAddress"}


def _with_macs(facts: VmFacts, old: VirtualMachine) -> VmFacts:
    """Return the facts with the MAC addresses that the old VM pins, so that they stay pinned."""
    pinned = {one.name: one.mac_address for one in old.spec.template.spec.domain.devices.interfaces}
    nics = tuple(replace(nic, live_mac=nic.live_mac or pinned.get(nic.name)) for nic in facts.nics)
    return replace(facts, nics=nics)


def _switched_back(record: AssignmentRecord, old: VirtualMachine, new: VirtualMachine) -> bool:
    """Return whether the update resets the multiqueue switch, which vmnic had changed."""
    if record.multiqueue is None:
        return False
    before = old.spec.template.spec.domain.devices.network_interface_multiqueue
    after = new.spec.template.spec.domain.devices.network_interface_multiqueue
    return bool(after == record.multiqueue.was != before)


def _is_ours(nic: NicDecision, record: AssignmentRecord, reverted: set[str], *, switched: bool) -> bool:
    """Return whether the policies still want what the update has removed."""
    entry = record.nics.get(nic.nic.name)
    if nic.nic.name in reverted:
        return entry is not None and entry.datapath == nic.wanted.datapath
    # Only the switch was reset: datapath and model are still as wanted, and the queues differ.
    present = nic.nic.present
    return switched and (present.datapath, present.model) == (nic.wanted.datapath, nic.wanted.model)


def _instance_patch(decision: VmDecision, instance: VirtualMachineInstance) -> list[Operation]:
    """Build the operations that set model and queues of a VMI.

    KubeVirt copies networks and bindings from the VM and would overwrite them.
    """
    devices = instance.spec.domain.devices
    places = {interface.name: index for index, interface in enumerate(devices.interfaces)}
    operations: list[Operation] = []
    queues = set()
    for nic in decision.nics:
        index = places.get(nic.nic.name)
        if nic.action is not Action.ADMIT or index is None:
            continue
        queues.add(nic.wanted.queues)
        if nic.wanted.model is not None and devices.interfaces[index].model != nic.wanted.model:
            entry = f"{_INTERFACES}/{index}"
            operations.append(check(f"{entry}/name", nic.nic.name))
            # `add` also replaces a model that is there (RFC 6902, section 4.1).
            operations.append(add(f"{entry}/model", nic.wanted.model))
    if queues and (max(queues) > 1) != bool(devices.network_interface_multiqueue):
        operations.append(add(_MULTIQUEUE, max(queues) > 1))
    return operations
