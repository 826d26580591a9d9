"""The fields of a VirtualMachineInstance that decisions read.

They describe what runs, where it runs, and what the guest agent reports.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .vm import Cpu, HostDevice, Named, Network, Part, Resources

__all__ = ["VirtualMachineInstance", "decode_instance"]


class _GuestInfo(Part, frozen=True, kw_only=True):
    id: str = ""
    name: str = ""


class _LiveInterface(Part, frozen=True, kw_only=True):
    name: str = ""
    mac: str = ""
    queue_count: int = 0


class _InstanceStatus(Part, frozen=True, kw_only=True):
    phase: str = ""
    node_name: str = ""
    interfaces: tuple[_LiveInterface, ...] = ()
    guest_os_info: _GuestInfo = msgspec.field(default=_GuestInfo(), name="guestOSInfo")


class _Owner(Part, frozen=True, kw_only=True):
    kind: str = ""
    name: str = ""


class _InstanceMeta(Part, frozen=True, kw_only=True):
    name: str
    namespace: str = ""
    uid: str = ""
    annotations: dict[str, str] = {}  # noqa: RUF012 - msgspec copies a field's default
    deletion_timestamp: str | None = None
    owner_references: tuple[_Owner, ...] = ()


class _RunningInterface(Part, frozen=True, kw_only=True):
    name: str
    model: str | None = None
    mac_address: str | None = None
    sriov: dict[str, Any] | None = None
    binding: Named | None = None
    passt_binding: dict[str, Any] | None = None


class _RunningDevices(Part, frozen=True, kw_only=True):
    interfaces: tuple[_RunningInterface, ...] = ()
    host_devices: tuple[HostDevice, ...] = ()
    gpus: tuple[HostDevice, ...] = ()
    network_interface_multiqueue: bool | None = None


class _RunningDomain(Part, frozen=True, kw_only=True):
    cpu: Cpu | None = None
    resources: Resources | None = None
    devices: _RunningDevices = _RunningDevices()


class _RunningSpec(Part, frozen=True, kw_only=True):
    domain: _RunningDomain = _RunningDomain()
    networks: tuple[Network, ...] = ()


class VirtualMachineInstance(Part, frozen=True, kw_only=True):
    """A VirtualMachineInstance."""

    metadata: _InstanceMeta
    spec: _RunningSpec = _RunningSpec()
    status: _InstanceStatus = _InstanceStatus()

    @property
    def final(self) -> bool:
        """Return whether it has ended."""
        # The object stays for a while after the VM has stopped, and holds no device then.
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def machine(self) -> str:
        """Return the name of the VirtualMachine that owns it, or an empty string."""
        return next((owner.name for owner in self.metadata.owner_references if owner.kind == "VirtualMachine"), "")


decode_instance = msgspec.json.Decoder(VirtualMachineInstance).decode
