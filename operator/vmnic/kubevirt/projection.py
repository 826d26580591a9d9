"""The parts of KubeVirt's objects that decisions read; everything else is dropped while decoding, since whole VMs do not fit.

Fields are KubeVirt's (kubevirt.io/v1, instancetype.kubevirt.io/v1beta1). A wrong type raises msgspec.ValidationError with the
path of the field.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = [
    "Instance",
    "Instancetype",
    "Interface",
    "Machine",
    "NetworkDefinition",
    "Preference",
    "Reference",
    "decode_instance",
    "decode_instancetype",
    "decode_machine",
    "decode_network",
    "decode_preference",
]


class _Part(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Camel case on the wire; unknown fields are dropped."""


class _Named(_Part, frozen=True):
    name: str = ""


class Interface(_Part, frozen=True, kw_only=True):
    """One entry of `domain.devices.interfaces`."""

    name: str
    model: str | None = None
    mac_address: str | None = None
    masquerade: dict[str, Any] | None = None
    bridge: dict[str, Any] | None = None
    sriov: dict[str, Any] | None = None
    passt_binding: dict[str, Any] | None = None
    binding: _Named | None = None


class _Multus(_Part, frozen=True):
    network_name: str = ""


class _Network(_Part, frozen=True, kw_only=True):
    name: str
    pod: dict[str, Any] | None = None
    multus: _Multus | None = None


class _Devices(_Part, frozen=True, kw_only=True):
    interfaces: tuple[Interface, ...] = ()
    network_interface_multiqueue: bool | None = None
    autoattach_pod_interface: bool | None = None


class _Cpu(_Part, frozen=True, kw_only=True):
    sockets: int = 0
    cores: int = 0
    threads: int = 0

    @property
    def vcpus(self) -> int:
        """Sockets times cores times threads, each at least one."""
        return max(self.sockets, 1) * max(self.cores, 1) * max(self.threads, 1)


class _Features(_Part, frozen=True):
    hyperv: dict[str, Any] | None = None


class _Memory(_Part, frozen=True):
    guest: str | int | None = None


class _Requests(_Part, frozen=True):
    memory: str | int | None = None


class _Resources(_Part, frozen=True):
    requests: _Requests | None = None


class _Domain(_Part, frozen=True, kw_only=True):
    cpu: _Cpu | None = None
    memory: _Memory | None = None
    resources: _Resources | None = None
    devices: _Devices = _Devices()
    features: _Features | None = None


class _InstanceSpec(_Part, frozen=True, kw_only=True):
    domain: _Domain = _Domain()
    networks: tuple[_Network, ...] = ()


class _TemplateMeta(_Part, frozen=True, kw_only=True):
    annotations: dict[str, str] = {}


class _Template(_Part, frozen=True, kw_only=True):
    metadata: _TemplateMeta | None = None
    spec: _InstanceSpec = _InstanceSpec()


class Reference(_Part, frozen=True, kw_only=True):
    """`spec.instancetype` or `spec.preference`."""

    name: str = ""
    kind: str = ""


class _MachineSpec(_Part, frozen=True, kw_only=True):
    run_strategy: str | None = None
    running: bool | None = None
    instancetype: Reference | None = None
    preference: Reference | None = None
    template: _Template = _Template()


class _Wishes(_Part, frozen=True, kw_only=True):
    """The annotations by which a tenant may speak; all others are dropped, since some are as large as the object."""

    exclude: str | None = msgspec.field(default=None, name="vmnic.dev/exclude")
    network_pressure: str | None = msgspec.field(default=None, name="vmnic.dev/network-pressure")


class _Meta(_Part, frozen=True, kw_only=True):
    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: _Wishes | None = None
    deletion_timestamp: str | None = None


class Machine(_Part, frozen=True, kw_only=True):
    """A VirtualMachine."""

    metadata: _Meta
    spec: _MachineSpec
    applier: str = ""
    """The manager that applies the NIC list; empty: none. Read from the managed fields, which are not kept."""

    @property
    def halted(self) -> bool:
        """Whether its spec wants it stopped."""
        return self.spec.run_strategy == "Halted" or self.spec.running is False


class _GuestInfo(_Part, frozen=True, kw_only=True):
    id: str = ""
    name: str = ""


class _LiveInterface(_Part, frozen=True, kw_only=True):
    name: str = ""
    mac: str = ""


class _InstanceStatus(_Part, frozen=True, kw_only=True):
    phase: str = ""
    interfaces: tuple[_LiveInterface, ...] = ()
    guest_os_info: _GuestInfo = msgspec.field(default=_GuestInfo(), name="guestOSInfo")


class _InstanceMeta(_Part, frozen=True, kw_only=True):
    name: str
    namespace: str = ""
    annotations: dict[str, str] = {}


class Instance(_Part, frozen=True, kw_only=True):
    """A VirtualMachineInstance."""

    metadata: _InstanceMeta
    spec: _InstanceSpec = _InstanceSpec()
    status: _InstanceStatus = _InstanceStatus()

    @property
    def final(self) -> bool:
        """Whether it has ended."""
        return self.status.phase in ("Succeeded", "Failed")


class _PreferredDevices(_Part, frozen=True, kw_only=True):
    preferred_interface_model: str | None = None
    preferred_network_interface_multi_queue: bool | None = None


class _PreferenceSpec(_Part, frozen=True, kw_only=True):
    devices: _PreferredDevices = _PreferredDevices()
    annotations: dict[str, str] = {}


class Preference(_Part, frozen=True, kw_only=True):
    """A Virtual Machine(Cluster)Preference."""

    metadata: _Meta
    spec: _PreferenceSpec = _PreferenceSpec()


class _InstancetypeCpu(_Part, frozen=True):
    guest: int = 0


class _InstancetypeSpec(_Part, frozen=True):
    cpu: _InstancetypeCpu = _InstancetypeCpu()
    memory: _Memory | None = None


class Instancetype(_Part, frozen=True, kw_only=True):
    """A VirtualMachine(Cluster)Instancetype."""

    metadata: _Meta
    spec: _InstancetypeSpec = _InstancetypeSpec()


class _NetworkMeta(_Part, frozen=True, kw_only=True):
    name: str
    namespace: str = ""
    annotations: dict[str, str] = {}


class NetworkDefinition(_Part, frozen=True, kw_only=True):
    """A NetworkAttachmentDefinition."""

    metadata: _NetworkMeta

    @property
    def resource_name(self) -> str:
        """The device resource that a pod on this network asks for; empty if none."""
        return self.metadata.annotations.get("k8s.v1.cni.cncf.io/resourceName", "")


class _Managed(msgspec.Struct, rename="camel"):
    manager: str = ""
    operation: str = ""
    fields: msgspec.Raw = msgspec.field(default=msgspec.Raw(b""), name="fieldsV1")


class _Applied(msgspec.Struct):
    last: str | None = msgspec.field(default=None, name="kubectl.kubernetes.io/last-applied-configuration")


class _OwnedMeta(msgspec.Struct, rename="camel"):
    managed_fields: list[_Managed] = []
    annotations: _Applied | None = None


class _Owned(msgspec.Struct):
    metadata: _OwnedMeta


_machine_decoder = msgspec.json.Decoder(Machine)
_owner_decoder = msgspec.json.Decoder(_Owned)
_OURSELVES = "vmnic-controller"
_NIC_LIST = b'"f:interfaces"'


def decode_machine(raw: bytes | msgspec.Raw) -> Machine:
    """Parse a VirtualMachine, and tell from its managed fields who applies its NIC list.

    An applier is who used server-side apply, or who wrote the list and left the annotation of client-side apply.

    Raises:
        msgspec.ValidationError: a field has the wrong type; the message has its path.
    """
    machine = _machine_decoder.decode(raw)
    meta = _owner_decoder.decode(raw).metadata
    by_hand = meta.annotations is not None and meta.annotations.last is not None
    for entry in meta.managed_fields:
        applies = entry.operation == "Apply" or by_hand
        if applies and entry.manager != _OURSELVES and _NIC_LIST in bytes(entry.fields):
            return msgspec.structs.replace(machine, applier=entry.manager)
    return machine


decode_instance = msgspec.json.Decoder(Instance).decode
decode_preference = msgspec.json.Decoder(Preference).decode
decode_instancetype = msgspec.json.Decoder(Instancetype).decode
decode_network = msgspec.json.Decoder(NetworkDefinition).decode
