"""The way back: what a VM's record says was there before becomes a JSON Patch that puts it there again.

The VM is excluded from then on, since the policies would change it again.
"""

from __future__ import annotations

from typing import Any

from ..policy.facts import Datapath
from .projection import HostDevice, Machine
from .record import ANNOTATION, Record, RecordedNic, parse_record

__all__ = ["EXCLUDE", "render_revert"]

EXCLUDE = "vmnic.dev/exclude"
_SPEC = "/spec/template/spec"
_DEVICES = f"{_SPEC}/domain/devices"


def render_revert(machine: Machine) -> list[dict[str, Any]]:
    """Give the operations that put the original NICs back; empty where vmnic has changed nothing.

    A NIC that somebody has edited since is not in force as recorded any more, and is left as it is.
    """
    notes = machine.metadata.annotations
    record = parse_record(notes.assigned) if notes is not None else None
    if notes is None or record is None:
        return []
    operations: list[dict[str, Any]] = []
    for name, entry in sorted(record.nics.items()):
        if entry.datapath != Datapath.PASSTHROUGH:
            operations += _entry(machine, name, entry)
    operations += _whole_nics(machine, record) + _switch(machine, record)
    path = f"/metadata/annotations/{ANNOTATION.replace('/', '~1')}"
    operations += [{"op": "test", "path": path, "value": notes.assigned}, {"op": "remove", "path": path}]
    return [*operations, {"op": "add", "path": f"/metadata/annotations/{EXCLUDE.replace('/', '~1')}", "value": "true"}]


def _entry(machine: Machine, name: str, entry: RecordedNic) -> list[dict[str, Any]]:
    """Put back an interface that is still there."""
    spec = machine.spec.template.spec
    for index, interface in enumerate(spec.domain.devices.interfaces):
        if interface.name != name or interface.model != entry.model:
            continue
        path = f"{_DEVICES}/interfaces/{index}"
        tests: list[dict[str, Any]] = [{"op": "test", "path": f"{path}/name", "value": name}]
        if "interface" in entry.was:
            return [*tests, {"op": "replace", "path": path, "value": entry.was["interface"]}, *_network(machine, name, entry)]
        model = entry.was.get("model")
        if interface.model is None:
            return []
        tests.append({"op": "test", "path": f"{path}/model", "value": interface.model})
        if model is None:
            return [*tests, {"op": "remove", "path": f"{path}/model"}]
        return [*tests, {"op": "replace", "path": f"{path}/model", "value": model}]
    return []


def _network(machine: Machine, name: str, entry: RecordedNic) -> list[dict[str, Any]]:
    for index, network in enumerate(machine.spec.template.spec.networks):
        if network.name == name:
            path = f"{_SPEC}/networks/{index}"
            test = {"op": "test", "path": f"{path}/name", "value": name}
            return [test, {"op": "replace", "path": path, "value": entry.was["network"]}]
    return []


def _whole_nics(machine: Machine, record: Record) -> list[dict[str, Any]]:
    """Put interface and network back in place of each whole NIC; devices are taken from the end, so that indexes hold."""
    spec = machine.spec.template.spec
    found = [
        (index, record.nics[device.name])
        for index, device in enumerate(spec.domain.devices.host_devices)
        if _is_whole(record.nics.get(device.name), device)
    ]
    operations: list[dict[str, Any]] = []
    for index, _ in reversed(found):
        path = f"{_DEVICES}/hostDevices/{index}"
        test = {"op": "test", "path": f"{path}/name", "value": spec.domain.devices.host_devices[index].name}
        operations += [test, {"op": "remove", "path": path}]
    interfaces = [entry.was["interface"] for _, entry in found]
    networks = [entry.was["network"] for _, entry in found]
    operations += _appended(f"{_DEVICES}/interfaces", interfaces, empty=not spec.domain.devices.interfaces)
    return operations + _appended(f"{_SPEC}/networks", networks, empty=not spec.networks)


def _is_whole(entry: RecordedNic | None, device: HostDevice) -> bool:
    return entry is not None and entry.datapath == Datapath.PASSTHROUGH and entry.resource == device.device_name


def _appended(path: str, values: list[Any], *, empty: bool) -> list[dict[str, Any]]:
    if not values:
        return []
    if empty:
        return [{"op": "add", "path": path, "value": values}]
    return [{"op": "add", "path": f"{path}/-", "value": value} for value in values]


def _switch(machine: Machine, record: Record) -> list[dict[str, Any]]:
    """Put the switch for several queues back."""
    present = machine.spec.template.spec.domain.devices.network_interface_multiqueue
    if record.multiqueue is None or present is None:
        return []
    path = f"{_DEVICES}/networkInterfaceMultiqueue"
    if record.multiqueue.was is None:
        return [{"op": "remove", "path": path}]
    return [{"op": "replace", "path": path, "value": record.multiqueue.was}]
