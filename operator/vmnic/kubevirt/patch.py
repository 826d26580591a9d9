"""JSON Patch of a VirtualMachine from a decision.

KubeVirt's interface and network lists are atomic, so a merge patch would replace them completely. Each change therefore
first tests that the entries at their indexes are still those that the decision is about. If they are not, the API server
answers 422 and the VM is decided again. The same patch records the originals in the annotation `vmnic.dev/assigned`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..json_patch import Operation, add, check, pointer, remove, replace
from ..policy.facts import Datapath, Network, NicState, VmFacts
from ..policy.types import Action, NicDecision, VmDecision
from .assignment import (
    ANNOTATION,
    AssignmentRecord,
    UnreadableRecord,
    binding_of,
    read_record,
    with_change,
    write_record,
)
from .originals import INTERFACE_SETTINGS
from .vm import Interface, VirtualMachine

__all__ = ["render_patch"]

_SPEC = "/spec/template/spec"
_DEVICES = f"{_SPEC}/domain/devices"
_INTERFACES = f"{_DEVICES}/interfaces"
_NETWORKS = f"{_SPEC}/networks"
_HOST_DEVICES = f"{_DEVICES}/hostDevices"
_MULTIQUEUE = f"{_DEVICES}/networkInterfaceMultiqueue"
_AUTOATTACH = f"{_DEVICES}/autoattachPodInterface"


def render_patch(decision: VmDecision, machine: VirtualMachine, totals: Mapping[str, int] | None = None) -> list[Operation]:
    """Return the operations that apply a decision to a VM.

    There are none if no NIC is to be patched, or if the VM's record cannot be read.

    Args:
        decision: Decision about the VM.
        machine: The VM that was decided.
        totals: Total number of devices by resource, as far as known.
    """
    patched = [nic for nic in decision.nics if nic.action is Action.PATCH]
    record = read_record(decision.vm.record)
    if not patched or isinstance(record, UnreadableRecord):
        return []
    return _Rendering(decision, machine, patched, totals or {}, record or AssignmentRecord()).operations()


class _Rendering:
    """The patch of one VM."""

    def __init__(
        self,
        decision: VmDecision,
        machine: VirtualMachine,
        patched: list[NicDecision],
        totals: Mapping[str, int],
        record: AssignmentRecord,
    ) -> None:
        self._vm: VmFacts = decision.vm
        self._spec = machine.spec.template.spec
        self._generation = machine.metadata.generation
        self._patched = patched
        self._kept = [nic for nic in decision.nics if nic.action is not Action.PATCH]
        self._totals = totals
        self._record = record
        self._networks = {network.name: index for index, network in enumerate(self._spec.networks)}

    def operations(self) -> list[Operation]:
        """Return the operations in an order that keeps indexes valid.

        Changes in place come first. Entries are then removed from the end, and new ones are appended.
        """
        moved = [nic for nic in self._patched if _adapter_changes(nic)]
        whole = [nic for nic in moved if nic.wanted.datapath is Datapath.PASSTHROUGH]
        returned = [nic for nic in moved if nic.nic.present.datapath is Datapath.PASSTHROUGH]
        operations: list[Operation] = []
        for nic in moved:
            if nic not in whole and nic not in returned:
                operations += self._implicit(nic) if nic.nic.index is None else self._in_place(nic, nic.nic.index)
        # Only the NIC that KubeVirt adds has no index. It is on the pod network and never becomes a whole NIC.
        for nic in sorted(whole, key=lambda nic: -(nic.nic.index or 0)):
            operations += self._take_interface(nic)
        for nic in sorted(whole, key=lambda nic: -self._networks.get(nic.nic.name, 0)):
            operations += self._take_network(nic)
        for nic in sorted(returned, key=lambda nic: -(nic.nic.index or 0)):
            operations += self._take_device(nic)
        operations += self._add_devices(whole)
        operations += self._add_interfaces(returned, emptied=len(whole) == len(self._spec.domain.devices.interfaces))
        operations += self._autoattach(whole, returned) + self._multiqueue()
        return [*self._guard(), *operations, *self._annotate()] if operations else self._annotate()

    def _guard(self) -> list[Operation]:
        """Return a test that fails after any change of the spec.

        A patch cannot test that a list or a field is absent, and adding it would overwrite what a person has added meanwhile.
        """
        return [check("/metadata/generation", self._generation)] if self._generation else []

    def _in_place(self, decision: NicDecision, index: int) -> list[Operation]:
        """Change the model, the binding and the network of an entry, and pin the MAC address of a running NIC."""
        nic, wanted = decision.nic, decision.wanted
        entry = f"{_INTERFACES}/{index}"
        interface = self._spec.domain.devices.interfaces[index]
        operations: list[Operation] = [check(f"{entry}/name", nic.name)]
        if nic.explicit_model is not None:
            operations.append(check(f"{entry}/model", nic.explicit_model))
        if not (nic.present.datapath.is_bridged and wanted.datapath.is_bridged):
            operations += self._rebind(entry, interface, wanted) + self._reconnect(decision)
        if wanted.model is not None:
            verb = "replace" if nic.explicit_model is not None else "add"
            operations.append({"op": verb, "path": f"{entry}/model", "value": wanted.model})
        elif nic.explicit_model is not None:
            # KubeVirt does not refuse a model on an SR-IOV interface, so a wrong one would stay unnoticed.
            operations.append(remove(f"{entry}/model"))
        # KubeVirt would generate another address at the next start, and the guest would see another NIC.
        if nic.spec_mac is None and nic.live_mac is not None:
            operations.append(add(f"{entry}/macAddress", nic.live_mac))
        if wanted.datapath is Datapath.SRIOV and nic.state:
            # KubeVirt refuses even `up` on an SR-IOV interface. An absent state means `up`.
            operations.append(check(f"{entry}/state", nic.state))
            operations.append(remove(f"{entry}/state"))
        self._remember(decision, self._was(decision, interface))
        return operations

    def _rebind(self, entry: str, interface: Interface, wanted: NicState) -> list[Operation]:
        """Replace the binding, because KubeVirt allows exactly one."""
        present = msgspec.to_builtins(interface)
        operations: list[Operation] = []
        for name in interface.bindings:
            operations.append(check(f"{entry}/{name}", present[name]))
            operations.append(remove(f"{entry}/{name}"))
        name, value = binding_of(wanted.datapath)
        return [*operations, add(f"{entry}/{name}", value)]

    def _reconnect(self, decision: NicDecision) -> list[Operation]:
        """Change the network to the one that offers the datapath, if it is another one."""
        index = self._networks.get(decision.nic.name)
        if decision.network is None or index is None:
            return []
        present = self._spec.networks[index].multus
        entry = f"{_NETWORKS}/{index}"
        return [
            check(f"{entry}/name", decision.nic.name),
            check(f"{entry}/multus/networkName", present.network_name if present is not None else ""),
            replace(f"{entry}/multus/networkName", self._reference(decision.network)),
        ]

    def _reference(self, network: Network) -> str:
        return network.name if network.namespace == self._vm.namespace else f"{network.namespace}/{network.name}"

    def _implicit(self, decision: NicDecision) -> list[Operation]:
        """Write out the NIC that KubeVirt would add by default, because a model needs an entry."""
        nic = decision.nic
        # KubeVirt's own choice of the binding is kept: without masquerade the VM would lose live migration.
        entry: dict[str, Any] = {"name": nic.name, nic.binding: {}, "model": decision.wanted.model}
        if nic.live_mac is not None:
            entry["macAddress"] = nic.live_mac
        self._remember(decision, {"model": None})
        return [
            add(_INTERFACES, [entry]),
            # KubeVirt adds nothing to a list that is not empty, so both lists are written.
            add(_NETWORKS, [{"name": nic.name, "pod": {}}]),
        ]

    def _take_interface(self, decision: NicDecision) -> list[Operation]:
        index = decision.nic.index or 0
        self._remember(decision, self._was(decision, self._spec.domain.devices.interfaces[index]))
        entry = f"{_INTERFACES}/{index}"
        return [check(f"{entry}/name", decision.nic.name), remove(entry)]

    def _take_network(self, decision: NicDecision) -> list[Operation]:
        entry = f"{_NETWORKS}/{self._networks[decision.nic.name]}"
        return [check(f"{entry}/name", decision.nic.name), remove(entry)]

    def _take_device(self, decision: NicDecision) -> list[Operation]:
        entry = f"{_HOST_DEVICES}/{decision.nic.index}"
        return [check(f"{entry}/name", decision.nic.name), remove(entry)]

    def _add_devices(self, whole: list[NicDecision]) -> list[Operation]:
        """Add host devices with the NICs' names and the pool's resource.

        KubeVirt selects host devices by resource only.
        """
        entries = [self._device(nic) for nic in whole]
        if not entries:
            return []
        # `-` appends only to a list that exists.
        if not self._spec.domain.devices.host_devices:
            return [add(_HOST_DEVICES, entries)]
        return [add(f"{_HOST_DEVICES}/-", entry) for entry in entries]

    def _device(self, decision: NicDecision) -> dict[str, Any]:
        tag = self._spec.domain.devices.interfaces[decision.nic.index or 0].tag
        return {"name": decision.nic.name, "deviceName": decision.wanted.resource} | ({"tag": tag} if tag else {})

    def _add_interfaces(self, returned: list[NicDecision], *, emptied: bool) -> list[Operation]:
        """Restore interfaces that whole NICs have replaced, with their recorded settings."""
        operations: list[Operation] = []
        # The first entry creates the list. A second one that created it again would replace the first.
        first = emptied or not self._spec.domain.devices.interfaces
        for decision in returned:
            entry, network = self._returned_entries(decision)
            for path, value in ((_INTERFACES, entry), (_NETWORKS, network)):
                if first:
                    operations.append(add(path, [value]))
                else:
                    operations.append(add(f"{path}/-", value))
            first = False
            self._remember(decision, {})
        return operations

    def _returned_entries(self, decision: NicDecision) -> tuple[dict[str, Any], dict[str, Any]]:
        recorded = self._record.nics.get(decision.nic.name)
        before = dict(recorded.was.get("interface", {})) if recorded is not None else {}
        target = decision.network or decision.nic.network
        # KubeVirt refuses a state on an SR-IOV interface.
        ruled_out = {"state"} if decision.wanted.datapath is Datapath.SRIOV else set()
        kept = {key: value for key, value in before.items() if key in INTERFACE_SETTINGS - ruled_out}
        name, value = binding_of(decision.wanted.datapath)
        model = {} if decision.wanted.model is None else {"model": decision.wanted.model}
        entry = {**kept, "name": decision.nic.name, name: value, **model}
        return entry, {"name": decision.nic.name, "multus": {"networkName": self._reference(target)}}

    def _autoattach(self, whole: list[NicDecision], returned: list[NicDecision]) -> list[Operation]:
        """Disable the default NIC, which KubeVirt would add on the pod network to a VM without interfaces."""
        if not whole or returned or len(whole) < len(self._spec.domain.devices.interfaces) or self._vm.autoattach is False:
            return []
        return [add(_AUTOATTACH, False)]

    def _multiqueue(self) -> list[Operation]:
        """Set the single multiqueue switch of the VM.

        It is turned off if no NIC is left that it applies to, with any binding. KubeVirt would not notice that.
        """
        vm = self._vm
        after = [nic.wanted for nic in self._patched] + [nic.nic.present for nic in self._kept]
        if not any(state.uses_switch for state in after):
            return self._switch(on=False) if vm.multiqueue else []
        # A NIC that is not patched must not turn the switch, for example one that waits for a window.
        queues = {nic.wanted.queues for nic in self._patched if nic.wanted.has_queues}
        if not queues or queues == {vm.virtio_queues}:
            return []
        return self._switch(on=max(queues) > 1)

    def _switch(self, *, on: bool) -> list[Operation]:
        was = self._vm.multiqueue
        self._record = self._record.with_multiqueue(was)
        # A switch that is back at its original value needs no record.
        if self._record.multiqueue is not None and self._record.multiqueue.was is on:
            self._record = msgspec.structs.replace(self._record, multiqueue=None)
        # If the switch were unset, the preference's value would apply, so it is always set.
        operations = [] if was is None else [check(_MULTIQUEUE, was)]
        return [*operations, add(_MULTIQUEUE, on)]

    def _was(self, decision: NicDecision, interface: Interface) -> dict[str, Any]:
        """Return the entries that a revert has to restore."""
        if decision.nic.present.datapath.is_bridged and decision.wanted.datapath.is_bridged:
            return {"model": interface.model}
        index = self._networks.get(interface.name)
        network = msgspec.to_builtins(self._spec.networks[index]) if index is not None else {}
        return {"interface": msgspec.to_builtins(interface), "network": network}

    def _remember(self, decision: NicDecision, was: dict[str, Any]) -> None:
        self._record = with_change(self._record, decision, was, self._totals)

    def _annotate(self) -> list[Operation]:
        """Write the record.

        If the annotation has been edited in the meantime, the API server refuses the patch.
        """
        text, before = write_record(self._record), self._vm.record
        path = pointer("metadata", "annotations", ANNOTATION)
        if text == (before or ""):
            return []
        if before is not None:
            test = check(path, before)
            # An empty record is removed, so that the VM shows no change by vmnic.
            return [test, replace(path, text) if text else remove(path)]
        if self._vm.annotated:
            return [add(path, text)]
        # No other client may have added the first annotation in the meantime, because `add` would overwrite it.
        version = self._vm.version
        guard = [check("/metadata/resourceVersion", version)] if version else []
        return [*guard, add("/metadata/annotations", {ANNOTATION: text})]


def _adapter_changes(decision: NicDecision) -> bool:
    """Return whether more than the number of queues changes."""
    present, wanted = decision.nic.present, decision.wanted
    return (present.datapath, present.model, present.resource) != (wanted.datapath, wanted.model, wanted.resource)
