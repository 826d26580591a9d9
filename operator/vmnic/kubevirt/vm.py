"""The fields of KubeVirt's objects that decisions read.

All other fields are dropped while decoding, because complete VMs of a large cluster do not fit into memory. The fields are
KubeVirt's (kubevirt.io/v1, instancetype.kubevirt.io/v1beta1). A wrong type raises msgspec.ValidationError with the path of the
field.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..checked.documents import BoundError, check_depth
from .field_owner import last_field_manager
from .guests import kept_keys

__all__ = [
    "BINDINGS",
    "Cpu",
    "HostDevice",
    "Instancetype",
    "Interface",
    "Named",
    "Network",
    "Part",
    "Preference",
    "Quantities",
    "Quota",
    "Reference",
    "Resources",
    "StatusReference",
    "VirtualMachine",
    "VmAnnotations",
    "decode_instancetype",
    "decode_machine",
    "decode_preference",
    "decode_quota",
    "salvage_machine",
]


# Defaults are omitted, so that an entry that is compared or written back has only the fields that its owner has set.
# Decoded JSON contains no reference cycles, so the garbage collector need not visit it.
class Part(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """Base of decoded objects with camel-case names. Unknown fields are dropped."""


class Named(Part, frozen=True):
    """A reference by name."""

    name: str = ""


class Interface(Part, frozen=True, kw_only=True):
    """One entry of `domain.devices.interfaces`, complete, so that a removed entry can be restored."""

    name: str
    model: str | None = None
    mac_address: str | None = None
    masquerade: dict[str, Any] | None = None
    bridge: dict[str, Any] | None = None
    sriov: dict[str, Any] | None = None
    passt_binding: dict[str, Any] | None = None
    slirp: dict[str, Any] | None = None
    macvtap: dict[str, Any] | None = None
    passt: dict[str, Any] | None = None
    binding: Named | None = None
    pci_address: str | None = None
    boot_order: int | None = None
    acpi_index: int | None = None
    dhcp_options: dict[str, Any] | None = None
    ports: list[Any] | None = None
    port_ranges: list[Any] | None = None
    state: str | None = None
    tag: str | None = None

    @property
    def bindings(self) -> tuple[str, ...]:
        """Return the fields that bind the interface, by KubeVirt's names. KubeVirt allows exactly one."""
        return tuple([name for field, name in _WIRE.items() if getattr(self, field) is not None])


_BINDINGS = ("masquerade", "bridge", "sriov", "passt_binding", "slirp", "macvtap", "passt", "binding")
_WIRE = {field: "passtBinding" if field == "passt_binding" else field for field in _BINDINGS}
"""KubeVirt's names of bindings, by field."""
BINDINGS = tuple(_WIRE.values())
"""Fields that bind an interface, by KubeVirt's names."""


class _Multus(Part, frozen=True):
    network_name: str = ""
    default: bool = False


class Network(Part, frozen=True, kw_only=True):
    """One entry of `networks`."""

    name: str
    pod: dict[str, Any] | None = None
    multus: _Multus | None = None
    resource_claim: dict[str, Any] | None = None


class HostDevice(Part, frozen=True, kw_only=True):
    """One entry of `domain.devices.hostDevices`."""

    name: str
    device_name: str = ""
    tag: str | None = None


class _Disk(Part, frozen=True, kw_only=True):
    boot_order: int | None = None


class _Devices(Part, frozen=True, kw_only=True):
    interfaces: tuple[Interface, ...] = ()
    disks: tuple[_Disk, ...] = ()
    host_devices: tuple[HostDevice, ...] = ()
    gpus: tuple[HostDevice, ...] = ()
    network_interface_multiqueue: bool | None = None
    autoattach_pod_interface: bool | None = None
    use_virtio_transitional: bool | None = None


class Cpu(Part, frozen=True, kw_only=True):
    """`domain.cpu`."""

    sockets: int = 0
    cores: int = 0
    threads: int = 0
    dedicated_cpu_placement: bool = False

    @property
    def has_topology(self) -> bool:
        """Return whether any of its numbers is set."""
        return bool(self.sockets or self.cores or self.threads)

    @property
    def vcpus(self) -> int:
        """Return sockets times cores times threads, each at least one."""
        return max(self.sockets, 1) * max(self.cores, 1) * max(self.threads, 1)


class _Features(Part, frozen=True):
    hyperv: dict[str, Any] | None = None


class _Hugepages(Part, frozen=True):
    page_size: str | int | None = None


class _Memory(Part, frozen=True):
    guest: str | int | float | None = None
    hugepages: _Hugepages | None = None


Quantities = dict[str, str | int | float | None]
"""Quantities by resource, as `requests` and `limits` contain them."""


class Resources(Part, frozen=True):
    """`domain.resources`."""

    requests: Quantities | None = None
    limits: Quantities | None = None
    overcommit_guest_overhead: bool = False

    def named(self, resource: str) -> str | int | float | None:
        """Return the quantity of a device resource.

        Its limit counts first. Kubernetes accepts no other request beside it.
        """
        return (self.limits or {}).get(resource, (self.requests or {}).get(resource))

    @property
    def devices(self) -> tuple[str, ...]:
        """Return the device resources that it names. Only these have a domain in their names."""
        return tuple(name for name in dict.fromkeys((*(self.limits or ()), *(self.requests or ()))) if "/" in name)


class _Domain(Part, frozen=True, kw_only=True):
    cpu: Cpu | None = None
    memory: _Memory | None = None
    resources: Resources | None = None
    devices: _Devices = _Devices()
    features: _Features | None = None


class _Requirement(Part, frozen=True, kw_only=True):
    key: str
    operator: str
    values: list[str] = []


class _Term(Part, frozen=True, kw_only=True):
    match_expressions: tuple[_Requirement, ...] = ()


class _Terms(Part, frozen=True, kw_only=True):
    node_selector_terms: tuple[_Term, ...] = ()


class _NodeAffinity(Part, frozen=True, kw_only=True):
    required: _Terms | None = msgspec.field(default=None, name="requiredDuringSchedulingIgnoredDuringExecution")


class _Affinity(Part, frozen=True, kw_only=True):
    node_affinity: _NodeAffinity | None = None


class _Hotpluggable(Part, frozen=True):
    hotpluggable: bool = False


class _HostDisk(Part, frozen=True, kw_only=True):
    shared: bool = False


class _Volume(Part, frozen=True, kw_only=True):
    name: str = ""
    host_disk: _HostDisk | None = None
    persistent_volume_claim: _Hotpluggable | None = None
    data_volume: _Hotpluggable | None = None
    memory_dump: _Hotpluggable | None = None


class _Toleration(Part, frozen=True, kw_only=True):
    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""


class _InstanceSpec(Part, frozen=True, kw_only=True):
    architecture: str = ""
    domain: _Domain = _Domain()
    volumes: tuple[_Volume, ...] = ()
    networks: tuple[Network, ...] = ()
    node_selector: dict[str, str] = {}
    affinity: _Affinity | None = None
    tolerations: tuple[_Toleration, ...] = ()
    eviction_strategy: str | None = None


class _TemplateMeta(Part, frozen=True, kw_only=True):
    annotations: dict[str, str] = {}


class _Template(Part, frozen=True, kw_only=True):
    metadata: _TemplateMeta | None = None
    spec: _InstanceSpec = _InstanceSpec()


class Reference(Part, frozen=True, kw_only=True):
    """`spec.instancetype` or `spec.preference`."""

    name: str = ""
    kind: str = ""
    revision_name: str = ""
    """The ControllerRevision that holds the object as the VM keeps it."""
    infer_from_volume: str = ""
    infer_from_volume_failure_policy: str = ""

    @property
    def is_inferred(self) -> bool:
        """Return whether KubeVirt has yet to replace the reference with the name that a volume's image gives."""
        return bool(self.infer_from_volume) and not self.name

    @property
    def cluster_wide(self) -> bool:
        """Return whether it names a cluster-wide object, which is the default without a kind."""
        # KubeVirt takes the kind in any case, and in singular or plural.
        return "cluster" in self.kind.lower() or not self.kind


class StatusReference(Part, frozen=True, kw_only=True):
    """`status.instancetypeRef` or `status.preferenceRef`."""

    name: str = ""
    controller_revision_ref: Named | None = None


class _MachineStatus(Part, frozen=True, kw_only=True):
    instancetype_ref: StatusReference | None = None
    preference_ref: StatusReference | None = None


class _MachineSpec(Part, frozen=True, kw_only=True):
    run_strategy: str | None = None
    running: bool | None = None
    instancetype: Reference | None = None
    preference: Reference | None = None
    template: _Template = _Template()


class VmAnnotations(Part, frozen=True, kw_only=True):
    """vmnic's own annotations. All others are dropped, because some are as large as the object."""

    exclude: str | None = msgspec.field(default=None, name="vmnic.dev/exclude")
    network_pressure: str | None = msgspec.field(default=None, name="vmnic.dev/network-pressure")
    restart: str | None = msgspec.field(default=None, name="vmnic.dev/restart")
    assigned: str | None = msgspec.field(default=None, name="vmnic.dev/assigned")


class _Meta(Part, frozen=True, kw_only=True):
    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    labels: dict[str, str] = {}
    annotations: VmAnnotations | None = None
    deletion_timestamp: str | None = None


class VirtualMachine(Part, frozen=True, kw_only=True):
    """A VirtualMachine."""

    metadata: _Meta
    spec: _MachineSpec
    annotations: dict[str, str] = {}
    """The annotations that the guest data name. Others are dropped."""
    template_labels: dict[str, str] = {}
    """The labels of the template that the guest data name."""
    status: _MachineStatus | None = None
    applier: str = ""
    """The field manager that applies the NIC list; empty if there is none. It is read from the managed fields, which are not
    kept."""
    unknown_fields: dict[str, tuple[str, ...]] = {}
    """Fields of interfaces and networks that this version does not know and drops, by their name."""

    @property
    def kept_preference(self) -> StatusReference | None:
        """Return what KubeVirt has noted about the preference."""
        return self.status.preference_ref if self.status is not None else None

    @property
    def kept_instancetype(self) -> StatusReference | None:
        """Return what KubeVirt has noted about the instancetype."""
        return self.status.instancetype_ref if self.status is not None else None

    @property
    def halted(self) -> bool:
        """Return whether the spec asks for a stopped VM."""
        # With `Manual` the spec does not say whether the VM runs, so such a VM does not count as halted.
        return self.spec.run_strategy == "Halted" or self.spec.running is False

    @property
    def always_runs(self) -> bool:
        """Return whether KubeVirt starts it whenever it does not run."""
        return self.spec.run_strategy == "Always" or self.spec.running is True


class _PreferredDevices(Part, frozen=True, kw_only=True):
    preferred_interface_model: str | None = None
    preferred_network_interface_multi_queue: bool | None = None
    preferred_autoattach_pod_interface: bool | None = None
    preferred_use_virtio_transitional: bool | None = None


class _PreferenceSpec(Part, frozen=True, kw_only=True):
    devices: _PreferredDevices = _PreferredDevices()
    annotations: dict[str, str] = {}


class Preference(Part, frozen=True, kw_only=True):
    """A VirtualMachine(Cluster)Preference."""

    metadata: _Meta
    spec: _PreferenceSpec = _PreferenceSpec()


class _InstancetypeCpu(Part, frozen=True):
    guest: int = 0


class _InstancetypeMemory(Part, frozen=True):
    guest: str | int | float | None = None
    overcommit_percent: int = 0


class _InstancetypeSpec(Part, frozen=True):
    cpu: _InstancetypeCpu = _InstancetypeCpu()
    memory: _InstancetypeMemory | None = None
    host_devices: tuple[HostDevice, ...] = ()
    gpus: tuple[HostDevice, ...] = ()

    @property
    def has_devices(self) -> bool:
        """Return whether it lists host devices or GPUs."""
        return bool(self.host_devices or self.gpus)


class Instancetype(Part, frozen=True, kw_only=True):
    """A VirtualMachine(Cluster)Instancetype."""

    metadata: _Meta
    spec: _InstancetypeSpec = _InstancetypeSpec()


class _QuotaSpec(Part, frozen=True):
    hard: dict[str, str | int | float] = {}


class _QuotaStatus(Part, frozen=True):
    used: dict[str, str | int | float] = {}


class Quota(Part, frozen=True, kw_only=True):
    """A ResourceQuota."""

    metadata: _Meta
    spec: _QuotaSpec = _QuotaSpec()
    status: _QuotaStatus = _QuotaStatus()


_MOST_ENTRIES = 256
"""A VM's PCI buses have room for fewer devices."""
_ENTRY_LEVELS = 8
"""The content of a binding or a DHCP option of KubeVirt's interface has two levels."""


def _check_entries(machine: VirtualMachine) -> None:
    """Check bounds of the entries that are kept unparsed.

    Interfaces and networks are compared and written back as a whole.
    """
    spec = machine.spec.template.spec
    devices = spec.domain.devices
    if max(map(len, (devices.interfaces, devices.host_devices, devices.gpus, spec.networks))) > _MOST_ENTRIES:
        raise BoundError(f"a list of interfaces, networks or devices has more than {_MOST_ENTRIES} entries")
    resources = spec.domain.resources or Resources()
    if max(len(resources.requests or ()), len(resources.limits or ())) > _MOST_ENTRIES:
        raise BoundError(f"resources names more than {_MOST_ENTRIES} quantities")
    for interface in spec.domain.devices.interfaces:
        for field in (*_BINDINGS, "dhcp_options", "ports", "port_ranges"):
            check_depth(getattr(interface, field), _ENTRY_LEVELS)
    for network in spec.networks:
        check_depth(network.pod, _ENTRY_LEVELS)
        check_depth(network.resource_claim, _ENTRY_LEVELS)


_machine_decoder = msgspec.json.Decoder(VirtualMachine)


def decode_machine(raw: bytes | msgspec.Raw) -> VirtualMachine:
    """Parse a VirtualMachine and determine the field manager of its NIC list.

    Raises:
        msgspec.ValidationError: a field has the wrong type; the message has its path.
    """
    machine = _machine_decoder.decode(raw)
    _check_entries(machine)
    if machine.metadata.annotations is not None and machine.metadata.resource_version:
        # Only the first annotation of a VM needs the resourceVersion as a guard. Without it, an update of the status does not
        # change the decoded VM.
        known = msgspec.structs.replace(machine.metadata, resource_version="")
        machine = msgspec.structs.replace(machine, metadata=known)
    annotations, labels = _guest_texts(raw)
    return msgspec.structs.replace(
        machine,
        applier=last_field_manager(raw),
        annotations=annotations,
        template_labels=labels,
        unknown_fields=_unknown_fields(raw),
    )


class _Keys(Part, frozen=True, kw_only=True):
    interfaces: tuple[dict[str, msgspec.Raw], ...] = ()


class _KeysDomain(Part, frozen=True, kw_only=True):
    devices: _Keys = _Keys()


class _KeysInstance(Part, frozen=True, kw_only=True):
    domain: _KeysDomain = _KeysDomain()
    networks: tuple[dict[str, msgspec.Raw], ...] = ()


class _KeysTemplate(Part, frozen=True, kw_only=True):
    spec: _KeysInstance = _KeysInstance()


class _KeysSpec(Part, frozen=True, kw_only=True):
    template: _KeysTemplate = _KeysTemplate()


class _WithKeys(Part, frozen=True, kw_only=True):
    spec: _KeysSpec = _KeysSpec()


_keys_decoder = msgspec.json.Decoder(_WithKeys)
_name_decoder = msgspec.json.Decoder(str)
_INTERFACE_KEYS, _NETWORK_KEYS = (frozenset(kind.__struct_encode_fields__) for kind in (Interface, Network))
_MOST_UNKNOWN = 16
_NO_FIELDS: dict[str, tuple[str, ...]] = {}


def _unknown_fields(raw: bytes | msgspec.Raw) -> dict[str, tuple[str, ...]]:
    """Return the fields of interfaces and networks that the structs above drop."""
    found: dict[str, tuple[str, ...]] = {}
    instance = _keys_decoder.decode(raw).spec.template.spec
    for entries, known in ((instance.domain.devices.interfaces, _INTERFACE_KEYS), (instance.networks, _NETWORK_KEYS)):
        for entry in entries:
            if unknown := sorted(entry.keys() - known):
                name = _name_decoder.decode(entry["name"])
                found[name] = (*found.get(name, ()), *unknown)[:_MOST_UNKNOWN]
    return found or _NO_FIELDS


class _Texts(Part, frozen=True, kw_only=True):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _TextsTemplate(Part, frozen=True, kw_only=True):
    metadata: _Texts | None = None


class _TextsSpec(Part, frozen=True, kw_only=True):
    template: _TextsTemplate = _TextsTemplate()


class _WithTexts(Part, frozen=True, kw_only=True):
    metadata: _Texts
    spec: _TextsSpec = _TextsSpec()


_texts_decoder = msgspec.json.Decoder(_WithTexts)
_LABEL_CHARS = 63
_NO_TEXTS: dict[str, str] = {}


def _guest_texts(raw: bytes | msgspec.Raw) -> tuple[dict[str, str], dict[str, str]]:
    """Return annotations of a VM and labels of its template that only the guest data name."""
    annotations, labels, prefixes = kept_keys()
    # vmnic's own data name none, and a second pass over every VM costs time.
    if not (annotations or labels or prefixes):
        return _NO_TEXTS, _NO_TEXTS
    found = _texts_decoder.decode(raw)
    template = found.spec.template.metadata or _Texts()
    return (
        {key: text[:_LABEL_CHARS] for key, text in (found.metadata.annotations or {}).items() if key in annotations},
        {key: text for key, text in (template.labels or {}).items() if key in labels or key.startswith(prefixes)},
    )


class _Salvaged(Part, frozen=True, kw_only=True):
    metadata: _Meta


_salvage_decoder = msgspec.json.Decoder(_Salvaged)


def salvage_machine(raw: bytes | msgspec.Raw) -> VirtualMachine:
    """Read the metadata of a VirtualMachine whose spec cannot be read.

    Its annotation `vmnic.dev/assigned` still counts.

    Raises:
        msgspec.MsgspecError: the metadata cannot be read either.
    """
    return VirtualMachine(metadata=_salvage_decoder.decode(raw).metadata, spec=_MachineSpec())


decode_preference = msgspec.json.Decoder(Preference).decode
decode_instancetype = msgspec.json.Decoder(Instancetype).decode
decode_quota = msgspec.json.Decoder(Quota).decode
