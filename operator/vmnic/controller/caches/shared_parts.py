"""One copy of the equal parts of cached VMs and their instances.

Most VMs of a cluster come from a few templates, so most of their parts are equal. Nothing changes a decoded object, so VMs can
share them.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from ...kubevirt.vm import VirtualMachine, decode_machine
from ...kubevirt.vmi import VirtualMachineInstance, decode_instance

__all__ = ["SharedParts", "decode_shared_instance", "decode_shared_machine"]

T = TypeVar("T")

_MOST = 4096
"""Parts of one field that are remembered. VMs whose parts are all different must not double their memory."""
_MOST_BYTES = 4096
"""Longest part that is remembered. A VM with 16 NICs is shorter."""


class SharedParts:
    """Finds equal values of one field."""

    def __init__(self) -> None:
        self._parts: dict[bytes, Any] = {}

    def share(self, part: T) -> T:
        """Return an equal value that is in use already, or else this one."""
        # The parts contain dictionaries, so they have no hash.
        try:
            text = _encoder.encode(part)
        except (msgspec.MsgspecError, OverflowError):
            return part  # JSON has larger integers than the encoder takes.
        if len(text) > _MOST_BYTES:
            return part
        found: T = self._parts.setdefault(text, part)
        if len(self._parts) > _MOST:
            # Those that are in use come back with the next VM that has them.
            self._parts.clear()
        return found


_encoder = msgspec.json.Encoder()
_fields: dict[tuple[type, str], SharedParts] = defaultdict(SharedParts)
"""By field, because values of two types may have the same text."""


def decode_shared_machine(raw: bytes | msgspec.Raw) -> VirtualMachine:
    """Parse a VirtualMachine, and share its parts with those parsed before.

    Raises:
        msgspec.ValidationError: a field has the wrong type; the message has its path.
    """
    machine = decode_machine(raw)
    meta, spec = machine.metadata, machine.spec
    _set(meta, "namespace", sys.intern(meta.namespace))
    _share(meta, "labels")
    _share(machine, "spec")
    if machine.spec is spec:
        # A new spec often differs from others only in a MAC address or the node.
        template = spec.template
        _share(template, "metadata")
        _share(template.spec, "networks", "volumes", "node_selector", "affinity")
        _share(template.spec.domain, "cpu", "memory", "resources", "features")
        _share_interfaces(template.spec.domain.devices.interfaces)
    return machine


def decode_shared_instance(raw: bytes | msgspec.Raw) -> VirtualMachineInstance:
    """Parse a VirtualMachineInstance, and share its parts with those parsed before.

    Raises:
        msgspec.ValidationError: a field has the wrong type; the message has its path.
    """
    instance = decode_instance(raw)
    meta, status, spec = instance.metadata, instance.status, instance.spec
    _set(meta, "namespace", sys.intern(meta.namespace))
    _share(meta, "annotations")
    _share(status, "phase", "node_name", "guest_os_info")
    _share(instance, "spec")
    if instance.spec is spec:
        _share(spec, "networks")
        _share(spec.domain, "cpu", "resources")
        _share_interfaces(spec.domain.devices.interfaces)
    return instance


def _share_interfaces(interfaces: Iterable[msgspec.Struct]) -> None:
    for interface in interfaces:
        _share(interface, "name", "model", *(name for name in ("masquerade", "bridge", "sriov") if hasattr(interface, name)))


def _share(owner: msgspec.Struct, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if value is not None:
            _set(owner, name, _fields[type(owner), name].share(value))


# The object was decoded just now, so no other code has seen it.
_set = msgspec.structs.force_setattr
