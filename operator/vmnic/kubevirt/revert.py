"""JSON Patch that restores a VM's original NICs from its record.

The patch also excludes the VM from vmnic, because the policies would change it again. A tenant may write the record, and the
patch is sent with the rights of the person who asks for it. Therefore it moves no NIC to a network from which vmnic would not
have moved it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..json_patch import Operation, add, check, pointer, remove, replace
from ..policy.facts import Datapath, Network
from .assignment import ANNOTATION, AssignmentRecord, RecordedNic, UnreadableRecord, binding_of, read_record
from .networks import original_network
from .vm import BINDINGS, HostDevice, Interface, VirtualMachine
from .vm import Network as NetworkEntry

__all__ = ["EXCLUDE", "RevertRefusedError", "render_revert"]

Networks = Mapping[tuple[str, str], Network]

EXCLUDE = "vmnic.dev/exclude"
_SPEC = "/spec/template/spec"
_DEVICES = f"{_SPEC}/domain/devices"


class RevertRefusedError(ValueError):
    """The record cannot be read, or names something that vmnic does not restore.

    The message has the remedy.
    """


def render_revert(machine: VirtualMachine, networks: Networks | None = None) -> list[Operation]:
    """Return the operations that restore the original NICs.

    There are none if vmnic has changed nothing. A NIC that has been edited since its recorded change is left as it is.

    Args:
        machine: The VM.
        networks: The known NetworkAttachmentDefinitions by namespace and name.

    Raises:
        RevertRefusedError: the record must not be applied.
    """
    notes = machine.metadata.annotations
    record = read_record(notes.assigned) if notes is not None else None
    if isinstance(record, UnreadableRecord):
        raise RevertRefusedError(record.problem)
    if notes is None or record is None:
        return []
    # All NICs are checked before anything is rendered: a revert is complete, or there is none.
    for name, entry in record.nics.items():
        _check_place(machine, name, entry, networks or {})
    operations: list[Operation] = []
    for name, entry in sorted(record.nics.items()):
        if entry.datapath != Datapath.PASSTHROUGH:
            operations += _entry(machine, name, entry)
    operations += [*_guard(machine), *_whole_nics(machine, record), *_switch(machine, record)]
    path = pointer("metadata", "annotations", ANNOTATION)
    # vmnic writes the record in the same patch as a change, so this test also finds a change since the VM was read.
    operations += [check(path, notes.assigned), remove(path)]
    return [*operations, add(pointer("metadata", "annotations", EXCLUDE), "true")]


def _guard(machine: VirtualMachine) -> list[Operation]:
    """Return a test that fails after any change of the spec, because lists are added as wholes."""
    return [check("/metadata/generation", machine.metadata.generation)] if machine.metadata.generation else []


def _check_place(machine: VirtualMachine, name: str, entry: RecordedNic, networks: Networks) -> None:
    """Refuse a network of another namespace.

    It is allowed if the NIC is on it now, or on a network of the same segment.
    """
    before = _place(original_network(entry.was), machine)
    now = _place(next((one for one in machine.spec.template.spec.networks if one.name == name), None), machine)
    if before is None or before == now or before[0] == machine.metadata.namespace:
        return
    segments = [networks[place].segment for place in (before, now) if place is not None and place in networks]
    # Without a label there is no segment: all networks without one would be the same.
    if len(segments) == 2 and segments[0] == segments[1] != "":
        return
    text = f"network {'/'.join(before)} of its record is in another namespace, and is not known to have the NIC's segment"
    raise RevertRefusedError(f"NIC {name}: {text}: restore the NIC by hand, and remove the annotation {ANNOTATION}")


def _place(entry: NetworkEntry | None, machine: VirtualMachine) -> tuple[str, str] | None:
    """Return namespace and name of an entry's NetworkAttachmentDefinition, or None if it has none."""
    if entry is None or entry.multus is None:
        return None
    namespace, _, name = entry.multus.network_name.rpartition("/")
    return namespace or machine.metadata.namespace, name


def _entry(machine: VirtualMachine, name: str, entry: RecordedNic) -> list[Operation]:
    """Restore an interface that still exists."""
    spec = machine.spec.template.spec
    for index, interface in enumerate(spec.domain.devices.interfaces):
        if interface.name != name or interface.model != entry.model:
            continue
        path = f"{_DEVICES}/interfaces/{index}"
        tests: list[Operation] = [check(f"{path}/name", name)]
        if not entry.was:
            return []
        if "interface" in entry.was:
            if not _is_ours(machine, interface, entry):
                return []
            return [*tests, *_rebound(path, interface, entry), *_network(machine, name, entry)]
        model = entry.was.get("model")
        if interface.model is None:
            return []
        tests.append(check(f"{path}/model", interface.model))
        if model is None:
            return [*tests, remove(f"{path}/model")]
        return [*tests, replace(f"{path}/model", model)]
    return []


def _is_ours(machine: VirtualMachine, interface: Interface, entry: RecordedNic) -> bool:
    """Return whether an interface still has the binding and the network that vmnic gave it."""
    known = {str(one) for one in Datapath}
    name, value = binding_of(Datapath(entry.datapath)) if entry.datapath in known else ("", {})
    if interface.bindings != (name,) or msgspec.to_builtins(interface)[name] != value:
        return False
    place = _place(next((one for one in machine.spec.template.spec.networks if one.name == interface.name), None), machine)
    # A record without a network does not say on which one the NIC is.
    return not entry.network or (place is not None and "/".join(place) == entry.network)


def _rebound(path: str, interface: Interface, entry: RecordedNic) -> list[Operation]:
    """Restore binding and model of an interface.

    Its other fields stay, because vmnic has changed none of them but the state, which KubeVirt refuses beside `sriov`.
    """
    now, then = msgspec.to_builtins(interface), entry.was["interface"]
    fields = [*interface.bindings, *(name for name in then if name in BINDINGS), "model"]
    operations: list[Operation] = []
    for name in dict.fromkeys(fields):
        if name in now and now[name] != then.get(name):
            operations += [check(f"{path}/{name}", now[name]), remove(f"{path}/{name}")]
        if name in then and then[name] != now.get(name):
            operations.append(add(f"{path}/{name}", then[name]))
    if entry.datapath == Datapath.SRIOV and "state" in then and interface.state is None:
        operations.append(add(f"{path}/state", then["state"]))
    return operations


def _network(machine: VirtualMachine, name: str, entry: RecordedNic) -> list[Operation]:
    before = original_network(entry.was)
    for index, network in enumerate(machine.spec.template.spec.networks):
        if network.name == name and network.multus is not None and before is not None and before.multus is not None:
            path = f"{_SPEC}/networks/{index}"
            tests = [check(f"{path}/name", name), check(f"{path}/multus/networkName", network.multus.network_name)]
            return [*tests, replace(f"{path}/multus/networkName", before.multus.network_name)]
    return []


def _whole_nics(machine: VirtualMachine, record: AssignmentRecord) -> list[Operation]:
    """Restore interface and network in place of each whole NIC.

    Host devices are removed from the end, so that indexes stay valid.
    """
    spec = machine.spec.template.spec
    found = [
        (index, record.nics[device.name])
        for index, device in enumerate(spec.domain.devices.host_devices)
        if (entry := record.nics.get(device.name)) is not None and _is_whole(entry, device)
    ]
    operations: list[Operation] = []
    for index, _ in reversed(found):
        path = f"{_DEVICES}/hostDevices/{index}"
        test = check(f"{path}/name", spec.domain.devices.host_devices[index].name)
        operations += [test, remove(path)]
    interfaces = [entry.was["interface"] for _, entry in found]
    networks = [entry.was["network"] for _, entry in found if entry.was.get("network")]
    operations += _appended(f"{_DEVICES}/interfaces", interfaces, empty=not spec.domain.devices.interfaces)
    return operations + _appended(f"{_SPEC}/networks", networks, empty=not spec.networks)


def _is_whole(entry: RecordedNic, device: HostDevice) -> bool:
    """Return whether a host device is the whole NIC of a record entry and its original is known."""
    ours = entry.datapath == Datapath.PASSTHROUGH and entry.resource == device.device_name
    return ours and "interface" in entry.was


def _appended(path: str, values: list[Any], *, empty: bool) -> list[Operation]:
    if not values:
        return []
    if empty:
        return [add(path, values)]
    return [add(f"{path}/-", value) for value in values]


def _switch(machine: VirtualMachine, record: AssignmentRecord) -> list[Operation]:
    """Restore `networkInterfaceMultiqueue`."""
    present = machine.spec.template.spec.domain.devices.network_interface_multiqueue
    if record.multiqueue is None or present is None:
        return []
    path = f"{_DEVICES}/networkInterfaceMultiqueue"
    test = check(path, present)
    if record.multiqueue.was is None:
        return [test, remove(path)]
    return [test, replace(path, record.multiqueue.was)]
